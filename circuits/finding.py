"""Find a circuit: score nodes and edges by intervention in both directions, keep what matters, and draw the graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from circuits.ablations import Ablation, resample
from circuits.circuit import Circuit, Edge, Place, ScoredEdge, leading_to_metric
from circuits.corrupting import Corrupted, corrupted_batches
from circuits.edges import METRIC, Chosen, edge_effects
from circuits.finding_config import FindConfig
from circuits.inputs import Batch, as_batch
from circuits.metrics import Measurable, as_metric
from circuits.node_scores import node_scores
from circuits.nodes import NodeSet, features, heads, neurons, whole
from circuits.repair import repaired_edges
from circuits.wiring import Wiring
from mechinterp.errors import SiteError
from mechinterp.feature_encoder import FeatureEncoder
from mechinterp.progress import SILENT, Progress

if TYPE_CHECKING:
    from mechinterp.images.image_set import ImageSet
    from mechinterp.models.vision_model import VisionModel


def find_circuit(
    model: VisionModel,
    images: ImageSet | Float[Tensor, "image channel height width"],
    *,
    metric: Measurable,
    saes: Sequence[FeatureEncoder] = (),
    nodes: Sequence[NodeSet] = (),
    sites: Sequence[str] = (),
    reference: ImageSet | Float[Tensor, "reference channel height width"] | None = None,
    ablation: Ablation | None = None,
    groups: Sequence[Any] | NDArray[Any] | None = None,
    attributes: Mapping[tuple[str, int], tuple[str, str]] | None = None,
    among: Mapping[str, Sequence[int]] | None = None,
    config: FindConfig | None = None,
    progress: Progress = SILENT,
) -> Circuit:
    """Find the nodes and edges that drive a metric.

    Every edge is scored in both directions: *noising* changes its source in the run of the images as they are, *denoising*
    puts the source back into a corrupted run. It is kept when either moves the metric, since an OR or a backup shows only
    when restored and an AND only when broken. A node that stays silent until another one is changed (self-repair) is
    looked for as well, and marked.

    Parameters
    ----------
    model, images
        The model and what it looks at.
    metric
        What is explained: an objective, ``loss(labels)``, or a function from logits to one number per row.
    saes
        SAEs or other encoders; the features of each, and its error, are the nodes of its site.
    nodes
        Other sets of nodes, as :mod:`circuits.nodes` makes them.
    sites
        Sites whose neurons are the nodes. Without any nodes at all: the stages of a CNN, the heads and MLPs of a ViT.
    reference
        Images whose values are put in place; by default the images themselves, each another one's.
    ablation
        What is put in place; :func:`circuits.resample` with one draw by default.
    groups
        Patient of each image, for intervals; an :class:`~mechinterp.images.image_set.ImageSet` has its own.
    attributes
        (site, feature) → attribute and unit, shown on the nodes.
    among
        Site → the only nodes between which edges are looked for; by default those of largest effect.
    config
        How it is found.
    progress
        Told of every batch.

    Returns
    -------
    Circuit
        With its graph, its figure, and what is needed to test its faithfulness.

    Raises
    ------
    ConfigError, SiteError
        If nodes, sites or settings do not fit the model.

    Examples
    --------
    >>> circuit = find_circuit(model, images, saes=[sae], metric=logit_difference("tumour", "none"))  # doctest: +SKIP
    >>> circuit.figure().show()  # doctest: +SKIP

    """
    config, ablation = config or FindConfig(), ablation or resample(1)
    batch = as_batch(model, images, groups)
    other = None if reference is None else as_batch(model, reference).x
    layers = [*(features(sae) for sae in saes), *nodes, *(neurons(model, site) for site in sites)]
    measured = as_metric(metric, model)
    wiring = Wiring(model, layers or default_nodes(model), measured, batch.x, config.frozen)
    found = _Scores(wiring, batch, other, ablation, config, among)
    found.measure(progress)
    circuit = Circuit(
        wiring, batch, other, ablation, config.seed, tuple(found.kept()), found.possible, found.scale, found.node_effects(),
        {
            "method": config.how, "ablation": ablation.name, "ablation_sentence": ablation.sentence,
            "frozen": sorted(config.freeze), "discovery": config.discovery, "threshold": config.threshold,
            "images": len(batch.x), "patients": batch.patients, "model": model.name, "trained": model.trained,
            "off_data": found.off_data(),
        },
        dict(attributes or {}), config.batch, config.boot,
    )  # fmt: skip
    if config.discovery == "acdc":
        from circuits.acdc import acdc

        return acdc(circuit, config.threshold, progress=progress)
    return circuit


def default_nodes(model: VisionModel) -> list[NodeSet]:
    """Return the nodes that need no encoder: a CNN's channels stage by stage, a ViT's heads and MLPs.

    Raises
    ------
    SiteError
        If the model has neither stages nor blocks.

    """
    stages = [name for name in model.sites if name.removeprefix("stages.").isdigit() and name.startswith("stages.")]
    if stages:
        return [neurons(model, site) for site in stages]
    found: list[NodeSet] = []
    for name, site in model.sites.items():
        if name.startswith("blocks.") and name.endswith(".attn.hook_z"):
            found.append(heads(model, name) if getattr(site, "heads", 0) else whole(model, name))
        elif name.startswith("blocks.") and name.endswith(".hook_mlp_out"):
            found.append(whole(model, name))
    if not found:
        raise SiteError(f"'{model.spec}' has neither stages nor blocks: name the sites whose nodes make up the circuit")
    return found


@dataclass(eq=False)
class _Scores:
    """Edges' effects in both directions over all batches."""

    wiring: Wiring
    batch: Batch
    reference: Tensor | None
    ablation: Ablation
    config: FindConfig
    among: Mapping[str, Sequence[int]] | None = None
    scale: float = 0.0
    possible: int = 0
    edges: dict[Edge, ScoredEdge] = field(default_factory=dict)

    def measure(self, progress: Progress) -> None:
        batches = list(
            corrupted_batches(
                self.wiring, self.batch.x, self.reference, self.ablation, batch=self.config.batch, seed=self.config.seed
            )
        )
        self.scale = float(
            np.mean(np.concatenate([(b.clean.metric - b.run.metric).abs().double().cpu().numpy() for b in batches]))
        )
        chosen = self._shortlist(batches)
        parts: dict[str, list[Any]] = {"noising": [], "denoising": []}
        images: list[NDArray[np.int64]] = []
        for b in progress.track(batches, "effects of edges", len(batches)):
            images.append(np.arange(b.rows.start, b.rows.stop))
            ways = {"noising": (b.clean, b.replaced), "denoising": (b.run, b.clean)}
            for way, (base, other) in ways.items():
                parts[way].append(
                    edge_effects(
                        self.wiring, base, other, method=self.config.how, nodes=chosen, steps=self.config.steps,
                        rows=self.config.rows, first=b.rows.start,
                    )
                )  # fmt: skip
        self.images = np.concatenate(images)
        self._collect(parts, [len(i) for i in images], chosen)
        if self.config.discovery != "top-n":
            least = self.config.threshold * self.scale
            for edge in repaired_edges(self.wiring, batches, self.edges, least, chosen):
                self.edges[edge.edge] = edge

    def _shortlist(self, batches: Sequence[Corrupted]) -> Chosen:
        """Return each site's nodes with the largest effects, by one gradient in each direction."""
        totals: dict[str, Tensor] = {}
        self.signed: dict[str, list[Tensor]] = {layer.site: [] for layer in self.wiring.layers}
        for b in batches:
            for base, other in ((b.clean, b.replaced), (b.run, b.clean)):
                for site, values in node_scores(self.wiring, base, other, first=b.rows.start).items():
                    totals[site] = totals.get(site, torch.zeros_like(values[0])) + values.abs().sum(0)
                    if base is b.clean:
                        self.signed[site].append(values)
        chosen = {
            layer.site: totals[layer.site].argsort(descending=True)[: self.config.max_nodes].sort().values.tolist()
            for layer in self.wiring.layers
            if len(layer) > self.config.max_nodes
        }
        return Chosen(chosen if self.among is None else self.among)

    def _collect(self, parts: dict[str, list[Any]], sizes: Sequence[int], chosen: Chosen) -> None:
        pairs = {(e.source, e.target) for ways in parts.values() for batch in ways for e in batch}
        order = (*self.wiring.sites, METRIC)
        for source, target in sorted(pairs, key=lambda p: (order.index(p[0]), order.index(p[1]))):
            to_layer = None if target == METRIC else self.wiring.layer(target)
            sources = chosen.of(self.wiring.layer(source))
            targets = [0] if to_layer is None else chosen.of(to_layer)
            self.possible += len(self.wiring.layer(source)) * (1 if to_layer is None else len(to_layer))
            shape = (len(sources), len(targets))
            values, slopes = {}, np.zeros(shape)
            best = np.full(shape, -1.0)
            for way, batches in parts.items():
                whole = [_of_pair(batch, source, target, shape, n) for batch, n in zip(batches, sizes, strict=True)]
                values[way] = np.concatenate([w[0] for w in whole])
                moved = np.concatenate([w[2] for w in whole])
                change = np.concatenate([w[1] for w in whole])
                weight = np.maximum(np.square(change).sum(0), np.finfo(np.float64).tiny)[:, None]
                slope = np.einsum("is,ist->st", change, moved) / weight
                size = np.abs(values[way]).mean(0)
                slopes = np.where(size > best, slope, slopes)
                best = np.maximum(best, size)
            for i, t in zip(*np.nonzero(best > 0), strict=True):
                to: Place = (METRIC, 0) if to_layer is None else (target, targets[t])
                edge = ((source, sources[i]), to)
                self.edges[edge] = ScoredEdge(
                    edge, values["noising"][:, i, t], values["denoising"][:, i, t], float(slopes[i, t]), self.images
                )

    def kept(self) -> list[ScoredEdge]:
        """Return the edges that matter and lead to the metric."""
        ranked = sorted(self.edges.values(), key=lambda e: -e.size)
        if self.config.discovery == "top-n":
            ranked = ranked[: self.config.top]
        else:
            # ACDC decides itself; it starts from a wide choice, since every edge costs it a run
            share = 0.2 if self.config.discovery == "acdc" else 1.0
            ranked = [e for e in ranked if e.size >= share * self.config.threshold * self.scale]
        return leading_to_metric(ranked)

    def node_effects(self) -> dict[Place, NDArray[np.float64]]:
        """Return every node's own effect on the metric, by attribution, per image."""
        return {
            (site, node): values[:, node]
            for site, parts in self.signed.items()
            for values in [torch.cat(parts).double().cpu().numpy()]
            for node in range(values.shape[1])
        }

    def off_data(self) -> dict[str, float]:
        """Return how far off the data the replaced activations lie: distance from the mean, as a multiple of usual."""
        from circuits.off_data import DataSpread

        found = {}
        for b in corrupted_batches(
            self.wiring, self.batch.x[: self.config.batch], self.reference, self.ablation, batch=self.config.batch
        ):
            for site in self.wiring.sites:
                acts = b.clean.acts[site]
                if acts.shape[0] * acts.shape[1] > 1:
                    found[site] = DataSpread.fit(acts).ratio(b.replaced.acts[site], acts)
            break
        return found


def _of_pair(
    batch: Sequence[Any], source: str, target: str, shape: tuple[int, int], n: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    for effect in batch:
        if (effect.source, effect.target) == (source, target):
            return effect.effects, effect.source_change, effect.target_change
    # no direct way in this batch: nothing moves
    return np.zeros((n, *shape)), np.zeros((n, shape[0])), np.zeros((n, *shape))
