"""The interval of a probe's score over patients: which method covers as often as it says depends on the score."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mechinterp.statistics.bootstrap import Interval, bootstrap_groups
from mechinterp.statistics.separation_intervals import auroc_interval
from probes.scores import ProbeKind, Reading

METHODS: dict[ProbeKind, Literal["bca", "jackknife"]] = {
    # the draws of an R² are skewed: at 12 to 60 patients their 95 % intervals hold the truth in 93 % only
    "continuous": "jackknife", "binary": "bca", "ordinal": "bca", "categorical": "bca",
}  # fmt: skip
"""By the kind of attribute, of what is not an AUROC alone; the evidence page counts how often each covers."""


def reading_interval(
    reading: Reading,
    groups: Sequence[Any] | NDArray[Any],
    n_boot: int = 2000,
    seed: int = 0,
    *,
    units_are_patients: bool = True,
) -> Interval:
    """Interval of a reading's score over patients.

    That of an AUROC is :func:`~mechinterp.statistics.separation_intervals.auroc_interval`: with 12 patients the
    bootstrap's holds the truth in 90 % only. All others are :func:`score_interval`'s.

    Parameters
    ----------
    reading
        Out-of-fold predictions.
    groups
        Patient of each image.
    n_boot, seed
        Of the draws, where there are any.
    units_are_patients
        False where the groups are parts of one subject.

    """
    if reading.kind == "binary":
        return auroc_interval(
            reading.predicted[:, 0], reading.truth[:, 0], groups, units_are_patients=units_are_patients
        )
    return score_interval(reading.score_of, groups, reading.kind, n_boot, seed, units_are_patients=units_are_patients)


def score_interval(
    statistic: Callable[[NDArray[np.int64]], float],
    groups: Sequence[Any] | NDArray[Any],
    kind: ProbeKind,
    n_boot: int = 2000,
    seed: int = 0,
    *,
    units_are_patients: bool = True,
) -> Interval:
    """Interval of any number that is made of scores, such as the difference of two, over patients.

    Parameters
    ----------
    statistic
        Takes positions of images and returns the score; see :func:`~mechinterp.statistics.bootstrap.bootstrap_groups`.
    groups
        Patient of each image.
    kind
        Of the attribute, which says what the score is: R² of a continuous one, AUROC and its like of all others.
    n_boot, seed
        Of the draws, where there are any.
    units_are_patients
        False where the groups are parts of one subject.

    """
    return bootstrap_groups(
        statistic, groups, n_boot, seed, method=METHODS[kind], units_are_patients=units_are_patients
    )
