"""The largest edges of a circuit as complete paths: from its first site to the metric, so that a reader can follow each."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from circuits.circuit import Circuit, Edge, Place, ScoredEdge
from circuits.edges import METRIC


def complete_paths(circuit: Circuit, n: int) -> Circuit:
    """Return the circuit of at most `n` edges that all lie on paths from the first site to the metric.

    Edges are taken by falling size; each brings the largest edges that lead to it and on from it. One that would not fit any
    more is left out, and a smaller one may still fit.

    Parameters
    ----------
    circuit
        Scored edges, more than can be read.
    n
        How many at most.

    """
    into = _largest_by(circuit.edges, lambda e: e.edge[1])
    out_of = _largest_by(circuit.edges, lambda e: e.edge[0])
    first = circuit.wiring.sites[0]
    kept: dict[Edge, None] = {}
    for edge in sorted(circuit.edges, key=lambda e: -e.size):
        path = _through(edge, into, out_of, first)
        new = [e for e in path if e not in kept]
        if path and len(kept) + len(new) <= n:
            kept |= dict.fromkeys(new)
    return circuit.with_edges(kept)


def _through(
    edge: ScoredEdge, into: dict[Place, ScoredEdge], out_of: dict[Place, ScoredEdge], first: str
) -> list[Edge]:
    """Return the path of largest edges through an edge; nothing where it does not start at the first site and reach the metric."""
    before: list[Edge] = []
    source = edge.edge[0]
    while source[0] != first and source in into:
        before.append(into[source].edge)
        source = into[source].edge[0]
    after: list[Edge] = []
    target = edge.edge[1]
    while target[0] != METRIC and target in out_of:
        after.append(out_of[target].edge)
        target = out_of[target].edge[1]
    whole = source[0] == first and target[0] == METRIC
    return [*reversed(before), edge.edge, *after] if whole else []


def _largest_by(edges: Iterable[ScoredEdge], end: Callable[[ScoredEdge], Place]) -> dict[Place, ScoredEdge]:
    found: dict[Place, ScoredEdge] = {}
    for edge in sorted(edges, key=lambda e: -e.size):
        found.setdefault(end(edge), edge)
    return found
