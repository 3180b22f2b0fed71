"""Intervals by resampling whole groups (patients), refused where there are too few."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mechinterp.errors import ConfigError

FEWEST_GROUPS = 10
"""Under this no interval is given."""
FEW_GROUPS = 30
"""Under this the interval comes with a warning."""


@dataclass(frozen=True)
class Interval:
    """An interval over patients, or the reason why there is none.

    Parameters
    ----------
    low, high
        Its ends; ``None`` where it cannot be estimated.
    level
        Nominal cover.
    n
        Number of groups (patients) it rests on.
    reason
        Why there is none, for example ``not estimable (n = 1)``; empty otherwise.
    warning
        What to keep in mind about it; may be empty.

    """

    low: float | None
    high: float | None
    level: float = 0.95
    n: int = 0
    reason: str = ""
    warning: str = ""

    @classmethod
    def not_estimable(cls, n: int, level: float = 0.95) -> Interval:
        """Return the interval that cannot be given with `n` patients."""
        return cls(None, None, level, n, reason=f"not estimable (n = {n})")

    @property
    def estimable(self) -> bool:
        """Whether there is one."""
        return self.low is not None and self.high is not None

    @property
    def ends(self) -> tuple[float, float] | None:
        """Both ends, or ``None``."""
        return None if self.low is None or self.high is None else (self.low, self.high)

    @property
    def text(self) -> str:
        """As it is printed: ``95 % interval 0.41 to 0.63 (24 patients; …)`` or the reason why there is none."""
        if self.low is None or self.high is None:
            return self.reason
        note = f"; {self.warning}" if self.warning else ""
        return f"{self.level:.0%} interval {self.low:.3g} to {self.high:.3g} ({self.n} patients{note})".replace(
            "%", " %"
        )

    def to_json(self) -> dict[str, Any]:
        """Return the interval and its text as plain JSON."""
        return {**asdict(self), "text": self.text}


def bootstrap_groups(
    statistic: Callable[[NDArray[np.int64]], float],
    groups: Sequence[Any] | NDArray[Any],
    n_boot: int = 2000,
    seed: int = 0,
    *,
    level: float = 0.95,
    method: Literal["bca", "percentile", "jackknife"] = "bca",
    units_are_patients: bool = True,
) -> Interval:
    r"""Interval of a statistic over patients: whole groups are drawn with replacement.

    Parameters
    ----------
    statistic
        Takes the positions of the images drawn (those of a group drawn twice stand twice) and returns a number; NaN
        where a draw has no answer, for example an AUROC of one class.
    groups
        Group of each image.
    n_boot
        Number of draws.
    seed
        Seed of the draws.
    level
        Nominal cover.
    method
        ``bca`` (bias-corrected and accelerated, by the jackknife over groups [1]_); ``percentile``, which saves the
        jackknife; ``jackknife``, Student's t with the jackknife's standard error and no draws, for statistics that are
        smooth and whose draws are skewed, such as R².
    units_are_patients
        False where the groups are parts of one subject: then n is 1 and nothing can be estimated.

    Returns
    -------
    Interval
        Not estimable with fewer than 10 groups or with more than a tenth of the draws without an answer; with a warning
        under 30.

    Raises
    ------
    ConfigError
        If `level` is not between 0 and 1 or there are fewer than 100 draws.

    Notes
    -----
    Draws from few patients vary too little, by :math:`\sqrt{(n - 1) / n}` and for want of Student's t: with 10 patients a
    percentile interval of 95 % covers a normal mean 89 % of the time. The tails are therefore moved outwards to
    :math:`\Phi(\sqrt{n / (n - 1)}\, t_{n - 1})` [2]_, which gives 94 %.

    References
    ----------
    .. [1] Efron. Better bootstrap confidence intervals. J. Am. Stat. Assoc. 82, 1987.
    .. [2] Hesterberg. What teachers should know about the bootstrap. The American Statistician 69, 2015, section 3.3.

    """
    if not 0 < level < 1:
        raise ConfigError(f"level is {level:g}: it must lie between 0 and 1")
    if n_boot < 100:
        raise ConfigError(f"n_boot is {n_boot}: an interval needs at least 100 draws")
    labels, members = groups_to_positions(groups)
    n = len(labels)
    if not units_are_patients:
        return Interval.not_estimable(1, level)
    if n < FEWEST_GROUPS:
        return Interval.not_estimable(n, level)
    if method == "jackknife":
        return _jackknife_interval(statistic, members, level)
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, n, size=(n_boot, n))
    values = np.array([statistic(np.concatenate([members[g] for g in row])) for row in drawn], dtype=np.float64)
    known = values[~np.isnan(values)]
    if len(known) < 0.9 * n_boot:
        return Interval(
            None,
            None,
            level,
            n,
            reason=f"not estimable ({n_boot - len(known)} of {n_boot} resamples of {n} patients have no value)",
        )
    if method == "bca":
        low, high = corrected_ends(
            known, statistic(np.concatenate(members)), _acceleration(statistic, members), n, level
        )
    else:
        low, high = (float(v) for v in np.quantile(known, _tails(n, level)))
    return Interval(low, high, level, n, warning=few_groups_warning(n))


def few_groups_warning(n: int) -> str:
    """Return what an interval over so few patients says of itself; empty from 30 on."""
    return f"fewer than {FEW_GROUPS} patients: the interval is rough" if n < FEW_GROUPS else ""


def corrected_ends(
    draws: NDArray[np.float64], observed: float, acceleration: float, n: int, level: float = 0.95
) -> tuple[float, float]:
    """Return the ends of the bias-corrected and accelerated interval, its tails widened for few patients.

    Parameters
    ----------
    draws
        The statistic on each resample.
    observed
        The statistic on all patients as they are.
    acceleration
        A sixth of the skewness of the patients' influence on the statistic.
    n, level
        Number of patients; nominal cover. See :func:`bootstrap_groups`.

    """
    from scipy.special import ndtr, ndtri

    below = np.mean(draws < observed) + np.mean(draws == observed) / 2
    bias = ndtri(np.clip(below, 1 / (len(draws) + 1), len(draws) / (len(draws) + 1)))
    z = bias + ndtri(_tails(n, level))
    low, high = np.quantile(draws, ndtr(bias + z / (1 - acceleration * z)))
    return float(low), float(high)


def groups_to_positions(groups: Sequence[Any] | NDArray[Any]) -> tuple[list[Any], list[NDArray[np.int64]]]:
    """Return the groups in order of first appearance, and the positions of each one's images."""
    members: dict[Any, list[int]] = {}
    for position, group in enumerate(np.asarray(groups, dtype=object).tolist()):
        members.setdefault(group, []).append(position)
    return list(members), [np.asarray(m, dtype=np.int64) for m in members.values()]


def _tails(n: int, level: float) -> NDArray[np.float64]:
    from scipy.special import ndtr, stdtrit

    outer = float(ndtr(np.sqrt(n / (n - 1)) * stdtrit(n - 1, (1 - level) / 2)))
    return np.array([outer, 1 - outer])


def _left_out(statistic: Callable[[NDArray[np.int64]], float], members: list[NDArray[np.int64]]) -> NDArray[np.float64]:
    """Return the statistic without each group in turn."""
    return np.array(
        [statistic(np.concatenate([m for j, m in enumerate(members) if j != i])) for i in range(len(members))]
    )


def _acceleration(statistic: Callable[[NDArray[np.int64]], float], members: list[NDArray[np.int64]]) -> float:
    left_out = _left_out(statistic, members)
    spread = np.nanmean(left_out) - left_out
    scale = np.nansum(spread**2) ** 1.5
    return float(np.nansum(spread**3) / (6 * scale)) if scale > 0 else 0.0


def _jackknife_interval(
    statistic: Callable[[NDArray[np.int64]], float], members: list[NDArray[np.int64]], level: float
) -> Interval:
    from scipy.special import stdtrit

    n, left_out = len(members), _left_out(statistic, members)
    middle = statistic(np.concatenate(members))
    if np.isnan(left_out).any() or np.isnan(middle):
        why = f"not estimable ({int(np.isnan(left_out).sum())} of {n} patients cannot be left out)"
        return Interval(None, None, level, n, reason=why)
    error = np.sqrt((n - 1) / n * np.square(left_out - left_out.mean()).sum())
    half = float(stdtrit(n - 1, (1 + level) / 2) * error)
    return Interval(middle - half, middle + half, level, n, warning=few_groups_warning(n))
