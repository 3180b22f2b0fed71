"""Marks burnt into the corner of an image: what a network can take as a shortcut."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

LETTERS = {
    "O": ("111", "101", "101", "101", "111"),
    "D": ("110", "101", "101", "101", "110"),
    "2": ("111", "001", "111", "100", "111"),
}
CORNER_MM_AT_12 = 0.3


def camera_tag_boxes(extent_mm: float, text: str = "OD2") -> Float[NDArray[np.float64], "box 4"]:
    """Return the strokes of a few letters in the lower left corner: (top, left, bottom, right) in mm."""
    cell = extent_mm / 12 * 0.125
    top, left = extent_mm * (1 - CORNER_MM_AT_12 / 12) - 5 * cell, extent_mm * CORNER_MM_AT_12 / 12
    strokes = [
        (top + r * cell, left + (4 * i + c) * cell, top + (r + 1) * cell, left + (4 * i + c + 1) * cell)
        for i, letter in enumerate(text)
        for r, row in enumerate(LETTERS[letter])
        for c, on in enumerate(row)
        if on == "1"
    ]
    return np.array(strokes)


def ruler_boxes(extent_mm: float) -> Float[NDArray[np.float64], "box 4"]:
    """Return the line and the ticks of a ruler in the lower right corner: (top, left, bottom, right) in mm."""
    unit = extent_mm / 12
    bottom, right, line = extent_mm - 0.3 * unit, extent_mm - 0.3 * unit, 0.13 * unit
    length, tick = 1.5 * unit, 0.45 * unit
    lines = [(bottom - line, right - length, bottom, right)]
    for i in range(4):
        left = right - length + i * (length - line) / 3
        lines.append((bottom - tick, left, bottom - line, left + line))
    return np.array(lines)
