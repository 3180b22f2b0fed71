"""Smooth curves in the anatomy, and how deep every pixel lies on their inner side."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.interpolate import make_interp_spline
from scipy.spatial import cKDTree

from mechinterp.phantoms.view import View

Points = NDArray[np.float64]

STEP_MM = 1.0
COARSE = 4


@dataclass(frozen=True)
class Curve:
    """A curve as points every millimetre, with the direction to its outer side at each.

    Parameters
    ----------
    points_mm
        (row, column).
    outwards
        Unit normals, to the left of the curve's direction as an image shows it: running downwards, to larger columns.

    """

    points_mm: Float[Points, "point 2"]
    outwards: Float[Points, "point 2"]

    @classmethod
    def through(cls, line_mm: Float[Points, "n 2"]) -> Curve:
        """Lay points evenly along a polyline."""
        length = np.r_[0, np.cumsum(np.linalg.norm(np.diff(line_mm, axis=0), axis=1))]
        even = np.arange(0, length[-1], STEP_MM)
        points = np.stack([np.interp(even, length, line_mm[:, k]) for k in (0, 1)], -1)
        tangent = np.gradient(points, axis=0)
        tangent /= np.maximum(np.linalg.norm(tangent, axis=1, keepdims=True), 1e-9)
        return cls(points, np.stack([-tangent[:, 1], tangent[:, 0]], -1))

    @cached_property
    def _tree(self) -> cKDTree:
        return cKDTree(self.points_mm)

    def depth_of(self, points_mm: Float[Points, "n 2"]) -> Float[Points, " n"]:
        """Return how deep some places lie on the inner side; negative on the outer."""
        distance, nearest = self._tree.query(points_mm)
        offset = points_mm - self.points_mm[nearest]
        along = np.einsum("nc,nc->n", offset, self.outwards[nearest])
        # beside the curve the normal's share is exact, far from it the distance is
        found: Points = np.where(distance < 3 * STEP_MM, -along, -np.sign(along) * distance)
        return found

    def depth_mm(self, view: View, *, mirrored: bool = False) -> Float[Points, "height width"]:
        """Return how deep every pixel's centre lies on the inner side; negative on the outer.

        With `mirrored` the curve stands for its mirror image at column 0 too; within four pixels of that column depths
        are flattened.
        """
        # a distance is smooth, so it is found at the corners of every fourth pixel and interpolated
        rows = np.arange(0.0, view.height + COARSE, COARSE)
        columns = np.arange(0.0, view.width + COARSE, COARSE)
        at = view.to_mm(np.stack(np.meshgrid(rows, columns, indexing="ij"), -1).reshape(-1, 2))
        at[:, 1] = np.abs(at[:, 1]) if mirrored else at[:, 1]
        coarse = self.depth_of(at).reshape(len(rows), len(columns))
        return _interpolated(coarse)[: view.height, : view.width]


def covered(depth_mm: Float[Points, "height width"], view: View) -> Float[Points, "height width"]:
    """Return the share of each pixel on the inner side, from its middle's depth."""
    share: Points = np.clip(depth_mm / view.spacing_mm + 0.5, 0, 1)
    return share


def smooth_line(control: Float[Points, "n 2"], points: int, *, closed: bool = False) -> Float[Points, "point 2"]:
    """Return a cubic spline through control points, evenly in their number."""
    if closed:
        control = np.concatenate([control, control[:1]])
    spline = make_interp_spline(np.linspace(0, 1, len(control)), control, k=3, bc_type="periodic" if closed else None)
    line: Points = spline(np.linspace(0, 1, points))
    return line


def _interpolated(coarse: Points) -> Points:
    """Return values at four pixels' centres between every two corners, linearly, along both axes."""
    for axis in (0, 1):
        a = np.moveaxis(coarse, axis, 0)
        steps = (np.arange(COARSE)[None, :, None] + 0.5) / COARSE
        filled = a[:-1, None] * (1 - steps) + a[1:, None] * steps
        coarse = np.moveaxis(filled.reshape(-1, a.shape[1]), 0, axis)
    return coarse
