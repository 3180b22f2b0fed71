"""Where a token lies: from a cell of a site to a box in the model's input, in the image's pixels, and in millimetres.

Coordinates are continuous and (row, column): pixel ``i`` covers the interval ``[i, i + 1)``, so its centre is
``i + 0.5``. A resize by a factor ``s`` maps ``x`` to ``s x`` exactly, whatever the interpolation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray


@dataclass(frozen=True)
class Placement:
    """The affine map from the model's input to the image it was made from, per axis ``image = scale * input + offset``.

    Parameters
    ----------
    scale
        Image pixels per input pixel, (row, column).
    offset
        Image coordinate of the input's corner, (row, column), in image pixels.

    """

    scale: tuple[float, float] = (1.0, 1.0)
    offset: tuple[float, float] = (0.0, 0.0)

    def to_image(self, points: Float[np.ndarray, "*n 2"]) -> Float[np.ndarray, "*n 2"]:
        """Map points of the input to points of the image, both (row, column) in pixels."""
        return np.asarray(points, dtype=float) * self.scale + self.offset

    def to_input(self, points: Float[np.ndarray, "*n 2"]) -> Float[np.ndarray, "*n 2"]:
        """Map points of the image to points of the input, both (row, column) in pixels."""
        return (np.asarray(points, dtype=float) - self.offset) / self.scale


@dataclass(frozen=True)
class TokenGrid:
    """The regular grid of a site's tokens (prefix tokens not counted), in the model's input.

    Parameters
    ----------
    rows, columns
        Number of cells.
    stride
        Distance of neighbouring cells' centres, (row, column), in input pixels.
    first_centre
        Centre of cell (0, 0), (row, column), in input pixels.
    extent
        Size of the region a cell sees, (row, column), in input pixels: the patch of a ViT's embedding, the receptive
        field of a CNN's cell. Attention mixes tokens, so a deeper ViT token keeps the place of its patch only.

    """

    rows: int
    columns: int
    stride: tuple[float, float]
    first_centre: tuple[float, float]
    extent: tuple[float, float]

    @property
    def cells(self) -> int:
        """Number of cells."""
        return self.rows * self.columns

    def centres(self) -> Float[NDArray[np.float64], "cell 2"]:
        """Return the centres of all cells, row-major, (row, column) in input pixels."""
        r = self.first_centre[0] + self.stride[0] * np.arange(self.rows)
        c = self.first_centre[1] + self.stride[1] * np.arange(self.columns)
        return np.stack(np.meshgrid(r, c, indexing="ij"), axis=-1).reshape(-1, 2)

    def boxes(self) -> Float[NDArray[np.float64], "cell 4"]:
        """Return what every cell sees, row-major: (top, left, bottom, right) in input pixels, not clipped."""
        centres, half = self.centres(), np.asarray(self.extent) / 2
        return np.concatenate([centres - half, centres + half], axis=1)

    def tiles(self) -> Float[NDArray[np.float64], "cell 4"]:
        """Return the stride-sized box around every cell's centre, row-major: what an overlay paints."""
        centres, half = self.centres(), np.asarray(self.stride) / 2
        return np.concatenate([centres - half, centres + half], axis=1)

    def boxes_mm(
        self, placement: Placement, spacing_mm: tuple[float, float], *, tiles: bool = False
    ) -> Float[NDArray[np.float64], "cell 4"]:
        """Return every cell's box on the image in millimetres from the image's corner.

        Parameters
        ----------
        placement
            From the input to the image.
        spacing_mm
            Millimetres per image pixel, (row, column).
        tiles
            The stride-sized boxes instead of what the cells see.

        """
        boxes = (self.tiles() if tiles else self.boxes()).reshape(-1, 2)
        return (placement.to_image(boxes) * spacing_mm).reshape(-1, 4)

    def cell_at(self, point: tuple[float, float]) -> int | None:
        """Return the cell whose tile holds a point of the input, or ``None`` outside the grid."""
        index = [
            int(np.floor((x - first) / stride + 0.5))
            for x, first, stride in zip(point, self.first_centre, self.stride, strict=True)
        ]
        if not (0 <= index[0] < self.rows and 0 <= index[1] < self.columns):
            return None
        return index[0] * self.columns + index[1]
