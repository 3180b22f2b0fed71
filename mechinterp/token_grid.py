"""Where a token lies: from a cell of a site to a box in the model's input, in the image's pixels, and in millimetres.

Coordinates are continuous and (row, column), for volumes (depth, row, column): pixel ``i`` covers the interval ``[i, i + 1)``,
so its centre is ``i + 0.5``. A resize by a factor ``s`` maps ``x`` to ``s x`` exactly, whatever the interpolation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from mechinterp.errors import ShapeError

Lengths = tuple[float, ...]


@dataclass(frozen=True)
class Placement:
    """The affine map from the model's input to the image it was made from, per axis ``image = scale * input + offset``.

    Parameters
    ----------
    scale
        Image pixels per input pixel, (row, column), or (depth, row, column) for a volume.
    offset
        Image coordinate of the input's corner, in image pixels, the same axes.

    """

    scale: Lengths = (1.0, 1.0)
    offset: Lengths = (0.0, 0.0)

    def to_image(self, points: Float[np.ndarray, "*n axis"]) -> Float[np.ndarray, "*n axis"]:
        """Map points of the input to points of the image, both (row, column) or (depth, row, column) in pixels."""
        return np.asarray(points, dtype=float) * self.scale + self.offset

    def to_input(self, points: Float[np.ndarray, "*n axis"]) -> Float[np.ndarray, "*n axis"]:
        """Map points of the image to points of the input, both (row, column) or (depth, row, column) in pixels."""
        return (np.asarray(points, dtype=float) - self.offset) / self.scale


@dataclass(frozen=True)
class TokenGrid:
    """The regular grid of a site's tokens (prefix tokens not counted), in the model's input.

    Parameters
    ----------
    rows, columns
        Number of cells.
    stride
        Distance of neighbouring cells' centres, (row, column), or (depth, row, column), in input pixels.
    first_centre
        Centre of the first cell, the same axes, in input pixels.
    extent
        Size of the region a cell sees, the same axes, in input pixels: the patch of a ViT's embedding, the receptive
        field of a CNN's cell. Attention mixes tokens, so a deeper ViT token keeps the place of its patch only.
    depth
        Number of cells along the first axis of a volume; ``None`` for an image.

    Raises
    ------
    ShapeError
        If the lengths are not one for each axis.

    """

    rows: int
    columns: int
    stride: Lengths
    first_centre: Lengths
    extent: Lengths
    depth: int | None = None

    def __post_init__(self) -> None:
        for name in ("stride", "first_centre", "extent"):
            if len(getattr(self, name)) != len(self.shape):
                raise ShapeError(
                    f"a grid of {len(self.shape)} axes has a {name} of {len(getattr(self, name))} lengths: "
                    "give one for each axis"
                )

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of cells along each axis: (rows, columns), or (depth, rows, columns)."""
        return (self.rows, self.columns) if self.depth is None else (self.depth, self.rows, self.columns)

    @property
    def cells(self) -> int:
        """Number of cells."""
        return int(np.prod(self.shape))

    def centres(self) -> Float[NDArray[np.float64], "cell axis"]:
        """Return the centres of all cells, row-major, (row, column) or (depth, row, column) in input pixels."""
        axes = [c + s * np.arange(n) for c, s, n in zip(self.first_centre, self.stride, self.shape, strict=True)]
        return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes))

    def boxes(self) -> Float[NDArray[np.float64], "cell corner"]:
        """Return what every cell sees, row-major, in input pixels, not clipped.

        (top, left, bottom, right), or (front, top, left, back, bottom, right) for a volume.
        """
        centres, half = self.centres(), np.asarray(self.extent) / 2
        return np.concatenate([centres - half, centres + half], axis=1)

    def tiles(self) -> Float[NDArray[np.float64], "cell corner"]:
        """Return the stride-sized box around every cell's centre, row-major: what an overlay paints."""
        centres, half = self.centres(), np.asarray(self.stride) / 2
        return np.concatenate([centres - half, centres + half], axis=1)

    def boxes_mm(
        self, placement: Placement, spacing_mm: Sequence[float], *, tiles: bool = False
    ) -> Float[NDArray[np.float64], "cell corner"]:
        """Return every cell's box on the image in millimetres from the image's corner.

        Parameters
        ----------
        placement
            From the input to the image.
        spacing_mm
            Millimetres per image pixel, (row, column), or (depth, row, column).
        tiles
            The stride-sized boxes instead of what the cells see.

        Raises
        ------
        ShapeError
            If placement or spacing have other axes than the grid.

        """
        rank = len(self.shape)
        for what, lengths in (("placement", placement.scale), ("spacing", spacing_mm)):
            if len(lengths) != rank:
                raise ShapeError(f"a grid of {rank} axes was given a {what} of {len(lengths)}: give one for each axis")
        boxes = (self.tiles() if tiles else self.boxes()).reshape(-1, rank)
        mm: NDArray[np.float64] = placement.to_image(boxes) * np.asarray(spacing_mm, dtype=float)
        return mm.reshape(-1, 2 * rank)

    def cell_at(self, point: Sequence[float]) -> int | None:
        """Return the cell whose tile holds a point of the input, or ``None`` outside the grid."""
        index = [
            int(np.floor((x - first) / stride + 0.5))
            for x, first, stride in zip(point, self.first_centre, self.stride, strict=True)
        ]
        if not all(0 <= i < n for i, n in zip(index, self.shape, strict=True)):
            return None
        return int(np.ravel_multi_index(index, self.shape))

    def cells_seeing(self, point: Sequence[float]) -> list[int]:
        """Return the cells whose box (what they see) holds a point of the input; several where boxes overlap."""
        boxes, rank = self.boxes(), len(self.shape)
        at = np.asarray(point, dtype=float)
        inside = ((boxes[:, :rank] <= at) & (at < boxes[:, rank:])).all(1)
        return [int(i) for i in np.flatnonzero(inside)]

    def to_json(self) -> dict[str, Any]:
        """Return the grid as plain JSON; ``depth`` only for volumes."""
        lengths = {name: [float(v) for v in getattr(self, name)] for name in ("stride", "first_centre", "extent")}
        volume = {} if self.depth is None else {"depth": self.depth}
        return {"rows": self.rows, "columns": self.columns, **lengths, **volume}

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> TokenGrid:
        """Undo :meth:`to_json`."""
        stride, first_centre, extent = (
            tuple(float(v) for v in raw[name]) for name in ("stride", "first_centre", "extent")
        )
        return cls(raw["rows"], raw["columns"], stride, first_centre, extent, raw.get("depth"))
