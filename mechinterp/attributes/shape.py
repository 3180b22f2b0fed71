"""How large and of what shape a structure is, in millimetres, and where it lies from a landmark."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mechinterp.attributes.measuring import Mask, area_mm2, ellipse_of, perimeter_mm
from mechinterp.attributes.table import Attribute, AttributeTable
from mechinterp.errors import ShapeError


@dataclass(frozen=True)
class Feret:
    """Diameters between parallel lines that touch a mask from outside.

    Parameters
    ----------
    largest_mm, smallest_mm
        The largest and the smallest of all directions.
    hull_mm2
        Area of the convex hull.

    """

    largest_mm: float
    smallest_mm: float
    hull_mm2: float


def feret_of(mask: Mask, spacing_mm: tuple[float, float]) -> Feret | None:
    """Return a mask's Feret diameters, over all its parts together; ``None`` for an empty mask.

    The hull is that of the pixels' corners in millimetres, so pixels of any proportion are right, and one pixel is a
    rectangle and not a point.

    Parameters
    ----------
    mask
        Row × column.
    spacing_mm
        Millimetres per pixel, (row, column).

    """
    from scipy.spatial import ConvexHull
    from scipy.spatial.distance import pdist

    if not mask.any():
        return None
    # only the ends of each row's pixels can be on the hull
    rows = np.flatnonzero(mask.any(1))
    first = mask[rows].argmax(1)
    last = mask.shape[1] - mask[rows][:, ::-1].argmax(1)
    corners = np.concatenate([np.stack([rows + down, side], 1) for down in (0, 1) for side in (first, last)])
    points = corners * np.asarray(spacing_mm)
    hull = ConvexHull(points)
    outline = points[hull.vertices]
    edges = np.roll(outline, -1, axis=0) - outline
    normals = np.stack([-edges[:, 1], edges[:, 0]], 1) / np.linalg.norm(edges, axis=1, keepdims=True)
    # the smallest width is reached with a line along an edge of the hull
    widths = np.ptp(normals @ outline.T, axis=1)
    return Feret(float(pdist(outline).max()), float(widths.min()), float(hull.volume))


def shape_attributes(
    masks: Sequence[Mask],
    spacing_mm: Sequence[tuple[float, float]],
    structure: str,
    *,
    landmarks_px: Mapping[str, Sequence[tuple[float, float]]] | None = None,
) -> AttributeTable:
    """Measure one structure in every image.

    Parameters
    ----------
    masks
        The structure's mask in each image, all its parts together.
    spacing_mm
        Of each image, millimetres per pixel, (row, column).
    structure
        Its name, which the attributes' names begin with.
    landmarks_px
        Landmark → its place in each image, (row, column) in pixels, pixel ``i`` covering ``[i, i + 1)``. Where the
        structure lies is measured from there; by default from the image's top left corner.

    Returns
    -------
    AttributeTable
        One row per image: area [mm²], perimeter, largest and smallest Feret and equivalent diameter [mm], eccentricity,
        solidity; and for each landmark distance, rows below and columns right of it [mm]. The area of an absent structure
        is 0, the rest missing.

    Raises
    ------
    ShapeError
        If there is not one spacing, and one place of each landmark, for each mask.

    """
    places = {name: np.asarray(at, dtype=np.float64) for name, at in (landmarks_px or {}).items()}
    if len(spacing_mm) != len(masks) or any(at.shape != (len(masks), 2) for at in places.values()):
        raise ShapeError(f"{len(masks)} masks need as many spacings, and places (row, column) of each landmark")
    rows = [_shape(np.asarray(m, dtype=bool), s) for m, s in zip(masks, spacing_mm, strict=True)]
    columns = [
        (Attribute(f"{structure}_{name}", unit, measured=how), [row[name] for row in rows])
        for name, (unit, how) in _SHAPE.items()
    ]
    spacing = np.asarray(spacing_mm, dtype=np.float64)
    centres = np.array([(row["row"], row["column"]) for row in rows])
    for name, at in places.items():
        offset = centres - at * spacing
        for what, values, how in (
            (f"distance_from_{name}", np.hypot(*offset.T), "from its middle, in a straight line"),
            (f"below_{name}", offset[:, 0], "of its middle, down the image"),
            (f"right_of_{name}", offset[:, 1], "of its middle, to the right of the image"),
        ):
            columns.append((Attribute(f"{structure}_{what}", "mm", measured=how), list(values)))
    if not places:
        for axis, side in enumerate(("top", "left")):
            about = Attribute(f"{structure}_from_{side}", "mm", measured=f"its middle, from the image's {side} edge")
            columns.append((about, list(centres[:, axis])))
    return AttributeTable.from_columns(columns)


_SHAPE = {
    "area": ("mm²", "pixels of the mask times their area"),
    "perimeter": ("mm", "outline of the mask by Crofton's formula"),
    "largest_diameter": ("mm", "largest Feret diameter of the mask"),
    "smallest_diameter": ("mm", "smallest Feret diameter of the mask"),
    "equivalent_diameter": ("mm", "of the disc with the mask's area"),
    "eccentricity": ("1", "of the ellipse with the mask's second moments"),
    "solidity": ("1", "area of the mask over that of its convex hull"),
}


def _shape(mask: Mask, spacing_mm: tuple[float, float]) -> dict[str, float]:
    area, ellipse, feret = area_mm2(mask, spacing_mm), ellipse_of(mask, spacing_mm), feret_of(mask, spacing_mm)
    if ellipse is None or feret is None:
        return {**dict.fromkeys((*_SHAPE, "row", "column"), float("nan")), "area": 0.0}
    return {
        "area": area,
        "perimeter": perimeter_mm(mask, spacing_mm),
        "largest_diameter": feret.largest_mm,
        "smallest_diameter": feret.smallest_mm,
        "equivalent_diameter": 2 * math.sqrt(area / math.pi),
        "eccentricity": ellipse.eccentricity,
        "solidity": area / feret.hull_mm2,
        "row": ellipse.centre_mm[0],
        "column": ellipse.centre_mm[1],
    }


def fractal_dimension(mask: Mask, spacing_mm: tuple[float, float]) -> float:
    """Return the box-counting dimension of a mask: 2 for a filled area, 1 for a line, between for a branching one.

    Boxes are squares in millimetres, from twice the pixels' longer side to a quarter of the image's shorter side, in
    powers of two; the dimension is the slope of the count's logarithm on that of the size [1]_. NaN for an empty mask, and
    where the image is too small for three sizes.

    References
    ----------
    .. [1] Falconer. Fractal geometry, chapter 3.

    """
    rows, columns = np.nonzero(mask)
    extent = np.asarray(mask.shape) * np.asarray(spacing_mm)
    smallest, largest = 2 * max(spacing_mm), extent.min() / 4
    sizes = smallest * 2.0 ** np.arange(0, max(0, math.floor(math.log2(max(largest / smallest, 1e-9))) + 1))
    if not len(rows) or len(sizes) < 3:
        return float("nan")
    counts = []
    for size in sizes:
        # a pixel belongs to the box that holds its middle; a hair more, so that a middle on a border falls to one side
        boxes = np.stack([(rows + 0.5) * spacing_mm[0], (columns + 0.5) * spacing_mm[1]], 1) / size + 1e-9
        counts.append(len(np.unique(boxes.astype(np.int64), axis=0)))
    return float(-np.polyfit(np.log(sizes), np.log(counts), 1)[0])
