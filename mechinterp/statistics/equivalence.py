"""Whether a mean over patients is as good as nothing: the equivalence test, with a margin set beforehand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from mechinterp.errors import ConfigError, ShapeError
from mechinterp.statistics.bootstrap import FEWEST_GROUPS, Interval, few_groups_warning
from mechinterp.statistics.permutation import unit_means


@dataclass(frozen=True)
class Equivalence:
    """A mean over patients against a margin.

    Parameters
    ----------
    mean
        Over patients.
    interval
        95 % interval of it, by Student's t over patients.
    margin
        Means closer to 0 than this were declared to be nothing before anything was measured.
    p_value
        Larger of the two one-sided tests that the mean lies beyond the margin; ``None`` with fewer than 10 patients.
    alpha
        Level.

    """

    mean: float
    interval: Interval
    margin: float
    p_value: float | None
    alpha: float = 0.05

    @property
    def equivalent(self) -> bool:
        """Whether the mean is shown to be within the margin."""
        return self.p_value is not None and self.p_value <= self.alpha

    @property
    def beyond(self) -> bool:
        """Whether the whole interval lies beyond the margin, on one side."""
        ends = self.interval.ends
        return ends is not None and (ends[0] > self.margin or ends[1] < -self.margin)


def patient_means(
    values: Float[NDArray[Any], " image"], groups: Sequence[Any] | NDArray[Any] | None
) -> Float[NDArray[np.float64], " patient"]:
    """Return one value per patient: the mean over those of its images that have one, patients without any left out.

    Raises
    ------
    ShapeError
        If there is not one group for each value.

    """
    numbers = np.asarray(values, dtype=np.float64)
    if groups is None:
        return numbers[np.isfinite(numbers)]
    units = np.asarray(groups, dtype=object)
    if units.shape != numbers.shape:
        raise ShapeError(f"{len(units)} groups for values of shape {numbers.shape}: one each")
    known = np.isfinite(numbers)
    if not known.any():
        return np.empty(0)
    found: NDArray[np.float64] = unit_means(numbers[known, None], units[known])[:, 0]
    return found


def mean_interval(
    values: Float[NDArray[Any], " image"],
    groups: Sequence[Any] | NDArray[Any] | None = None,
    *,
    level: float = 0.95,
    units_are_patients: bool = True,
) -> Interval:
    """Interval of a mean over patients, by Student's t of the patients' means.

    Parameters
    ----------
    values
        Per image; NaN where missing.
    groups
        Patient of each image; each is a patient of its own by default.
    level
        Nominal cover, exact where patients' means are normal.
    units_are_patients
        False where the groups are parts of one subject.

    Returns
    -------
    Interval
        Not estimable with fewer than 10 patients; with a warning under 30.

    """
    from scipy.special import stdtrit

    patients = patient_means(values, groups)
    n = len(patients)
    if not units_are_patients:
        return Interval.not_estimable(1, level)
    if n < FEWEST_GROUPS:
        return Interval.not_estimable(n, level)
    half = float(stdtrit(n - 1, (1 + level) / 2) * patients.std(ddof=1) / np.sqrt(n))
    mean = float(patients.mean())
    return Interval(mean - half, mean + half, level, n, warning=few_groups_warning(n))


def equivalence_test(
    values: Float[NDArray[Any], " image"],
    groups: Sequence[Any] | NDArray[Any] | None = None,
    *,
    margin: float,
    alpha: float = 0.05,
    units_are_patients: bool = True,
) -> Equivalence:
    """Test whether a mean over patients lies within a margin around 0, by two one-sided tests [1]_.

    Parameters
    ----------
    values
        Per image; NaN where missing.
    groups
        Patient of each image; each is a patient of its own by default.
    margin
        Largest mean that still counts as nothing, in the unit of the values, set before they were seen.
    alpha
        Level: how often a mean at the margin is called equivalent.
    units_are_patients
        False where the groups are parts of one subject: then nothing can be shown.

    Raises
    ------
    ConfigError
        If the margin is not above 0.

    References
    ----------
    .. [1] Schuirmann. A comparison of the two one-sided tests procedure and the power approach for assessing the
       equivalence of average bioavailability. J. Pharmacokinet. Biopharm. 15, 1987.

    """
    from scipy.special import stdtr

    if not margin > 0:
        raise ConfigError(f"margin is {margin:g}: say above 0 which mean still counts as nothing")
    patients = patient_means(values, groups)
    n = len(patients)
    mean = float(patients.mean()) if n else float("nan")
    interval = mean_interval(patients, units_are_patients=units_are_patients)
    if not interval.estimable:
        return Equivalence(mean, interval, margin, None, alpha)
    error = float(patients.std(ddof=1)) / np.sqrt(n)
    distance = margin - abs(mean)
    # patients that all agree leave no doubt on either side
    p = float(stdtr(n - 1, -distance / error)) if error > 0 else float(distance <= 0)
    return Equivalence(mean, interval, margin, p, alpha)
