"""An attribution graph over transcoder features: which features drive which, and the metric, in a ViT.

Nodes are the features with the largest total effect on the metric, every transcoder's error, MLPs without a transcoder, and
the embedding. An edge's effect on the metric is what its source brings to its target before the threshold, summed over
tokens where the target is active, times what the target does to the metric from there on; see
:mod:`circuits.transcoder_paths` for what is held. It is a prediction of the linear model at each image, and exact within it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from circuits.circuit import Place, ScoredEdge, leading_to_metric, place_id
from circuits.edges import METRIC
from circuits.graph import METRIC_ID, Effect, FeatureGraph, GraphEdge, GraphNode
from circuits.inputs import as_batch
from circuits.metrics import Measurable, as_metric
from circuits.running import slices
from circuits.transcoder_paths import EMBEDDING, LinearRun, WritesFeatures, by_written_site, written_sites
from mechinterp.errors import ConfigError
from mechinterp.progress import SILENT, Progress

if TYPE_CHECKING:
    from circuits.inputs import Batch
    from mechinterp.images.image_set import ImageSet
    from mechinterp.models.vision_model import VisionModel

_Values = dict[tuple[Place, Place], list[tuple[NDArray[np.float64], NDArray[np.float64]]]]


def transcoder_graph(
    model: VisionModel,
    images: ImageSet | Float[Tensor, "image channel height width"],
    transcoders: Sequence[WritesFeatures],
    *,
    metric: Measurable,
    groups: Sequence[Any] | NDArray[Any] | None = None,
    attributes: Mapping[Place, tuple[str, str]] | None = None,
    features: int = 48,
    edges: int = 200,
    batch: int = 16,
    boot: int = 500,
    seed: int = 0,
    progress: Progress = SILENT,
) -> FeatureGraph:
    """Trace a metric back through transcoder features.

    Parameters
    ----------
    model, images
        A ViT and what it looks at.
    transcoders
        One for each block that has one; each reads what goes into the block's MLP and writes its ``hook_mlp_out``.
    metric
        What is explained; a logit or a difference of logits, so that the last step is linear too.
    groups
        Patient of each image, for intervals; an ``ImageSet`` has its own.
    attributes
        (written site, feature) → attribute and unit, shown on the nodes.
    features
        How many features are nodes: those whose removal changes the metric most, in the linear model, over images.
    edges
        How many edges are kept, the largest.
    batch
        Images at once.
    boot, seed
        Of the intervals over patients.
    progress
        Told of every batch and target.

    Returns
    -------
    FeatureGraph
        An edge's *noising* effect is that of taking the source's part away from its target, its *denoising* effect that of
        putting it there; in a linear model one is the other with its sign turned.

    Raises
    ------
    ConfigError
        If a size is below 1, or the transcoders do not fit the model.
    SiteError
        If the model has no stream that can be held linear.

    Examples
    --------
    >>> graph = transcoder_graph(model, images, [transcoder], metric=logit("tumour"))  # doctest: +SKIP
    >>> graph.figure().show()  # doctest: +SKIP

    """
    for name, value in (("features", features), ("edges", edges), ("batch", batch)):
        if value < 1:
            raise ConfigError(f"{name} is {value}: it must be at least 1")
    known, measured = as_batch(model, images, groups), as_metric(metric, model)
    by_site = by_written_site(transcoders, written_sites(model))
    runs = [
        LinearRun(model, transcoders, measured, known.x[part], first=part.start)
        for part in progress.track(list(slices(len(known.x), batch)), "transcoders in place", -(-len(known.x) // batch))
    ]
    totals = [run.metric_gradients(live=True) for run in runs]
    influence = {site: _influence(runs, totals, site, t) for site, t in by_site.items()}
    chosen = _strongest(influence, features)
    values: _Values = {}
    for run, total in zip(progress.track(runs, "edges between features", len(runs)), totals, strict=True):
        _add_edges_to_metric(run, chosen, values)
        for site, targets in chosen.items():
            _add_edges_to_features(run, total, site, targets, chosen, values)
    rows = np.arange(len(known.x))
    scored = [e for edge, parts in values.items() if (e := _scored(edge, parts, rows)).size > 0]
    kept = leading_to_metric(sorted(scored, key=lambda e: -e.size)[:edges])
    scale = torch.cat([(r.into_metric().total - r.metric_without_sources()).abs() for r in runs]).mean()
    claim = {
        "method": "transcoder attribution", "ablation": "zero",
        "ablation_sentence": "What a source writes is taken away from its target, everything else held.",
        "frozen": ["attention", "gates", "norm"], "discovery": "top-n", "images": len(known.x), "patients": known.patients,
        "model": model.name, "trained": model.trained, "features": features,
        "transcoders": {site: t.site for site, t in by_site.items()},
    }  # fmt: skip
    graph = _Drawing(by_site, runs[0].written, known, boot, seed).graph(
        kept, influence, measured.name, float(scale), claim
    )
    return graph.named(attributes or {})


def _influence(
    runs: Sequence[LinearRun], totals: Sequence[Mapping[str, Tensor]], site: str, transcoder: WritesFeatures
) -> Float[NDArray[np.float64], "image feature"]:
    """Return what each feature does to the metric in all, features behind it following."""
    parts = [
        (run.codes[site] * (total[site] @ transcoder.directions.to(total[site]).T)).sum(1)
        for run, total in zip(runs, totals, strict=True)
    ]
    found: NDArray[np.float64] = torch.cat(parts).double().cpu().numpy()
    return found


def _strongest(influence: Mapping[str, NDArray[np.float64]], n: int) -> dict[str, list[int]]:
    sizes = [(float(v), site, f) for site, values in influence.items() for f, v in enumerate(np.abs(values).mean(0))]
    best = sorted((s for s in sizes if s[0] > 0), key=lambda s: -s[0])[:n]
    return {site: sorted(f for _, own, f in best if own == site) for site in influence}


def _sources(
    run: LinearRun, gradients: Mapping[str, Tensor], chosen: Mapping[str, Sequence[int]]
) -> dict[Place, tuple[Tensor, Tensor]]:
    """Return what every node brings to an outcome of each image, and how active the node is."""
    found: dict[Place, tuple[Tensor, Tensor]] = {
        (EMBEDDING, 0): (
            (gradients[EMBEDDING] * run.embedding).sum((1, 2)),
            run.embedding.flatten(1).norm(dim=1),
        )
    }
    for site, whole in run.wholes.items():
        found[site, 0] = ((gradients[site] * whole).sum((1, 2)), whole.flatten(1).norm(dim=1))
    for site, t in run.transcoders.items():
        own = list(chosen[site])
        codes = run.codes[site][..., own]
        brought = (codes * (gradients[site] @ t.directions[own].to(gradients[site]).T)).sum(1)
        active = codes.sum(1)
        for column, feature in enumerate(own):
            found[site, feature] = (brought[:, column], active[:, column])
        error = run.errors[site]
        found[site, t.width] = ((gradients[site] * error).sum((1, 2)), error.flatten(1).norm(dim=1))
    return found


def _add_edges_to_metric(run: LinearRun, chosen: Mapping[str, Sequence[int]], values: _Values) -> None:
    gradients = run.metric_gradients(live=False)
    for place, (effect, active) in _sources(run, gradients, chosen).items():
        _add(values, (place, (METRIC, 0)), effect, effect, active)


def _add_edges_to_features(
    run: LinearRun,
    total: Mapping[str, Tensor],
    site: str,
    targets: Sequence[int],
    chosen: Mapping[str, Sequence[int]],
    values: _Values,
) -> None:
    t = run.transcoders[site]
    earlier = {EMBEDDING, *run.written[: run.written.index(site)]}
    sums = []
    for feature in targets:
        gate = run.gates[site][..., feature]
        # what one unit of the feature does to the metric from here on, at every token
        onward = total[site] @ t.directions[feature].to(total[site])
        sums += [(feature, gate * onward), (feature, gate)]
    gradients = run.gradients_into(site, sums)
    for k, feature in enumerate(targets):
        effects, moves = (_sources(run, g, chosen) for g in gradients[2 * k : 2 * k + 2])
        for place, (effect, active) in effects.items():
            if place[0] in earlier:
                _add(values, (place, (site, feature)), effect, moves[place][0], active)


def _add(values: _Values, edge: tuple[Place, Place], effect: Tensor, moved: Tensor, active: Tensor) -> None:
    """Keep one batch's effects, and with them slope's numerator and denominator, image by image."""
    both = torch.stack([moved * active, active.square()]).double().cpu().numpy()
    values.setdefault(edge, []).append((effect.double().cpu().numpy(), both))


def _scored(
    edge: tuple[Place, Place],
    parts: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]],
    images: NDArray[np.int64],
) -> ScoredEdge:
    effect = np.concatenate([p[0] for p in parts])
    up, down = np.concatenate([p[1] for p in parts], axis=1).sum(1)
    return ScoredEdge(edge, -effect, effect, float(up / max(down, np.finfo(np.float64).tiny)), images)


@dataclass(frozen=True, eq=False)
class _Drawing:
    """Makes the graph of edges, with intervals over patients."""

    transcoders: Mapping[str, WritesFeatures]
    written: Sequence[str]
    batch: Batch
    boot: int
    seed: int

    def graph(
        self,
        edges: Sequence[ScoredEdge],
        influence: Mapping[str, NDArray[np.float64]],
        metric: str,
        scale: float,
        claim: Mapping[str, Any],
    ) -> FeatureGraph:
        order = (EMBEDDING, *self.written)
        places = sorted({p for e in edges for p in e.edge if p[0] != METRIC}, key=lambda p: (order.index(p[0]), p[1]))
        nodes = [self._node(place, influence) for place in places]
        nodes.append(GraphNode(METRIC_ID, METRIC, 0, "metric", metric))
        drawn = [
            GraphEdge(
                place_id(e.edge[0]), place_id(e.edge[1]), self._effect(e.noising), self._effect(e.denoising), e.slope
            )
            for e in edges
        ]
        return FeatureGraph(tuple(nodes), tuple(drawn), metric, scale, claim)

    def _node(self, place: Place, influence: Mapping[str, NDArray[np.float64]]) -> GraphNode:
        site, index = place
        if site == EMBEDDING:
            return GraphNode(place_id(place), site, index, "layer", "embedding of the image")
        block = f"block {site.split('.')[1]}"
        if site not in self.transcoders:
            return GraphNode(place_id(place), site, index, "layer", f"MLP of {block}, without a transcoder")
        if index == self.transcoders[site].width:
            return GraphNode(place_id(place), site, index, "error", f"error of {block}'s transcoder")
        # as everywhere: changed minus unchanged, when it is taken away
        effect = self._effect(-influence[site][:, index])
        return GraphNode(place_id(place), site, index, "feature", f"feature {index} of {block}", effect=effect)

    def _effect(self, values: NDArray[np.float64]) -> Effect:
        rows = np.arange(len(values))
        interval = self.batch.interval(lambda drawn: float(values[drawn].mean()), rows, self.boot, self.seed)
        return Effect(float(values.mean()), float(np.abs(values).mean()), interval.low, interval.high, interval.reason)
