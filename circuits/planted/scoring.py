"""Score a circuit that was found against the one that was planted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from circuits.circuit import Circuit, Edge
from circuits.edges import METRIC
from circuits.planted.model import SINK, PlantedModel

T = TypeVar("T")


@dataclass(frozen=True)
class Score:
    """How well a circuit was found.

    Parameters
    ----------
    nodes, edges
        F1 of each.
    signs
        Share of the right edges whose sign is right; 1 where none is right.
    missed, invented
        Edges of the planted circuit that were not found, and the other way round.

    """

    nodes: float
    edges: float
    signs: float
    missed: frozenset[Edge]
    invented: frozenset[Edge]


def score(planted: PlantedModel, found: Circuit) -> Score:
    """Compare nodes, edges and signs; error nodes that were found count as invented."""
    return score_edges(planted, {e.edge: e.sign for e in found.edges})


def score_edges(planted: PlantedModel, found: Mapping[Edge, int]) -> Score:
    """Compare signed edges, whose last target is the metric."""
    truth: dict[Edge, int] = {
        (source, (METRIC, 0) if target == SINK else target): sign
        for (source, target), sign in planted.true_edges.items()
    }
    right = found.keys() & truth.keys()
    nodes = {end for edge in found for end in edge if end[0] != METRIC}
    return Score(
        f1(nodes, set(planted.true_nodes)),
        f1(set(found), set(truth)),
        sum(found[e] == truth[e] for e in right) / len(right) if right else 1.0,
        frozenset(truth.keys() - found.keys()),
        frozenset(found.keys() - truth.keys()),
    )


def f1(found: set[T], true: set[T]) -> float:
    """Return the harmonic mean of precision and recall; 1 where nothing was to be found and nothing was."""
    total = len(found) + len(true)
    return 2 * len(found & true) / total if total else 1.0
