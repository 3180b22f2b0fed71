"""Interleaved runs and what is told of them, so that a drift of the machine hits all sides alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Interleaved:
    """The seconds that each candidate took in each round."""

    seconds: dict[str, list[float]]

    @property
    def medians(self) -> dict[str, float]:
        """Each candidate's median over the rounds."""
        return {name: statistics.median(values) for name, values in self.seconds.items()}

    def ratio(self, one: str, other: str) -> float:
        """Return the median over the rounds of the ratio within a round: between rounds the machine's speed may change."""
        rounds = zip(self.seconds[one], self.seconds[other], strict=True)
        return statistics.median(a / b for a, b in rounds)


def interleaved(
    candidates: Mapping[str, Callable[[], Any]], repeats: int, between: Callable[[], None] = lambda: None
) -> Interleaved:
    """Run each candidate once to warm up and then `repeats` times in turns, each round in the opposite order of the last.

    `between` runs before each of them and is not timed.
    """
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for run in candidates.values():
        between()
        run()
    for number in range(repeats):
        for name in list(candidates)[:: -1 if number % 2 else 1]:
            between()
            before = time.perf_counter()
            candidates[name]()
            seconds[name].append(time.perf_counter() - before)
    return Interleaved(seconds)


def interleaved_medians(candidates: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Return the median seconds of each candidate, see :func:`interleaved`."""
    return interleaved(candidates, repeats).medians
