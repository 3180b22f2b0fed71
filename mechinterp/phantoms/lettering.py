"""Letters burnt into an image, as the boxes of a 5 × 7 dot matrix."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from mechinterp.errors import ConfigError
from mechinterp.phantoms.view import View

# seven rows of five dots, as bits
_DOTS = {
    " ": (0, 0, 0, 0, 0, 0, 0),
    "0": (14, 17, 19, 21, 25, 17, 14),
    "1": (4, 12, 4, 4, 4, 4, 14),
    "2": (14, 17, 1, 6, 8, 16, 31),
    "3": (31, 2, 4, 2, 1, 17, 14),
    "4": (2, 6, 10, 18, 31, 2, 2),
    "7": (31, 1, 2, 4, 8, 8, 8),
    "A": (14, 17, 17, 31, 17, 17, 17),
    "B": (30, 17, 17, 30, 17, 17, 30),
    "C": (14, 17, 16, 16, 16, 17, 14),
    "D": (28, 18, 17, 17, 17, 18, 28),
    "E": (31, 16, 16, 30, 16, 16, 31),
    "G": (14, 17, 16, 23, 17, 17, 15),
    "I": (14, 4, 4, 4, 4, 4, 14),
    "L": (16, 16, 16, 16, 16, 16, 31),
    "M": (17, 27, 21, 21, 17, 17, 17),
    "N": (17, 17, 25, 21, 19, 17, 17),
    "O": (14, 17, 17, 17, 17, 17, 14),
    "P": (30, 17, 17, 30, 16, 16, 16),
    "R": (30, 17, 17, 30, 20, 18, 17),
    "S": (15, 16, 16, 14, 1, 1, 30),
    "T": (31, 4, 4, 4, 4, 4, 4),
    "U": (17, 17, 17, 17, 17, 17, 14),
    "X": (17, 17, 10, 4, 10, 17, 17),
}
ROWS, COLUMNS = 7, 5


def text_boxes(text: str, top_mm: float, left_mm: float, dot_mm: float) -> Float[NDArray[np.float64], "box 4"]:
    """Return the dots of a text, (top, left, bottom, right) in mm from the image's upper left corner.

    Runs of dots in a row are one box. A letter is 5 dots wide and 7 high, with one dot between letters.

    Raises
    ------
    ConfigError
        If the dot matrix lacks a letter.

    """
    found = []
    for i, letter in enumerate(text):
        if letter not in _DOTS:
            raise ConfigError(f"'{letter}' cannot be burnt in: the letters are {''.join(_DOTS).strip()}")
        for r, bits in enumerate(_DOTS[letter]):
            dots = [bool(bits >> (COLUMNS - 1 - c) & 1) for c in range(COLUMNS)] + [False]
            start = None
            for c, on in enumerate(dots):
                if on and start is None:
                    start = c
                elif not on and start is not None:
                    at = left_mm + (i * (COLUMNS + 1) + start) * dot_mm
                    found.append((top_mm + r * dot_mm, at, top_mm + (r + 1) * dot_mm, at + (c - start) * dot_mm))
                    start = None
    return np.array(found).reshape(-1, 4)


def letters(view: View, boxes_mm: Float[NDArray[np.float64], "box 4"]) -> Float[NDArray[np.float64], "height width"]:
    """Draw dots that do not overlap: the share of every pixel that they cover."""

    def shares(low: NDArray[np.float64], high: NDArray[np.float64], pixels: int) -> NDArray[np.float64]:
        at = np.arange(pixels)[:, None]
        shared: NDArray[np.float64] = np.clip(np.minimum(at + 1, high) - np.maximum(at, low), 0, 1)
        return shared

    top, left, bottom, right = (boxes_mm / view.spacing_mm).T
    covered: NDArray[np.float64] = shares(top, bottom, view.height) @ shares(left, right, view.width).T
    return np.minimum(covered, 1.0)


def text_width_mm(text: str, dot_mm: float) -> float:
    """Return how wide a text is."""
    return (len(text) * (COLUMNS + 1) - 1) * dot_mm
