"""A map of relevance: one number per input pixel of each image, which knows its place in the image and in millimetres."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from circuits.localization.shown_images import ShownImages
from mechinterp.token_grid import TokenGrid

if TYPE_CHECKING:
    import plotly.graph_objects as go


@dataclass(frozen=True, eq=False)
class RelevanceMaps:
    """What speaks for a metric, pixel by pixel of the model's input.

    Parameters
    ----------
    values
        Per image and input pixel; the more positive, the more it speaks for the metric. Negative values speak against it.
    method
        How they were made.
    metric
        What they explain.
    shown
        The images.
    note
        What is part of the claim: the site, what was put in place, the rules.

    """

    values: Float[NDArray[np.float32], "image row column"]
    method: str
    metric: str
    shown: ShownImages
    note: str = ""

    def __len__(self) -> int:
        return len(self.values)

    def subset(self, chosen: Sequence[int] | NDArray[np.int64]) -> RelevanceMaps:
        """Return the maps of some images, in the given order."""
        at = np.asarray([int(i) for i in chosen], dtype=np.int64)
        return replace(self, values=self.values[at], shown=self.shown.subset(at))

    def peak(self, i: int) -> tuple[int, int]:
        """Return the input pixel (row, column) of the largest value of image `i`; the middle one of several equal ones."""
        values = self.values[i]
        best = np.argwhere(values == values.max())
        row, column = best[np.square(best - best.mean(0)).sum(1).argmin()]
        return int(row), int(column)

    def peak_in_image(self, i: int) -> tuple[float, float]:
        """Return the peak's centre in the image's own pixels, (row, column), pixel ``k`` covering ``[k, k + 1)``."""
        point = self.shown.placements[i].to_image(np.asarray(self.peak(i)) + 0.5)
        return float(point[0]), float(point[1])

    def peak_mm(self, i: int) -> tuple[float, float]:
        """Return the peak's centre from the image's top left corner, (row, column), in the images' length unit."""
        (row, column), (down, across) = self.peak_in_image(i), self.shown.lengths(i)
        return row * down, column * across

    def on_image(self, i: int) -> Float[NDArray[np.float32], "height width"]:
        """Return the map on the image's own pixels, linear between the centres of input pixels; NaN where none was shown."""
        placement, (height, width) = self.shown.placements[i], self.shown.sizes[i]
        points = [
            (np.arange(n) + 0.5 - offset) / scale - 0.5
            for n, offset, scale in zip((height, width), placement.offset, placement.scale, strict=True)
        ]
        down, across = (linear_weights(p, n) for p, n in zip(points, self.values.shape[1:], strict=True))
        found: NDArray[np.float32] = (down @ self.values[i] @ across.T).astype(np.float32)
        for axis, (p, n) in enumerate(zip(points, self.values.shape[1:], strict=True)):
            outside = (p < -0.5 - 1e-9) | (p > n - 0.5 + 1e-9)
            found[(outside, slice(None)) if axis == 0 else (slice(None), outside)] = np.nan
        return found

    def cells(self, grid: TokenGrid) -> Float[NDArray[np.float32], "image row column"]:
        """Return the mean over each tile of a site's grid."""
        rows, columns = tile_weights(grid, (self.values.shape[1], self.values.shape[2]))
        return (rows @ self.values @ columns.T).astype(np.float32)

    def figure(self, i: int = 0, **settings: Any) -> go.Figure:
        """Return the map over its image; see :func:`circuits.localization.figures.map_figure`."""
        from circuits.localization.figures import map_figure

        return map_figure(self, i, **settings)


def linear_weights(points: Float[NDArray[Any], " point"], n: int) -> Float[NDArray[np.float64], "point cell"]:
    """Return the weights that interpolate `n` values linearly at points given in cells; constant beyond the ends."""
    at = np.clip(points, 0, n - 1)
    below = np.minimum(np.floor(at).astype(np.int64), max(n - 2, 0))
    share = at - below
    weights = np.zeros((len(at), n))
    weights[np.arange(len(at)), below] = 1 - share
    weights[np.arange(len(at)), np.minimum(below + 1, n - 1)] += share
    return weights


def cells_to_pixels(
    cells: Float[NDArray[Any], "image row column"], grid: TokenGrid, size: tuple[int, int]
) -> Float[NDArray[np.float32], "image height width"]:
    """Return values of a site's cells at every input pixel, linear between the cells' centres.

    Parameters
    ----------
    cells
        One value per cell.
    grid
        Where they lie in the input.
    size
        Height and width of the input.

    """
    weights = [
        linear_weights((np.arange(n) + 0.5 - first) / stride, cells_along)
        for n, first, stride, cells_along in zip(size, grid.first_centre, grid.stride, grid.shape, strict=True)
    ]
    return (weights[0] @ np.asarray(cells, dtype=np.float64) @ weights[1].T).astype(np.float32)


def tile_weights(
    grid: TokenGrid, size: tuple[int, int]
) -> tuple[Float[NDArray[np.float64], "row height"], Float[NDArray[np.float64], "column width"]]:
    """Return the weights of every pixel row and column in the mean over each row and column of tiles.

    A pixel that is cut by a border counts with its part; a tile that sticks out of the input with the part inside.
    """
    found = []
    for n, first, stride, along in zip(size, grid.first_centre, grid.stride, grid.shape, strict=True):
        start = first + stride * (np.arange(along) - 0.5)
        inside = np.minimum(start[:, None] + stride, np.arange(n) + 1) - np.maximum(start[:, None], np.arange(n))
        overlap = np.clip(inside, 0, None)
        found.append(overlap / np.maximum(overlap.sum(1, keepdims=True), 1e-12))
    return found[0], found[1]
