"""How much of a metric circuits of nodes restore, from one node a site to all: each size under every ablation, with its controls."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from circuits.ablations import Ablation, mean, resample, zero
from circuits.corrupting import corrupted_batches
from circuits.faithfulness import doubling
from circuits.inputs import Batch
from circuits.node_circuits import Kept, NodeCircuitRunner, Ranking, connections, count_edges, tail_of
from circuits.shares import Rows, Share, restored
from circuits.wiring import Wiring
from mechinterp.errors import ConfigError, ShapeError
from mechinterp.progress import SILENT, Progress

if TYPE_CHECKING:
    import plotly.graph_objects as go

WITHIN = (0.8, 1.2)
"""Between these a circuit's faithfulness counts as the model's own."""


@dataclass(frozen=True, eq=False)
class CurvePoint:
    """Circuits of one size under one ablation.

    Parameters
    ----------
    most
        Nodes kept of every site, at most; the error node is one of them.
    nodes, edges
        How many that makes in all.
    faithfulness, completeness
        Of these nodes alone, and of everything but them.
    without_errors
        Faithfulness of as many nodes when no error node is kept; NaN where there is none.
    random
        Faithfulness of random circuits: as many nodes of every site, drawn from those that the two runs tell apart, and the
        same error nodes.
    neurons
        As many neurons of every site; ``None`` where the nodes are neurons already.

    """

    most: int
    nodes: int
    edges: int
    faithfulness: Share
    completeness: Share
    without_errors: float
    random: Float[NDArray[np.float64], " circuit"]
    neurons: Share | None

    @property
    def random_range(self) -> tuple[float, float]:
        """2.5 and 97.5 percentiles of the random circuits; NaN without any."""
        if not len(self.random):
            return (float("nan"), float("nan"))
        low, high = np.percentile(self.random, [2.5, 97.5])
        return float(low), float(high)

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return {
            "most_nodes_a_site": self.most,
            "nodes": self.nodes,
            "edges": self.edges,
            "faithfulness": self.faithfulness.to_json(),
            "completeness": self.completeness.to_json(),
            "without_errors": None if np.isnan(self.without_errors) else self.without_errors,
            "random": {"n": len(self.random), "interval": list(self.random_range) if len(self.random) else None},
            "neurons": None if self.neurons is None else self.neurons.to_json(),
        }


@dataclass(frozen=True, eq=False)
class NodeCurve:
    """All sizes under one ablation.

    Parameters
    ----------
    ablation
        What replaces the nodes that are not kept.
    points
        By size.
    errors_alone
        Faithfulness of the error nodes and nothing else; NaN where there is none.

    """

    ablation: Ablation
    points: tuple[CurvePoint, ...]
    errors_alone: float

    def at(self, most: int) -> CurvePoint:
        """Return the point of one size."""
        return next(p for p in self.points if p.most == most)


@dataclass(frozen=True, eq=False)
class NodeCurves:
    """The curves under several ablations.

    Parameters
    ----------
    under
        One for each ablation; all have the same sizes.
    possible_nodes, possible_edges
        How many there are.

    """

    under: tuple[NodeCurve, ...]
    possible_nodes: int
    possible_edges: int

    def smallest(self, within: tuple[float, float] = WITHIN) -> CurvePoint | None:
        """Return the smallest size from which on every size is faithful under every ablation; ``None`` if none is.

        The point is that of the ablation under which it is farthest from 1.
        """
        found = None
        for points in reversed(list(zip(*(u.points for u in self.under), strict=True))):
            if not all(within[0] <= p.faithfulness.value <= within[1] for p in points):
                break
            found = max(points, key=lambda p: abs(p.faithfulness.value - 1))
        return found

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return {
            "possible_nodes": self.possible_nodes,
            "possible_edges": self.possible_edges,
            "under": [
                {
                    "ablation": u.ablation.name,
                    "puts": u.ablation.sentence,
                    "errors_alone": None if np.isnan(u.errors_alone) else u.errors_alone,
                    "points": [p.to_json() for p in u.points],
                }
                for u in self.under
            ],
        }

    def figure(self) -> go.Figure:
        """Draw them; see :func:`circuits.curve_figures.curves_figure`."""
        from circuits.curve_figures import curves_figure

        return curves_figure(self)


@dataclass(frozen=True, eq=False)
class Ranked:
    """A wiring with its nodes in order: what circuits of nodes are cut from."""

    wiring: Wiring
    ranking: Ranking


def measure_curves(
    ranked: Ranked,
    *,
    images: Batch,
    neurons: Ranked | None = None,
    ablations: Sequence[Ablation] = (),
    reference: Float[Tensor, "reference channel height width"] | None = None,
    partners: Float[Tensor, "image channel height width"] | None = None,
    sizes: Sequence[int] = (),
    subgroups: Sequence[str] | None = None,
    random_circuits: int = 20,
    batch: int = 32,
    boot: int = 500,
    seed: int = 0,
    progress: Progress = SILENT,
) -> NodeCurves:
    """Run the largest nodes of every site alone, for every size, beside random nodes and neurons.

    Parameters
    ----------
    ranked
        Sites and nodes in the order in which they are kept, which was found on other images.
    images
        Patients held out.
    neurons
        The same sites' neurons in their order.
    ablations
        What replaces nodes that are not kept: zero, mean and resample by default.
    reference
        Images whose values are put in place; by default the images themselves.
    partners
        For paired ablations: each image's own counterfactual.
    sizes
        Numbers of nodes kept of every site; 1, 2, 4, … and all by default.
    subgroups
        Class or subgroup of each image.
    random_circuits
        How many of each size.
    batch
        Images at once.
    boot
        Resamples of the patients, for intervals.
    seed
        Of draws and intervals.
    progress
        Told of every size.

    Raises
    ------
    ConfigError
        If a size is below 1, or a paired ablation has no partners.
    ShapeError
        If there are not as many subgroups as images.

    """
    if subgroups is not None and len(subgroups) != len(images.x):
        raise ShapeError(f"{len(subgroups)} subgroups for {len(images.x)} images: give one each")
    widest = max(len(layer) for layer in ranked.wiring.layers)
    chosen = sorted(set(sizes)) or doubling(widest)
    if chosen[0] < 1:
        raise ConfigError(f"sizes name {chosen[0]}: a circuit keeps at least 1 node of a site")
    found, pairs = [], None
    for ablation in ablations or (zero(), mean(), resample(1)):
        if ablation.paired and partners is None:
            raise ConfigError(f"ablation '{ablation.name}' puts each image's own partner: give partners")
        pool = partners if ablation.paired else reference
        test = _Test(ranked, images, ablation, pool, subgroups, batch, boot, seed)
        beside = None if neurons is None else _Test(neurons, images, ablation, pool, subgroups, batch, boot, seed)
        # which sites reach which is the model's, whatever is put in place: looked at once
        pairs = test.pairs() if pairs is None else pairs
        points = tuple(
            _point(test, beside, n, random_circuits, pairs)
            for n in progress.track(chosen, f"circuits under {ablation.name}", len(chosen))
        )
        found.append(NodeCurve(ablation, points, test.errors_alone()))
    every = {layer.site: range(len(layer)) for layer in ranked.wiring.layers}
    return NodeCurves(tuple(found), sum(map(len, every.values())), count_edges(every, pairs or ()))


def _point(
    test: _Test, beside: _Test | None, n: int, random_circuits: int, pairs: Sequence[tuple[str, str]]
) -> CurvePoint:
    ranking = test.ranked.ranking
    kept = ranking.largest(n)
    drawn = [test.value(circuit) for circuit in random_kept(ranking, kept, random_circuits, test.seed)]
    return CurvePoint(
        n, sum(map(len, kept.values())), count_edges(kept, pairs), test.share(kept), test.share(kept, complement=True),
        test.value(ranking.largest(n, errors=False)) if ranking.errors else float("nan"), np.asarray(drawn, dtype=np.float64),
        None if beside is None else beside.share(beside.ranked.ranking.largest(n)),
    )  # fmt: skip


def random_kept(ranking: Ranking, kept: Kept, times: int, seed: int) -> Iterator[Kept]:
    """Yield random circuits of a circuit's size: as many nodes of every site that both runs tell apart, and its errors.

    Parameters
    ----------
    ranking
        Says which nodes differ between the runs: others change nothing, and would make a weak control.
    kept
        The circuit.
    times
        How many.
    seed
        Of the draws.

    """
    for draw in range(times):
        rng = np.random.default_rng([seed, draw, sum(map(len, kept.values()))])
        circuit = {}
        for site, nodes in kept.items():
            errors = [node for node in nodes if node == ranking.errors.get(site)]
            alive = ranking.alive(site)
            picks = rng.choice(len(alive), size=min(len(nodes) - len(errors), len(alive)), replace=False)
            circuit[site] = (*(alive[int(p)] for p in picks), *errors)
        yield circuit


class _Test:
    """One ablation's runs of the held-out images."""

    def __init__(
        self, ranked: Ranked, images: Batch, ablation: Ablation, reference: Tensor | None,
        subgroups: Sequence[str] | None, batch: int, boot: int, seed: int,
    ) -> None:  # fmt: skip
        self.ranked, self.seed = ranked, seed
        tail = tail_of(ranked.wiring, images.x)
        self.batches = list(
            corrupted_batches(ranked.wiring, images.x, reference, ablation, batch=batch, seed=seed, consistent=False)
        )
        self.runners = [NodeCircuitRunner(ranked.wiring, b, tail) for b in self.batches]
        rows = np.concatenate([np.arange(b.rows.start, b.rows.stop) for b in self.batches])
        whole = torch.cat([b.clean.metric for b in self.batches]).double().cpu().numpy()
        self.rows = Rows(images, rows, whole, self.metric({}), subgroups, boot, seed)

    def pairs(self) -> list[tuple[str, str]]:
        """Return which sites reach which, and the metric, directly."""
        return connections(self.ranked.wiring, self.batches[0])

    def metric(self, kept: Kept, *, complement: bool = False) -> NDArray[np.float64]:
        """Return the metric of every row with these nodes alone."""
        found: NDArray[np.float64] = (
            torch.cat([r.metric(kept, complement=complement) for r in self.runners]).double().cpu().numpy()
        )
        return found

    def share(self, kept: Kept, *, complement: bool = False) -> Share:
        """Return what these nodes restore, with its interval and subgroups."""
        return self.rows.share(self.metric(kept, complement=complement))

    def value(self, kept: Kept) -> float:
        """Return what these nodes restore over all images."""
        return restored(self.metric(kept), self.rows.whole, self.rows.none)

    def errors_alone(self) -> float:
        """Return what the error nodes restore when no other node is kept."""
        errors = self.ranked.ranking.errors
        return self.value({site: (node,) for site, node in errors.items()}) if errors else float("nan")
