"""How many independent images a smooth series is worth."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from mechinterp.errors import ShapeError


def autocorrelation(series: Float[NDArray[Any], " position"]) -> Float[NDArray[np.float64], " lag"]:
    """Return the autocorrelation at lags 0, 1, …, n - 1 (biased estimate); NaN for a constant series.

    Parameters
    ----------
    series
        Values at equally spaced positions.

    Raises
    ------
    ShapeError
        If it is no vector of at least two values.

    """
    x = np.asarray(series, dtype=np.float64)
    if x.ndim != 1 or len(x) < 2:
        raise ShapeError(f"a series of shape {x.shape}: one value per position, at least two positions")
    x = x - x.mean()
    spectrum = np.abs(np.fft.rfft(x, 2 * len(x))) ** 2  # padded to twice the length: no wrap-around
    covariance: NDArray[np.float64] = np.fft.irfft(spectrum)[: len(x)]
    return covariance / covariance[0] if np.ptp(x) > 0 else np.full(len(x), np.nan)


def effective_sample_size(
    series: Float[NDArray[Any], " position"], other: Float[NDArray[Any], " position"] | None = None
) -> float:
    r"""Return how many independent values an ordered series is worth.

    Parameters
    ----------
    series
        Values at equally spaced positions.
    other
        With a second series, the answer is for the correlation of the two; without, for the mean of the first.

    Returns
    -------
    float
        Between 1 and the number of positions; NaN when a series does not vary.

    Raises
    ------
    ShapeError
        If the two differ in length.

    Notes
    -----
    The mean of the series has the variance of :math:`n / (1 + 2 \sum_k r_k)` independent values, the correlation of
    two independent series that of :math:`n / (1 + 2 \sum_k (1 - k/n) r_k s_k)` [1]_; the sums end before the first lag
    that is not positive, beyond which the estimates are noise. It is a description, no test: with correlation
    lengths near the length of the series the estimate is too high.

    References
    ----------
    .. [1] Bartlett. Some aspects of the time-correlation problem in regard to tests of significance. 1935.

    """
    r = autocorrelation(series)
    n = len(r)
    if other is not None:
        s = autocorrelation(other)
        if len(s) != n:
            raise ShapeError(f"series of {n} and {len(s)} positions: they must share them")
        r = r * s * (1 - np.arange(n) / n)
    if np.isnan(r).any():
        return float("nan")
    negative = np.flatnonzero(r[1:] <= 0)
    end = 1 + (negative[0] if negative.size else n - 1)
    return float(np.clip(n / (1 + 2 * r[1:end].sum()), 1, n))
