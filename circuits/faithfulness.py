r"""How much of the metric a circuit explains alone, beside random circuits of its size and the neuron-basis circuit.

What a circuit restores is :math:`F` of :mod:`circuits.shares`. *Completeness* is :math:`F` of
everything but the circuit: 0 when nothing of the metric is left without it. *Minimality* of an edge is by how much :math:`F`
falls when it is taken away.

References
----------
.. [1] Marks et al. Sparse feature circuits. 2024 (arXiv 2403.19647), section 4; Wang et al. Interpretability in the wild.
   2023, section 4, on faithfulness, completeness and minimality.

"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from circuits.ablations import Ablation
from circuits.circuit import Circuit, Edge, Place
from circuits.corrupting import corrupted_batches
from circuits.edges import METRIC
from circuits.inputs import Batch
from circuits.running_alone import CircuitRunner
from circuits.shares import Rows, Share, restored
from mechinterp.errors import ConfigError
from mechinterp.progress import SILENT, Progress

if TYPE_CHECKING:
    import plotly.graph_objects as go


@dataclass(frozen=True, eq=False)
class UnderAblation:
    """All of it under one ablation.

    Parameters
    ----------
    ablation
        What replaces what is not in the circuit.
    faithfulness, completeness
        Of the circuit, and of everything else.
    random
        Faithfulness of random circuits with as many edges.
    neurons
        Of the neuron-basis circuit with as many edges; ``None`` where the circuit's nodes are neurons already.
    minimality
        Edge → by how much faithfulness falls without it.
    curve
        Number of edges → faithfulness of the largest ones.

    """

    ablation: Ablation
    faithfulness: Share
    completeness: Share
    random: Float[NDArray[np.float64], " circuit"]
    neurons: Share | None
    minimality: Mapping[Edge, float]
    curve: Mapping[int, float]

    @property
    def random_interval(self) -> tuple[float, float]:
        """2.5 and 97.5 percentiles of the random circuits."""
        if not len(self.random):
            return (float("nan"), float("nan"))
        low, high = np.percentile(self.random, [2.5, 97.5])
        return float(low), float(high)

    @property
    def area(self) -> float:
        """Area under the curve of faithfulness, clipped to 0 … 1, over the share of the circuit's edges kept."""
        sizes = np.array(sorted(self.curve))
        values = np.clip([self.curve[int(n)] for n in sizes], 0, 1)
        return float(np.trapezoid(values, sizes / sizes[-1])) if len(sizes) > 1 else float("nan")

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        f, c = self.faithfulness, self.completeness
        return {
            "ablation": self.ablation.name,
            "puts": self.ablation.sentence,
            "faithfulness": f.to_json(),
            "completeness": c.to_json(),
            "random": {"n": len(self.random), "interval": list(self.random_interval)},
            "neurons": None if self.neurons is None else self.neurons.to_json(),
            "least_minimality": min(self.minimality.values(), default=None),
            "curve": {str(n): v for n, v in sorted(self.curve.items())},
            "area": self.area,
        }


@dataclass(frozen=True, eq=False)
class Faithfulness:
    """A circuit's faithfulness under several ablations.

    Parameters
    ----------
    under
        One for each ablation.
    edges, possible
        Edges of the circuit, and how many there could be.
    error_share
        Share of the edges' size that starts at error nodes.

    """

    under: tuple[UnderAblation, ...]
    edges: int
    possible: int
    error_share: float

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return {
            "edges": self.edges,
            "possible_edges": self.possible,
            "error_share": self.error_share,
            "under": [u.to_json() for u in self.under],
        }

    def figure(self) -> go.Figure:
        """Draw the curves; see :func:`circuits.graph_figures.faithfulness_figure`."""
        from circuits.graph_figures import faithfulness_figure

        return faithfulness_figure(self)


def measure_faithfulness(
    circuit: Circuit,
    *,
    images: Batch | None = None,
    ablations: Sequence[Ablation] = (),
    reference: Float[Tensor, "reference channel height width"] | None = None,
    subgroups: Sequence[str] | None = None,
    random_circuits: int = 20,
    neuron_circuit: Circuit | None = None,
    minimality: bool = True,
    curve: Sequence[int] = (),
    progress: Progress = SILENT,
) -> Faithfulness:
    """Run a circuit alone, without it, and random circuits of its size.

    Parameters
    ----------
    circuit
        What was found.
    images
        Other images than it was found on: patients held out. By default those it was found on.
    ablations
        What replaces everything else: zero, mean and resample by default, and the circuit's own.
    reference
        Images whose values are put in place; the circuit's own by default, or the images themselves.
    subgroups
        Class or subgroup of each image.
    random_circuits
        How many to draw, from all possible edges.
    neuron_circuit
        A circuit found on the same sites' neurons: as many of its largest edges are run beside.
    minimality
        Whether each edge is taken away in turn.
    curve
        Numbers of edges; by default 1, 2, 4, … and all.
    progress
        Told of every ablation.

    Raises
    ------
    ConfigError
        If the circuit has no edge, or there are not as many subgroups as images.

    """
    if not circuit.edges:
        raise ConfigError("the circuit has no edge: lower the threshold with which it was found")
    batch = images or circuit.batch
    if subgroups is not None and len(subgroups) != len(batch.x):
        raise ConfigError(f"{len(subgroups)} subgroups for {len(batch.x)} images: give one each")
    chosen = list(ablations) or _usual(circuit.ablation)
    pool = circuit.reference if reference is None and images is None else reference
    found = [
        _Measured(circuit, batch, pool, ablation, subgroups).all(
            random_circuits, neuron_circuit, minimality, curve or doubling(len(circuit.edges))
        )
        for ablation in progress.track(chosen, "faithfulness", len(chosen))
    ]
    return Faithfulness(tuple(found), len(circuit.edges), circuit.possible, circuit.graph.error_share)


def doubling(n: int) -> list[int]:
    """Return 1, 2, 4, … up to `n`, and `n`.

    Examples
    --------
    >>> doubling(6)
    [1, 2, 4, 6]

    """
    return sorted({1 << k for k in range(n.bit_length()) if 1 << k <= n} | {n})


def random_edges(circuit: Circuit, n: int, rng: np.random.Generator) -> list[Edge]:
    """Return `n` edges drawn from all that are possible between sites that the circuit's search found connected."""
    layers = {layer.site: len(layer) for layer in circuit.wiring.layers}
    pairs = sorted({(e.edge[0][0], e.edge[1][0]) for e in circuit.edges})
    counts = np.array([layers[a] * (1 if b == METRIC else layers[b]) for a, b in pairs])
    picks = rng.choice(int(counts.sum()), size=min(n, int(counts.sum())), replace=False)
    ends = np.cumsum(counts)
    found: list[Edge] = []
    for pick in picks:
        k = int(np.searchsorted(ends, pick, side="right"))
        (a, b), at = pairs[k], int(pick - (ends[k] - counts[k]))
        width = 1 if b == METRIC else layers[b]
        target: Place = (METRIC, 0) if b == METRIC else (b, at % width)
        found.append(((a, at // width), target))
    return found


@dataclass(eq=False)
class _Measured:
    """One ablation's runs, batch by batch."""

    circuit: Circuit
    batch: Batch
    reference: Tensor | None
    ablation: Ablation
    subgroups: Sequence[str] | None

    def __post_init__(self) -> None:
        c = self.circuit
        self.batches = list(
            corrupted_batches(
                c.wiring, self.batch.x, self.reference, self.ablation, batch=c.batch_size, seed=c.seed + 1
            )
        )
        self.rows = np.concatenate([np.arange(b.rows.start, b.rows.stop) for b in self.batches])
        self.whole = np.concatenate([b.clean.metric.double().cpu().numpy() for b in self.batches])
        self.none = self._metric([])

    def _metric(
        self, edges: Sequence[Edge], *, complement: bool = False, circuit: Circuit | None = None
    ) -> NDArray[np.float64]:
        wiring, batches = self.circuit.wiring, self.batches
        if circuit is not None:
            wiring = circuit.wiring
            batches = list(
                corrupted_batches(
                    wiring,
                    self.batch.x,
                    self.reference,
                    self.ablation,
                    batch=circuit.batch_size,
                    seed=self.circuit.seed + 1,
                )
            )
        runs = [CircuitRunner(wiring, b).metric(edges, complement=complement) for b in batches]
        return torch.cat(runs).double().cpu().numpy()

    def _share(self, values: NDArray[np.float64], none: NDArray[np.float64] | None = None) -> Share:
        base, c = self.none if none is None else none, self.circuit
        return Rows(self.batch, self.rows, self.whole, base, self.subgroups, c.boot, c.seed).share(values)

    def all(
        self, randoms: int, neuron_circuit: Circuit | None, minimality: bool, sizes: Sequence[int]
    ) -> UnderAblation:
        c = self.circuit
        edges = [e.edge for e in c.edges]
        alone = self._share(self._metric(edges))
        rng = np.random.default_rng([c.seed, len(edges)])
        drawn = [
            restored(self._metric(random_edges(c, len(edges), rng)), self.whole, self.none) for _ in range(randoms)
        ]
        neurons = None
        if neuron_circuit is not None:
            small = [e.edge for e in neuron_circuit.edges[: len(edges)]]
            empty = self._metric([], circuit=neuron_circuit)
            neurons = self._share(self._metric(small, circuit=neuron_circuit), empty)
        without: dict[Edge, float] = {}
        if minimality:
            for edge in edges:
                left = restored(self._metric([e for e in edges if e != edge]), self.whole, self.none)
                without[edge] = alone.value - left
        curve = {n: restored(self._metric(edges[:n]), self.whole, self.none) for n in sizes if n <= len(edges)}
        return UnderAblation(
            self.ablation,
            alone,
            self._share(self._metric(edges, complement=True)),
            np.asarray(drawn),
            neurons,
            without,
            curve,
        )


def prune(
    circuit: Circuit, *, within: tuple[float, float] = (0.9, 1.1), measure: Callable[[Circuit], float] | None = None
) -> Circuit:
    """Return the smallest circuit of the largest edges whose faithfulness lies within bounds, under its own ablation.

    Sizes are tried from small to large, each a quarter larger than the one before; the whole circuit where none does.

    Parameters
    ----------
    circuit
        What was found.
    within
        Least and largest faithfulness.
    measure
        How it is measured; by default on the circuit's own images.

    """
    score = measure or (
        lambda c: (
            measure_faithfulness(c, ablations=[c.ablation], random_circuits=0, minimality=False, curve=[len(c.edges)])
            .under[0]
            .faithfulness.value
        )
    )
    n = 1
    while n < len(circuit.edges):
        smaller = circuit.largest(n)
        if smaller.edges and within[0] <= score(smaller) <= within[1]:
            return smaller
        n = max(n + 1, int(n * 1.25))
    return circuit


def _usual(own: Ablation) -> list[Ablation]:
    from circuits.ablations import mean, resample, zero

    usual = [zero(), mean(), resample(1)]
    return usual if own.name in {a.name for a in usual} else [*usual, own]
