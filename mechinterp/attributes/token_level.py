"""What every token of a site sees: how much of each structure, and how bright it is there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from mechinterp.attributes.table import Attribute, AttributeTable
from mechinterp.errors import ShapeError
from mechinterp.token_grid import Placement, TokenGrid


def token_attributes(
    coverage: Mapping[str, Float[NDArray[Any], "row column"]],
    grid: TokenGrid,
    placement: Placement,
    spacing_mm: tuple[float, float],
    *,
    image: Float[NDArray[Any], "row column"] | None = None,
    unit: str = "1",
) -> AttributeTable:
    """Measure one image under each cell of a site's grid.

    Parameters
    ----------
    coverage
        Structure → share of each pixel that it covers, 0 to 1, or its mask.
    grid
        Where the cells lie in the model's input.
    placement
        From the input to the image.
    spacing_mm
        Of the image, millimetres per pixel, (row, column).
    image
        One grey plane, for the local intensity.
    unit
        Of its intensities.

    Returns
    -------
    AttributeTable
        One row per cell, row-major (prefix tokens have no place and no row), at the level ``token``: for each structure
        its share of the cell (``NAME_share``) and its area in it [mm²] (``NAME_area``), and the mean intensity. Cells
        are the stride-sized tiles, which share the image out without overlap. Missing where a cell lies outside the
        image, as in padding; a cell that is cut by the edge counts with the part inside.

    Raises
    ------
    ShapeError
        If planes differ in shape, or there is nothing to measure.

    Notes
    -----
    Borders may fall inside a pixel: sums over boxes are read off the summed-area table, linear between its entries, which
    is exact for pixels of constant value.

    """
    planes = {**coverage, **({} if image is None else {"": image})}
    shapes = {np.shape(p) for p in planes.values()}
    if len(shapes) != 1 or len(next(iter(shapes))) != 2:
        raise ShapeError(f"planes of shapes {sorted(shapes)}: give coverage or an image, all on one grid of two axes")
    height, width = next(iter(shapes))
    corners = placement.to_image(grid.tiles().reshape(-1, 2)).reshape(-1, 4)
    top, left, bottom, right = corners.T
    rows = np.clip(np.stack([top, bottom]), 0, height)
    columns = np.clip(np.stack([left, right]), 0, width)
    pixels = (rows[1] - rows[0]) * (columns[1] - columns[0])
    seen = pixels > 1e-9
    found: list[tuple[Attribute, NDArray[np.float64]]] = []
    for name, plane in planes.items():
        total = _box_sums(np.asarray(plane, dtype=np.float64), rows, columns)
        share = np.divide(total, pixels, out=np.full_like(total, np.nan), where=seen)
        if not name:
            found.append((Attribute("intensity", unit, "token", measured="mean over the token's tile"), share))
            continue
        area = np.where(seen, total * spacing_mm[0] * spacing_mm[1], np.nan)
        found.append(
            (Attribute(f"{name}_share", "1", "token", measured=f"share of the token's tile that {name} cover"), share)
        )
        found.append((Attribute(f"{name}_area", "mm²", "token", measured=f"area of {name} in the token's tile"), area))
    return AttributeTable.from_columns(found)


def _box_sums(
    plane: NDArray[np.float64], rows: NDArray[np.float64], columns: NDArray[np.float64]
) -> Float[NDArray[np.float64], " cell"]:
    table = np.zeros((plane.shape[0] + 1, plane.shape[1] + 1))
    table[1:, 1:] = plane.cumsum(0).cumsum(1)

    def at(row: NDArray[np.float64], column: NDArray[np.float64]) -> NDArray[np.float64]:
        r = np.minimum(row.astype(np.int64), plane.shape[0] - 1)
        c = np.minimum(column.astype(np.int64), plane.shape[1] - 1)
        down, across = row - r, column - c
        found: NDArray[np.float64] = (1 - down) * ((1 - across) * table[r, c] + across * table[r, c + 1]) + down * (
            (1 - across) * table[r + 1, c] + across * table[r + 1, c + 1]
        )
        return found

    (top, bottom), (left, right) = rows, columns
    return at(bottom, right) - at(top, right) - at(bottom, left) + at(top, left)
