"""From pixels of a rendered image to millimetres of the anatomy and back: a rigid motion and, perhaps, a mirror."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

Points = NDArray[np.float64]


@dataclass(frozen=True)
class View:
    """How the camera sees the anatomy.

    Parameters
    ----------
    height, width
        Size of the image in pixels.
    spacing_mm
        Side of a square pixel in millimetres.
    centre_mm
        Point of the anatomy, (row, column) in mm, at the middle of the image.
    mirrored
        Whether columns of the anatomy run to the left in the image.
    rotation_deg
        By how much the anatomy is turned in the image.

    """

    height: int
    width: int
    spacing_mm: float
    centre_mm: tuple[float, float] = (0.0, 0.0)
    mirrored: bool = False
    rotation_deg: float = 0.0

    @cached_property
    def _axes(self) -> Float[Points, "2 2"]:
        """Rows: where one millimetre down and one to the side of the anatomy lead in the image, in pixels."""
        a = np.deg2rad(self.rotation_deg)
        turn = np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
        mirror = np.diag([1.0, -1.0 if self.mirrored else 1.0])
        axes: Points = mirror @ turn / self.spacing_mm
        return axes

    def to_pixels(self, points_mm: Float[Points, "*n 2"]) -> Float[Points, "*n 2"]:
        """Map points of the anatomy, (row, column) in mm, to the image, where pixel ``i`` covers ``[i, i + 1)``."""
        middle = (self.height / 2, self.width / 2)
        return (np.asarray(points_mm, dtype=float) - self.centre_mm) @ self._axes + middle

    def to_mm(self, points_px: Float[Points, "*n 2"]) -> Float[Points, "*n 2"]:
        """Undo :meth:`to_pixels`."""
        middle = (self.height / 2, self.width / 2)
        found: Points = self.offsets_to_mm(np.asarray(points_px, dtype=float) - middle) + np.asarray(self.centre_mm)
        return found

    def offsets_to_mm(self, offsets_px: Float[Points, "*n 2"]) -> Float[Points, "*n 2"]:
        """Turn differences of places in the image into differences in the anatomy, both (row, column)."""
        # a rotation and a mirror, scaled: the inverse is the transpose over the scale's square
        inverse: Points = self._axes.T * self.spacing_mm**2
        turned: Points = offsets_px @ inverse
        return turned

    @cached_property
    def grid_mm(self) -> Float[Points, "height width 2"]:
        """Anatomy's coordinates of every pixel's centre, (row, column) in mm."""
        rows, columns = np.arange(self.height) + 0.5, np.arange(self.width) + 0.5
        return self.to_mm(np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1))

    @cached_property
    def radius_px(self) -> Float[Points, "height width"]:
        """Distance of every pixel's centre from the image's middle, in pixels."""
        rows = np.arange(self.height) + 0.5 - self.height / 2
        columns = np.arange(self.width) + 0.5 - self.width / 2
        distance: Points = np.hypot(rows[:, None], columns[None, :])
        return distance
