"""Circuits of nodes: every edge between kept nodes carries what it carries, and every other node is replaced.

Cutting nodes where :mod:`circuits.running_alone` cuts edges [1]_: one forward pass tests a circuit of any size, so the whole
way from one node a site to all of them can be walked. A circuit of nodes is the circuit of all edges between them.

References
----------
.. [1] Marks et al. Sparse feature circuits. 2024 (arXiv 2403.19647), section 4.

"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuits.circuit import Edge
from circuits.corrupting import Corrupted
from circuits.edges import METRIC, connected
from circuits.node_scores import node_scores
from circuits.nodes import Parts
from circuits.quadrature import way
from circuits.wiring import State, Wiring, holding
from mechinterp.tails import Tail

Kept: TypeAlias = Mapping[str, Sequence[int]]
"""Site → the nodes that are kept; of a site that is not named, none."""


class NodeCircuitRunner:
    """Metric of circuits of nodes on one batch.

    Parameters
    ----------
    wiring
        The nodes.
    corrupted
        The batch in both runs: nodes that are not kept take their values from the second.
    tail
        What comes after the first site, where only that has to run; see :func:`tail_of`.

    """

    def __init__(self, wiring: Wiring, corrupted: Corrupted, tail: Tail | None = None) -> None:
        self.wiring, self.both, self.tail = wiring, corrupted, tail

    def metric(self, kept: Kept, *, complement: bool = False) -> Float[Tensor, " image"]:
        """Return the metric of every image when these nodes alone (or all others) say what they say.

        Parameters
        ----------
        kept
            The circuit's nodes.
        complement
            Run everything but the circuit.

        """
        wiring, clean = self.wiring, self.both.clean
        put = {
            layer.site: self._mixing(k, self._mask(layer.site, kept, complement))
            for k, layer in enumerate(wiring.layers)
        }
        first = self.both.rows.start
        with torch.no_grad():
            if self.tail is None:
                return wiring.run(clean, put, first=first)[0]
            site = wiring.sites[0]
            start = put.pop(site)(clean.acts[site])
            with holding(wiring.model, put, (), {}):
                logits = self.tail.logits(start)
            images = torch.arange(first, first + len(clean), device=logits.device)
            return wiring.metric.at(logits, images)

    def _mask(self, site: str, kept: Kept, complement: bool) -> Bool[Tensor, "1 node"]:
        mask = torch.full((1, len(self.wiring.layer(site))), complement, dtype=torch.bool)
        mask[0, list(kept.get(site, ()))] = not complement
        return mask.to(self.wiring.model.device)

    def _mixing(
        self, k: int, nodes: Bool[Tensor, "1 node"]
    ) -> Callable[[Float[Tensor, "image token width"]], Float[Tensor, "image token width"]]:
        """Return what becomes of a site: kept nodes as they arrive there, the others replaced, what is no node as it was."""
        layer, both = self.wiring.layers[k], self.both
        clean, own = both.clean.acts[layer.site], both.clean.parts[layer.site]
        replaced = layer.changed(clean, own, both.replaced.parts[layer.site], ~nodes)

        def mixed(arriving: Tensor) -> Tensor:
            parts: Parts = own if k == 0 else layer.split(arriving)
            return layer.changed(replaced, own, parts, nodes)

        return mixed


def tail_of(wiring: Wiring, x: Float[Tensor, "image channel height width"]) -> Tail | None:
    """Return what a model computes after the first site, where nothing bypasses it and nothing is frozen."""
    if wiring.freeze:
        return None
    tail = Tail(wiring.model, wiring.sites[0], x[:2])
    return tail if tail.exact else None


@dataclass(frozen=True, eq=False)
class Ranking:
    """The nodes of every site by falling effect on the metric.

    Parameters
    ----------
    order
        Site → its nodes, the largest effect first.
    sizes
        Site → mean size of every node's effect, by the node's number; 0 for nodes that are the same in both runs.
    errors
        Site → its error node, where it has one.

    """

    order: Mapping[str, tuple[int, ...]]
    sizes: Mapping[str, Float[Tensor, " node"]]
    errors: Mapping[str, int]

    def largest(self, n: int, *, errors: bool = True) -> dict[str, tuple[int, ...]]:
        """Return the `n` largest nodes of every site.

        Parameters
        ----------
        n
            How many at most, the error node among them.
        errors
            Whether error nodes are kept, whatever their rank; without, none is.

        """
        found = {}
        for site, nodes in self.order.items():
            error = self.errors.get(site)
            least = [] if error is None or not errors else [error]
            others = [node for node in nodes if node != error]
            found[site] = (*others[: max(0, n - len(least))], *least)
        return found

    def of(self, sites: Sequence[str]) -> Ranking:
        """Return the ranking of some of the sites."""
        return Ranking(
            {site: self.order[site] for site in sites},
            {site: self.sizes[site] for site in sites},
            {site: node for site, node in self.errors.items() if site in sites},
        )

    def alive(self, site: str) -> list[int]:
        """Return the nodes of a site that are not the same in both runs, without its error."""
        moves = self.sizes[site] > 0
        return [node for node in self.order[site] if bool(moves[node]) and node != self.errors.get(site)]


def rank_nodes(wiring: Wiring, batches: Iterable[Corrupted], *, steps: int = 1) -> Ranking:
    """Rank every site's nodes by their effects in both directions: taken away, and put back.

    Parameters
    ----------
    wiring
        The nodes.
    batches
        Both runs of the images that nodes are chosen on.
    steps
        Points on the way of the whole site at which gradients are taken; 1 takes each run's own.

    """
    totals: dict[str, Tensor] = {}
    for b in batches:
        for base, other in ((b.clean, b.replaced), (b.run, b.clean)):
            for site, values in _scores(wiring, base, other, steps, b.rows.start).items():
                totals[site] = totals.get(site, torch.zeros_like(values[0])) + values.abs().sum(0)
    errors = {layer.site: layer.n_features for layer in wiring.layers if layer.has_error}
    order = {site: tuple(values.argsort(descending=True, stable=True).tolist()) for site, values in totals.items()}
    return Ranking(order, totals, errors)


def _scores(
    wiring: Wiring, base: State, other: State, steps: int, first: int
) -> dict[str, Float[Tensor, "image node"]]:
    if steps == 1:
        return node_scores(wiring, base, other, first=first)
    found = {}
    for layer in wiring.layers:
        site, total = layer.site, torch.zeros_like(base.acts[layer.site])
        for share, weight in way(steps):
            acts = torch.lerp(base.acts[site], other.acts[site], share).requires_grad_()
            with torch.enable_grad():
                metric, _ = wiring.run(base, {site: acts}, first=first)
                total += weight * torch.autograd.grad(metric.sum(), acts)[0]
        own, new = base.parts[site], other.parts[site]
        error = None if own.error is None or new.error is None else new.error - own.error
        found[site] = layer.per_node(total, Parts(new.codes - own.codes, error)).sum(1)
    return found


def connections(wiring: Wiring, both: Corrupted) -> list[tuple[str, str]]:
    """Return the pairs of sites, and of a site and the metric, between which there is a direct way."""
    return [
        (layer.site, METRIC if target is None else target.site)
        for i, layer in enumerate(wiring.layers)
        for target in (*wiring.layers[i + 1 :], None)
        if connected(wiring, both.clean, both.replaced, i, target, both.rows.start)
    ]


def edges_between(kept: Kept, pairs: Sequence[tuple[str, str]]) -> list[Edge]:
    """Return every edge of a circuit of nodes."""
    return [
        ((source, s), (target, t))
        for source, target in pairs
        for s in kept.get(source, ())
        for t in ((0,) if target == METRIC else kept.get(target, ()))
    ]


def count_edges(kept: Kept, pairs: Sequence[tuple[str, str]]) -> int:
    """Return how many edges :func:`edges_between` would return."""
    return sum(len(kept.get(s, ())) * (1 if t == METRIC else len(kept.get(t, ()))) for s, t in pairs)
