"""False-discovery rate of many p-values."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from mechinterp.errors import ConfigError


def benjamini_hochberg(p: Float[NDArray[Any], "*shape"]) -> Float[NDArray[np.float64], "*shape"]:
    """Adjust p-values so that calling those at or below q significant keeps the false-discovery rate at q.

    Parameters
    ----------
    p
        p-values of any shape, all of one family; NaN stands for a test that was not made and stays NaN.

    Returns
    -------
    NDArray
        Adjusted p-values of the same shape.

    Raises
    ------
    ConfigError
        If a value lies outside 0..1.

    Notes
    -----
    Valid for independent or positively dependent tests whose p-values are themselves valid. Neighbouring slices of a
    volume give no valid p-values unless whole units are permuted: see
    :func:`~mechinterp.statistics.permutation.max_statistic_test`.

    References
    ----------
    Benjamini, Hochberg. Controlling the false discovery rate. J. R. Stat. Soc. B 57, 1995.

    """
    values = np.asarray(p, dtype=np.float64)
    adjusted = np.full(values.shape, np.nan)
    known = ~np.isnan(values)
    found = values[known]
    if ((found < 0) | (found > 1)).any():
        raise ConfigError(f"a p-value is {found[(found < 0) | (found > 1)][0]:g}: they lie between 0 and 1")
    if found.size:
        order = np.argsort(found)
        scaled = found[order] * found.size / np.arange(1, found.size + 1)
        back = np.empty_like(scaled)
        back[order] = np.minimum.accumulate(scaled[::-1])[::-1]
        adjusted[known] = np.minimum(back, 1)
    return adjusted
