"""What surgeons left: a pacemaker's can."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mechinterp.phantoms.curves import covered
from mechinterp.phantoms.view import View

Image = NDArray[np.float64]

GENERATOR_MM = (-78.0, 104.0)


def generator(view: View) -> tuple[Image, Image]:
    """Return a pacemaker's can, a rounded plate, and the battery and circuit that show in it."""
    offset = view.grid_mm - np.array(GENERATOR_MM)
    turned = offset @ np.array([[0.94, 0.34], [-0.34, 0.94]])

    def plate(half_rows: float, half_columns: float, radius: float) -> Image:
        over = np.maximum(np.abs(turned) - (half_rows - radius, half_columns - radius), 0)
        return covered(radius - np.hypot(over[..., 0], over[..., 1]), view)

    ring = plate(16.0, 19.0, 8.0) - plate(13.0, 16.0, 6.0)
    return plate(19.0, 22.0, 10.0), np.maximum(ring, plate(6.0, 9.0, 3.0) * 0.7)
