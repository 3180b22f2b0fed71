"""A circuit that was found: its edges, its graph, and what is needed to run it alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from circuits.ablations import Ablation
from circuits.edges import METRIC
from circuits.graph import METRIC_ID, Effect, FeatureGraph, GraphEdge, GraphNode
from circuits.inputs import Batch
from circuits.wiring import Wiring

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from circuits.faithfulness import Faithfulness

Place: TypeAlias = tuple[str, int]
Edge: TypeAlias = tuple[Place, Place]


def place_id(place: Place) -> str:
    """Return a node's id in a graph."""
    return METRIC_ID if place[0] == METRIC else f"{place[0]}:{place[1]}"


@dataclass(frozen=True, eq=False)
class ScoredEdge:
    """One edge with its effects.

    Parameters
    ----------
    edge
        (site, node) of source and target.
    noising, denoising
        Effect on the metric of every row, see :mod:`circuits.edges`.
    slope
        By how much the target moves per unit of the source.
    images
        Which image each row belongs to.
    repair
        True where the target's part only shows when its source is changed: self-repair.

    """

    edge: Edge
    noising: Float[NDArray[np.float64], " row"]
    denoising: Float[NDArray[np.float64], " row"]
    slope: float
    images: Int[NDArray[np.int64], " row"]
    repair: bool = False

    @property
    def size(self) -> float:
        """The larger direction's mean absolute effect."""
        return float(max(np.abs(self.noising).mean(), np.abs(self.denoising).mean()))

    @property
    def sign(self) -> int:
        """1 where the source drives the target up, −1 where down."""
        return int(np.sign(self.slope))


@dataclass(frozen=True, eq=False)
class Circuit:
    """Nodes and edges that drive a metric.

    Parameters
    ----------
    wiring, batch, reference, ablation, seed
        What it was found in.
    edges
        By falling size.
    possible
        How many edges there could be between all nodes.
    scale
        Mean size of the metric's change between the two runs.
    node_effects
        Attribution of every node, per row.
    claim
        How the effects were won.
    attributes
        (site, feature) → attribute and unit.
    batch_size
        Images at once.
    boot
        Resamples of the patients.

    """

    wiring: Wiring
    batch: Batch
    reference: Float[Tensor, "reference channel height width"] | None
    ablation: Ablation
    seed: int
    edges: tuple[ScoredEdge, ...]
    possible: int
    scale: float
    node_effects: Mapping[Place, Float[NDArray[np.float64], " row"]]
    claim: Mapping[str, Any] = field(default_factory=dict)
    attributes: Mapping[Place, tuple[str, str]] = field(default_factory=dict)
    batch_size: int = 32
    boot: int = 500

    @property
    def nodes(self) -> tuple[Place, ...]:
        """The nodes in order of their sites, without the metric."""
        found = {end for e in self.edges for end in e.edge if end[0] != METRIC}
        return tuple(sorted(found, key=lambda p: (self.wiring.sites.index(p[0]), p[1])))

    @property
    def self_repair(self) -> tuple[Place, ...]:
        """Nodes that are silent until another one is changed."""
        return tuple(sorted({e.edge[0] for e in self.edges if e.repair}))

    def with_edges(self, edges: Iterable[Edge]) -> Circuit:
        """Return the same circuit with some of its edges only."""
        kept = set(edges)
        return replace(self, edges=tuple(e for e in self.edges if e.edge in kept))

    def largest(self, n: int) -> Circuit:
        """Return the circuit of the `n` largest edges, without those that lead nowhere."""
        return replace(self, edges=tuple(leading_to_metric(self.edges[:n])))

    @cached_property
    def graph(self) -> FeatureGraph:
        """The circuit as a graph, with intervals over patients."""
        repairing = set(self.self_repair)
        nodes = []
        for site, index in self.nodes:
            layer = self.wiring.layer(site)
            nodes.append(
                GraphNode(
                    place_id((site, index)),
                    site,
                    index,
                    layer.kind_of(index),
                    layer.name_of(index),
                    effect=self._effect(self.node_effects[site, index]),
                    self_repair=(site, index) in repairing,
                )
            )
        nodes.append(GraphNode(METRIC_ID, METRIC, 0, "metric", self.wiring.metric.name))
        edges = tuple(
            GraphEdge(
                place_id(e.edge[0]), place_id(e.edge[1]), self._effect(e.noising), self._effect(e.denoising), e.slope
            )
            for e in self.edges
        )
        drawn = FeatureGraph(tuple(nodes), edges, self.wiring.metric.name, self.scale, self.claim)
        return drawn.named(self.attributes)

    def _effect(self, values: NDArray[np.float64]) -> Effect:
        # rows repeat the images once per draw of the ablation, batch by batch
        images = self.edges[0].images
        interval = self.batch.interval(lambda rows: float(values[rows].mean()), images, self.boot, self.seed)
        return Effect(float(values.mean()), float(np.abs(values).mean()), interval.low, interval.high, interval.reason)

    def faithfulness(self, **settings: Any) -> Faithfulness:
        """Test it; see :func:`circuits.faithfulness.measure_faithfulness`."""
        from circuits.faithfulness import measure_faithfulness

        return measure_faithfulness(self, **settings)

    def figure(self) -> go.Figure:
        """Draw it in layers."""
        return self.graph.figure()


def leading_to_metric(edges: Sequence[ScoredEdge]) -> list[ScoredEdge]:
    """Return the edges from whose target a path leads to the metric."""
    reached: set[Place] = {(METRIC, 0)}
    while True:
        more = {e.edge[0] for e in edges if e.edge[1] in reached} - reached
        if not more:
            return [e for e in edges if e.edge[1] in reached]
        reached |= more
