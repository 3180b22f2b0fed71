"""Which recorded values are shown as black and as white, where nobody has said so."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mechinterp.errors import ConfigError, ImagesError


def range_of(arrays: Iterable[NDArray[Any]], name: str = "images") -> tuple[float, float]:
    """Return the values of black and white that suit all of some arrays.

    What is stored in one byte, or as true and false, has the range of its type, whatever values occur. Everything else
    (12 bits in 16, floating point, HU) reaches from its smallest value, or 0 if that is smaller, to its largest.
    Floating-point values that stay within 0..1 keep that range.

    Parameters
    ----------
    arrays
        Arrays of one type; those of more than one byte are read to their last value.
    name
        What to call them in an error.

    Raises
    ------
    ImagesError
        If there is no array, or none with a finite value.

    """
    low, high, integer = 0.0, -np.inf, False
    for array in arrays:
        if array.dtype == np.bool_:
            return 0.0, 1.0
        if array.dtype == np.uint8:
            return 0.0, 255.0
        integer = bool(np.issubdtype(array.dtype, np.integer))
        finite = array if integer else array[np.isfinite(array)]
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    if high == -np.inf:
        raise ImagesError(f"'{name}' holds no finite pixel: give intensity_range")
    if not integer and low >= 0 and high <= 1:
        return 0.0, 1.0
    return low, high if high > low else low + 1.0


def checked_range(value: Any, where: str) -> tuple[float, float]:
    """Return two numbers, black below white.

    Raises
    ------
    ConfigError
        If `value` is anything else; `where` says whose setting it was.

    """
    try:
        low, high = (float(v) for v in value)
    except (TypeError, ValueError):
        raise ConfigError(f"{where} is {value!r}: give the values of black and of white, as [0, 4095]") from None
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise ConfigError(f"{where} is [{low:g}, {high:g}]: black must be below white")
    return low, high


def checked_spacing(value: Any, where: str) -> tuple[float, float]:
    """Return millimetres per (row, column); one number stands for both.

    Raises
    ------
    ConfigError
        If `value` is not one or two positive numbers; `where` says whose setting it was.

    """
    try:
        row, column = (float(value), float(value)) if isinstance(value, int | float) else (float(v) for v in value)
    except (TypeError, ValueError):
        raise ConfigError(f"{where} is {value!r}: give millimetres per (row, column), as [0.5, 0.5]") from None
    if not (np.isfinite(row) and np.isfinite(column) and row > 0 and column > 0):
        raise ConfigError(f"{where} is [{row:g}, {column:g}]: millimetres per pixel are positive")
    return row, column
