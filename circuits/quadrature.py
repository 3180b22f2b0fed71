"""Points and weights of an integral along the straight way between two runs."""

from __future__ import annotations

from functools import lru_cache

import numpy as np


@lru_cache(maxsize=64)
def way(steps: int) -> tuple[tuple[float, float], ...]:
    """Return (share of the way, weight) of each point: Gauss and Legendre's, which lie closer at the ends.

    Activations that are taken to zero before a normalisation change its output only in the last thousandth of the way, where
    evenly spaced points never look.

    Examples
    --------
    >>> [(round(s, 3), round(w, 3)) for s, w in way(2)]
    [(0.211, 0.5), (0.789, 0.5)]

    """
    points, weights = np.polynomial.legendre.leggauss(steps)
    return tuple((float(p + 1) / 2, float(w) / 2) for p, w in zip(points, weights, strict=True))
