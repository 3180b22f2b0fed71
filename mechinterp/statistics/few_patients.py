"""Intervals of rank correlations that hold for few patients too: by inverting a test where resamples are too coarse."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from mechinterp.errors import ConfigError, ShapeError
from mechinterp.statistics.bootstrap import FEWEST_GROUPS, Interval, few_groups_warning
from mechinterp.statistics.rank import spearman
from mechinterp.statistics.rank_intervals import spearman_intervals

FEWEST_APART = 4
"""So many patients must differ from the commonest value: under this a correlation rests on single ones."""
FEWER = 40
"""With fewer patients a test is inverted instead: resamples of 30 still cover too often where correlations are strong."""
_DRAWS, _STEPS, _FURTHEST = 10_000, 40, 4.0


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
        Of the bootstrap, which is used from 40 patients on; nominal cover.
    units_are_patients
        False where the rows are parts of one subject: then nothing can be estimated.

    Returns
    -------
    list of Interval
        Under 10 patients, or where fewer than 4 of fewer than 40 differ from the commonest value: not estimable. Under
        40 patients by :func:`interval_by_inversion`, under 30 with a warning; from 40 on by
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
    few = known.sum(0) < FEWER
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


def interval_by_inversion(rho: float, n: int, level: float = 0.95) -> tuple[float, float]:
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
    The test that is inverted is exact where some rising transformation of each variable makes the two bivariate normal,
    which ranks do not see: a true :math:`\rho = \frac{6}{\pi} \arcsin \frac{r}{2}` is kept unless fewer than
    :math:`(1 - level) / 2` of 10,000 samples of `n` from it reach what was observed, on either side, those that equal it counting half. Fisher's z with the
    variance :math:`(1 + \rho^2 / 2) / (n - 3)` [1]_ is off there: with 12 patients its 95 % intervals cover 96 to 97 %
    at correlations of 0.7 to 0.9, since z is skewed and biased. The samples are the same in every run.

    References
    ----------
    .. [1] Bonett, Wright. Sample size requirements for estimating Pearson, Kendall and Spearman correlations.
       Psychometrika 65, 2000.

    """
    if n < 4:
        raise ConfigError(f"n is {n}: an interval of a rank correlation needs at least 4 patients")
    r, reached = _reached(n, level)
    return _least(rho, r, reached), -_least(-rho, r, reached)


def _least(rho: float, r: NDArray[np.float64], reached: NDArray[np.float64]) -> float:
    """Return the lowest true correlation whose samples reach so high."""
    if rho < reached[0]:
        return -1.0
    values, first = np.unique(reached, return_index=True)  # of equal ones the first: the lowest that reaches it
    return float(6 / np.pi * np.arcsin(np.interp(rho, values, r[first]) / 2))


@lru_cache(maxsize=64)
def _reached(n: int, level: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return correlations of bivariate normals, rising, and how high all but a few of their samples reach."""
    from scipy.signal import savgol_filter

    grid, samples = _samples(n)
    outer = (1 - level) / 2
    lowest, highest = np.quantile(samples, [outer, 1 - outer], axis=1)
    r = np.concatenate([-grid[:0:-1], grid])  # of the opposite correlation the samples are opposite
    # what the samples of one correlation got wrong by chance, those of its neighbours did not
    smooth = savgol_filter(np.concatenate([-lowest[:0:-1], highest]), 9, 3)
    return r, np.maximum.accumulate(smooth)


@lru_cache(maxsize=4)
def _samples(n: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return correlations from 0 to nearly 1, and Spearman's of samples of `n` from the bivariate normal of each."""
    random = np.random.default_rng(n)
    grid = np.tanh(np.linspace(0, _FURTHEST, _STEPS))
    squares, step = n * (n * n - 1) / 12, 12 / (n * (n * n - 1))
    found = np.empty((_STEPS, _DRAWS))
    for row, r in zip(found, grid, strict=True):
        x, noise = random.normal(size=(2, _DRAWS, n))
        ranks = [np.argsort(np.argsort(v, axis=1), axis=1) for v in (x, r * x + np.sqrt(1 - r * r) * noise)]
        row[:] = np.einsum("ij,ij->i", ranks[0] - (n - 1) / 2, ranks[1]) / squares
    return grid, found + random.uniform(-step / 2, step / 2, size=found.shape)


def _of_few(x: NDArray[np.float64], y: NDArray[np.float64], level: float) -> Interval:
    n = len(x)
    if n < FEWEST_GROUPS:
        return Interval.not_estimable(n, level)
    apart = min(n - int(np.unique(v, return_counts=True)[1].max()) for v in (x, y))
    if apart < FEWEST_APART:
        why = f"not estimable ({apart} of {n} patients differ from the commonest value)"
        return Interval(None, None, level, n, reason=why)
    low, high = interval_by_inversion(float(spearman(x[:, None], y[:, None])[0, 0]), n, level)
    return Interval(low, high, level, n, warning=few_groups_warning(n))
