"""Intervals of rank correlations that hold for few patients too: by the score where resamples are too coarse."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from mechinterp.errors import ConfigError, ShapeError
from mechinterp.statistics.bootstrap import FEW_GROUPS, FEWEST_GROUPS, Interval, few_groups_warning
from mechinterp.statistics.rank import spearman
from mechinterp.statistics.rank_intervals import spearman_intervals

FEWEST_APART = 4
"""So many patients must differ from the commonest value: under this a correlation rests on single ones."""


def rank_correlation_intervals(
    x: Float[NDArray[Any], "patient pair"],
    y: Float[NDArray[Any], "patient pair"],
    *,
    n_boot: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    units_are_patients: bool = True,
) -> list[Interval]:
    """Interval of each pair's rank correlation over patients, whatever their number.

    Parameters
    ----------
    x, y
        One row per patient (average a patient's images first), one column per pair; NaN where missing.
    n_boot, level, seed
        Of the bootstrap, which is used from 30 patients on; nominal cover.
    units_are_patients
        False where the rows are parts of one subject: then nothing can be estimated.

    Returns
    -------
    list of Interval
        Under 10 patients, or where fewer than 4 of fewer than 30 differ from the commonest value: not estimable. Under
        30 patients by :func:`score_interval`, with a warning; from 30 on by
        :func:`~mechinterp.statistics.rank_intervals.spearman_intervals`.

    Raises
    ------
    ConfigError
        If there are fewer than 100 draws.
    ShapeError
        If `x` and `y` differ in shape.

    """
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if x.shape != y.shape or x.ndim != 2:
        raise ShapeError(f"x has shape {x.shape}, y {y.shape}: give patient × pair for both")
    known = ~(np.isnan(x) | np.isnan(y))
    few = known.sum(0) < FEW_GROUPS
    found: list[Interval] = [Interval.not_estimable(1, level)] * x.shape[1]
    if not units_are_patients:
        return found
    many = np.flatnonzero(~few)
    by_draws = spearman_intervals(x[:, many], y[:, many], n_boot=n_boot, level=level, seed=seed)
    for pair, interval in zip(many, by_draws, strict=True):
        found[int(pair)] = interval
    for pair in np.flatnonzero(few):
        found[int(pair)] = _of_few(x[known[:, pair], pair], y[known[:, pair], pair], level)
    return found


def score_interval(rho: float, n: int, level: float = 0.95) -> tuple[float, float]:
    r"""Return all rank correlations that `n` patients' own one does not speak against.

    Parameters
    ----------
    rho
        Spearman's correlation that was observed.
    n
        Number of patients, at least 4.
    level
        Nominal cover.

    Returns
    -------
    tuple of float
        Both ends, between -1 and 1.

    Raises
    ------
    ConfigError
        If there are fewer than 4 patients.

    Notes
    -----
    Fisher's :math:`z = \operatorname{artanh} \rho` of a true :math:`\rho` scatters by
    :math:`\sqrt{(1 + \rho^2 / 2) / (n - 3)}` [1]_. An end is the :math:`\rho` whose own scatter just reaches what was
    observed, as in Wilson's interval of a share; the scatter of the observed value in its place gives intervals that are
    too wide near 0 and too narrow near 1 with few patients.

    References
    ----------
    .. [1] Bonett, Wright. Sample size requirements for estimating Pearson, Kendall and Spearman correlations.
       Psychometrika 65, 2000.

    """
    from scipy.optimize import brentq
    from scipy.special import ndtri

    if n < 4:
        raise ConfigError(f"n is {n}: the scatter of a rank correlation needs at least 4 patients")
    inside = 1 - 1e-12  # a correlation of 1 has no finite z
    seen, reach = float(np.arctanh(np.clip(rho, -inside, inside))), float(ndtri((1 + level) / 2)) / np.sqrt(n - 3)

    def end(side: int) -> float:
        def beyond(z: float) -> float:
            return z - seen - side * float(reach * np.sqrt(1 + np.tanh(z) ** 2 / 2))

        # the scatter lies between 1 and √1.5 of the smallest, so the end lies between these
        near, far = seen + side * reach, seen + side * reach * np.sqrt(1.5)
        return float(np.tanh(brentq(beyond, *sorted((near, far)))))

    return end(-1), end(1)


def _of_few(x: NDArray[np.float64], y: NDArray[np.float64], level: float) -> Interval:
    n = len(x)
    if n < FEWEST_GROUPS:
        return Interval.not_estimable(n, level)
    apart = min(n - int(np.unique(v, return_counts=True)[1].max()) for v in (x, y))
    if apart < FEWEST_APART:
        why = f"not estimable ({apart} of {n} patients differ from the commonest value)"
        return Interval(None, None, level, n, reason=why)
    low, high = score_interval(float(spearman(x[:, None], y[:, None])[0, 0]), n, level)
    return Interval(low, high, level, n, warning=few_groups_warning(n))
