"""What a probe must beat, turned into controls: other activations of the same images, and control tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from mechinterp.claims import Control
from mechinterp.statistics.bootstrap import Interval
from probes.scores import Reading

OverPatients = Callable[[Callable[[NDArray[np.int64]], float]], Interval]
"""Gives the interval of a statistic of some images over patients."""


def against(what: str, reading: Reading, rivals: Sequence[Reading], over_patients: OverPatients) -> Control:
    """Return the control that fails unless the probe scores above its rivals, by more than chance where that is known.

    Parameters
    ----------
    what
        Name of the control.
    reading
        Of the attribute.
    rivals
        Other readings of the same images; several are averaged. What has no score counts as chance.
    over_patients
        Makes the interval of the difference.

    """

    def theirs(images: NDArray[np.int64]) -> float:
        return float(np.mean([rival.score_of(images) for rival in rivals]))

    def advantage(images: NDArray[np.int64]) -> float:
        return reading.score_of(images) - theirs(images)

    everything = np.arange(len(reading.truth))
    ahead = advantage(everything)
    interval = over_patients(advantage)
    passed = ahead > 0 and (interval.low is None or interval.low > 0)
    detail = f"the probe scores {ahead:+.2f} against it; {interval.text}"
    return Control(what, theirs(everything), bool(passed), detail)
