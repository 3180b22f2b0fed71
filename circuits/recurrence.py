"""Whether a circuit is found again: on other halves of the patients, with other draws, edge by edge.

A circuit that only one draw of images shows is a finding about these images. So it is searched for again on random halves of the
patients, each with draws of its own, and every edge is counted. Edges drawn at random recur too: how often is said beside it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from circuits.circuit import Edge
from circuits.faithfulness import random_edges
from circuits.finding import find_circuit
from circuits.finding_config import FindConfig
from mechinterp.errors import ConfigError
from mechinterp.progress import SILENT, Progress

if TYPE_CHECKING:
    from circuits.circuit import Circuit
    from mechinterp.models.vision_model import VisionModel


@dataclass(frozen=True, eq=False)
class Recurrence:
    """The same search, several times.

    Parameters
    ----------
    circuits
        What each search found.
    counts
        Edge → in how many of them it is.
    signs
        Edge → share of the searches that found it in which its sign is the usual one.
    overlap
        Mean over pairs of circuits: edges in both, as a share of edges in either; NaN where none was found.
    random_overlap
        The same for as many edges of the same sites drawn at random.

    """

    circuits: tuple[Circuit, ...]
    counts: Mapping[Edge, int]
    signs: Mapping[Edge, float]
    overlap: float
    random_overlap: float

    @property
    def always(self) -> tuple[Edge, ...]:
        """Edges that every search found."""
        return tuple(edge for edge, n in self.counts.items() if n == len(self.circuits))

    @property
    def sentence(self) -> str:
        """What recurs, in words."""
        times = len(self.circuits)
        return (
            f"Searched for {times} times, on another half of the patients each: {len(self.always)} of {len(self.counts)} edges "
            f"recur every time, two searches share {self.overlap:.0%} of their edges (random edges: {self.random_overlap:.0%})."
        )

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON, edges by how often they recur."""
        return {
            "searches": len(self.circuits),
            "edges_each": [len(c.edges) for c in self.circuits],
            "overlap": self.overlap,
            "random_overlap": self.random_overlap,
            "always": len(self.always),
            "edges": [
                {"source": list(s), "target": list(t), "found": n, "same_sign": self.signs[s, t]}
                for (s, t), n in sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))
            ],
        }


def recurrence(
    model: VisionModel,
    x: Float[Tensor, "image channel height width"],
    *,
    groups: Sequence[Any] | NDArray[Any],
    times: int = 5,
    config: FindConfig | None = None,
    progress: Progress = SILENT,
    **settings: Any,
) -> Recurrence:
    """Search for a circuit again and again, on random halves of the patients, with other draws each time.

    Parameters
    ----------
    model, x
        The model and prepared images.
    groups
        Patient of each image: none is divided.
    times
        How many searches.
    config
        Of each search; its seed is that of the first.
    progress
        Told of every search.
    **settings
        As for :func:`circuits.find_circuit`: metric, saes, sites, ablation.

    Raises
    ------
    ConfigError
        If there are fewer than two searches or four patients.

    """
    config, known = config or FindConfig(), np.asarray(groups)
    names = list(dict.fromkeys(known.tolist()))
    if times < 2 or len(names) < 4:
        raise ConfigError(f"{times} searches on halves of {len(names)} patients: it takes 2 searches and 4 patients")
    found = []
    for k in progress.track(range(times), "the same search again", times):
        rng = np.random.default_rng([config.seed, k, len(names)])
        half = {names[i] for i in rng.permutation(len(names))[: len(names) // 2]}
        rows = np.flatnonzero([name in half for name in known.tolist()])
        again = replace(config, seed=config.seed + k)
        found.append(find_circuit(model, x[rows.tolist()], groups=known[rows], config=again, **settings))
    return of_circuits(found)


def of_circuits(found: Sequence[Circuit]) -> Recurrence:
    """Compare circuits that were found between the same nodes: on other images, with other draws or settings.

    Raises
    ------
    ConfigError
        If there are fewer than two.

    """
    if len(found) < 2:
        raise ConfigError(f"{len(found)} circuit: what recurs takes two at least")
    signs: dict[Edge, list[int]] = {}
    for circuit in found:
        for e in circuit.edges:
            signs.setdefault(e.edge, []).append(e.sign)
    rng = np.random.default_rng(0)
    drawn = [set(random_edges(c, len(c.edges), rng)) if c.edges else set() for c in found]
    return Recurrence(
        tuple(found),
        {edge: len(own) for edge, own in signs.items()},
        {edge: Counter(own).most_common(1)[0][1] / len(own) for edge, own in signs.items()},
        _overlap([{e.edge for e in c.edges} for c in found]),
        _overlap(drawn),
    )


def _overlap(sets: Sequence[set[Edge]]) -> float:
    """Return the mean share of common edges over pairs of circuits of which one has an edge."""
    shares = [len(a & b) / len(a | b) for a, b in combinations(sets, 2) if a | b]
    return float(np.mean(shares)) if shares else float("nan")
