"""Interleaved runs and what is told of them, so that a drift of the machine hits all sides alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
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
        return self.ratio_of(lambda of: of[one] / of[other])

    def ratio_of(self, ratio: Callable[[Mapping[str, float]], float]) -> float:
        """Return the median over the rounds of what `ratio` makes of a round's seconds."""
        rounds = zip(*self.seconds.values(), strict=True)
        return statistics.median(ratio(dict(zip(self.seconds, taken, strict=True))) for taken in rounds)


def interleaved(
    candidates: Mapping[str, Callable[[], Any]], repeats: int, between: Callable[[], None] = lambda: None
) -> Interleaved:
    """Run each candidate once to warm up and then `repeats` times in turns, each round in the opposite order of the last.

    `between` runs before each of them and is not timed.
    """

    def timed(run: Callable[[], Any]) -> float:
        before = time.perf_counter()
        run()
        return time.perf_counter() - before

    return interleaved_numbers({name: partial(timed, run) for name, run in candidates.items()}, repeats, between)


def interleaved_numbers(
    candidates: Mapping[str, Callable[[], float]], repeats: int, between: Callable[[], None] = lambda: None
) -> Interleaved:
    """Do the same with candidates that return the seconds of what shall count of them."""
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for run in candidates.values():
        between()
        run()
    for number in range(repeats):
        for name in list(candidates)[:: -1 if number % 2 else 1]:
            between()
            seconds[name].append(candidates[name]())
    return Interleaved(seconds)


def asleep() -> None:
    """Wait until OpenMP's threads have gone to sleep, which keep a core busy for some milliseconds after an operation of torch."""
    time.sleep(0.05)


def interleaved_medians(
    candidates: Mapping[str, Callable[[], Any]], repeats: int, between: Callable[[], None] = lambda: None
) -> dict[str, float]:
    """Return the median seconds of each candidate, see :func:`interleaved`."""
    return interleaved(candidates, repeats, between).medians
