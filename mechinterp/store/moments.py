"""The one pass over a batch's rows that a store's statistics are made of, compiled: it runs beside every forward pass."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numba import njit
from numpy.typing import NDArray

# Small enough for a piece to stay in the processor's cache while it is gone through twice.
PIECE = 512


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})  # sums may be reordered for speed; NaN stays NaN
def moments(
    x: Float[NDArray[np.float32], "row width"],
    mean: Float[NDArray[np.float64], " width"],
    scatter: Float[NDArray[np.float64], " width"],
    norms: Float[NDArray[np.float64], " row"],
) -> None:
    """Fill in every unit's mean and sum of squared deviations and every row's Euclidean norm, summed in float64.

    Pieces of a fixed number of rows are taken in two passes each and merged in order (Chan, Golub, LeVeque 1982).
    """
    rows, width = x.shape
    centre = np.empty(width)
    spread = np.empty(width)
    mean[:] = 0.0
    scatter[:] = 0.0
    for first in range(0, rows, PIECE):
        last = min(first + PIECE, rows)
        centre[:] = 0.0
        spread[:] = 0.0
        for row in range(first, last):
            squares = 0.0
            for unit in range(width):
                value = np.float64(x[row, unit])
                squares += value * value
            norms[row] = np.sqrt(squares)
            for unit in range(width):
                centre[unit] += np.float64(x[row, unit])
        for unit in range(width):
            centre[unit] /= last - first
        for row in range(first, last):
            for unit in range(width):
                away = np.float64(x[row, unit]) - centre[unit]
                spread[unit] += away * away
        for unit in range(width):
            shift = centre[unit] - mean[unit]
            mean[unit] += shift * ((last - first) / last)
            scatter[unit] += spread[unit] + shift * shift * (first * (last - first) / last)
