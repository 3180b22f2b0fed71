"""Intervals of rank correlations over patients: the bootstrap of many pairs at once, without sorting again."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from mechinterp.errors import ConfigError, ShapeError
from mechinterp.statistics.bootstrap import FEWEST_GROUPS, Interval, corrected_ends, few_groups_warning

_CELLS = 1 << 20
"""Weights held at once."""
_MANY = 500
"""From so many patients on, the bootstrap's standard error is enough."""
_DRAWS_OF_MANY = 200


def spearman_intervals(
    x: Float[NDArray[Any], "patient pair"],
    y: Float[NDArray[Any], "patient pair"],
    *,
    n_boot: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    units_are_patients: bool = True,
) -> list[Interval]:
    """Interval of each pair's rank correlation, by drawing patients with replacement.

    Parameters
    ----------
    x, y
        One row per patient (average a patient's images first), one column per pair; NaN where missing.
    n_boot, level, seed
        Number of draws, nominal cover, seed of the draws, which all pairs share.
    units_are_patients
        False where the rows are parts of one subject: then nothing can be estimated.

    Returns
    -------
    list of Interval
        Not estimable with fewer than 10 patients that have both values, or where more than a tenth of the draws does
        not vary; with a warning under 30.

    Raises
    ------
    ConfigError
        If there are fewer than 100 draws.
    ShapeError
        If `x` and `y` differ in shape.

    Notes
    -----
    Bias-corrected and accelerated, with tails widened for few patients, as
    :func:`~mechinterp.statistics.bootstrap.bootstrap_groups`. A patient drawn three times is one with weight three, and
    ranks under weights follow from cumulative sums in the order of the values, which is found once. The acceleration is
    that of Pearson's correlation of the ranks. From 500 patients on, where the two agree, 200 draws give the standard
    error of Fisher's z, and the interval is z's.

    """
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if x.shape != y.shape or x.ndim != 2:
        raise ShapeError(f"x has shape {x.shape}, y {y.shape}: give patient × pair for both")
    if n_boot < 100:
        raise ConfigError(f"n_boot is {n_boot}: an interval needs at least 100 draws")
    if not units_are_patients:
        return [Interval.not_estimable(1, level)] * x.shape[1]
    draws = _Draws(n_boot, seed)
    return [_interval(a, b, draws, level) for a, b in zip(x.T, y.T, strict=True)]


class _Draws:
    """How often each of n patients is drawn, the same for all pairs that have as many."""

    def __init__(self, n_boot: int, seed: int) -> None:
        self._n_boot, self._seed = n_boot, seed
        self._of: dict[int, NDArray[np.int64]] = {}

    def of(self, n: int) -> Int[NDArray[np.int64], "draw patient"]:
        if n not in self._of:
            self._of.clear()  # pairs that miss the same patients mostly stand together
            rng = np.random.default_rng(self._seed)
            drawn = min(self._n_boot, _DRAWS_OF_MANY) if n >= _MANY else self._n_boot
            self._of[n] = rng.multinomial(n, np.full(n, 1 / n), size=drawn)
        return self._of[n]


def _interval(x: NDArray[np.float64], y: NDArray[np.float64], draws: _Draws, level: float) -> Interval:
    known = ~(np.isnan(x) | np.isnan(y))
    x, y = x[known], y[known]
    n = len(x)
    if n < FEWEST_GROUPS:
        return Interval.not_estimable(n, level)
    weights = draws.of(n)
    step = max(1, _CELLS // n)
    values = np.concatenate(
        [_weighted_spearman(x, y, weights[start : start + step]) for start in range(0, len(weights), step)]
    )
    finite = values[np.isfinite(values)]
    if len(finite) < 0.9 * len(values):
        why = f"not estimable ({len(values) - len(finite)} of {len(values)} resamples of {n} patients do not vary)"
        return Interval(None, None, level, n, reason=why)
    observed = float(_weighted_spearman(x, y, np.ones((1, n)))[0])
    if n >= _MANY:
        low, high = _ends_by_z(finite, observed, level)
    else:
        low, high = corrected_ends(finite, observed, _acceleration(x, y), n, level)
    return Interval(low, high, level, n, warning=few_groups_warning(n))


def _ends_by_z(values: NDArray[np.float64], observed: float, level: float) -> tuple[float, float]:
    from scipy.special import stdtrit

    inside = 1 - 1e-12  # a correlation of 1 has no finite z
    z = np.arctanh(np.clip(values, -inside, inside))
    half = float(stdtrit(len(z) - 1, (1 + level) / 2) * z.std(ddof=1))
    middle = float(np.arctanh(np.clip(observed, -inside, inside)))
    return float(np.tanh(middle - half)), float(np.tanh(middle + half))


def _weighted_spearman(
    x: NDArray[np.float64], y: NDArray[np.float64], weights: NDArray[Any]
) -> Float[NDArray[np.float64], " draw"]:
    """Return Spearman's rho where patient `i` stands ``weights[draw, i]`` times; NaN where a draw does not vary."""
    w = weights.astype(np.float64)
    total = w.sum(1, keepdims=True)
    a, b = _weighted_ranks(x, w), _weighted_ranks(y, w)
    # the weighted mean of mid-ranks is half of all there are, whatever the ties
    a -= total / 2
    b -= total / 2
    top = np.einsum("ij,ij,ij->i", w, a, b)
    bottom = np.sqrt(np.einsum("ij,ij,ij->i", w, a, a) * np.einsum("ij,ij,ij->i", w, b, b))
    with np.errstate(divide="ignore", invalid="ignore"):
        found: NDArray[np.float64] = np.where(bottom > 0, top / bottom, np.nan)
    return found


def _weighted_ranks(values: NDArray[np.float64], w: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how many stand below each value, those equal to it counting half."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    order = np.argsort(values, kind="stable")
    up_to = np.zeros((len(w), len(values) + 1))
    np.cumsum(w[:, order], axis=1, out=up_to[:, 1:])
    ends = np.cumsum(counts)
    middle = (up_to[:, ends] + up_to[:, ends - counts]) / 2
    return middle[:, inverse.reshape(-1)]


def _acceleration(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    one = np.ones((1, len(x)))
    a, b = (_weighted_ranks(v, one)[0] - len(x) / 2 for v in (x, y))
    a, b = a / (a.std() or 1.0), b / (b.std() or 1.0)
    rho = float((a * b).mean())
    influence = a * b - rho * (a**2 + b**2) / 2
    scale = float((influence**2).sum()) ** 1.5
    return float((influence**3).sum()) / (6 * scale) if scale > 0 else 0.0
