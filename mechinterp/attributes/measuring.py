"""Measure the shape of a mask in millimetres, whatever the pixels' proportions."""

from __future__ import annotations

import importlib
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool
from numpy.typing import NDArray

Mask = Bool[NDArray[np.bool_], "row column"]


@dataclass(frozen=True)
class Ellipse:
    """The ellipse with the same second moments as a mask.

    Parameters
    ----------
    centre_mm
        Centre of mass, (row, column), in millimetres from the image's corner.
    major_mm, minor_mm
        Full lengths of the axes.
    orientation_deg
        Angle of the major axis from the image's vertical, counter-clockwise as seen, −90 to 90.
    eccentricity
        0 for a circle, towards 1 for a line.

    """

    centre_mm: tuple[float, float]
    major_mm: float
    minor_mm: float
    orientation_deg: float
    eccentricity: float


def area_mm2(mask: Mask, spacing_mm: tuple[float, float]) -> float:
    """Return the area of a mask in mm²: its pixels times the area of one.

    Parameters
    ----------
    mask
        Row × column.
    spacing_mm
        Millimetres per pixel, (row, column).

    """
    return float(np.count_nonzero(mask)) * spacing_mm[0] * spacing_mm[1]


def ellipse_of(mask: Mask, spacing_mm: tuple[float, float]) -> Ellipse | None:
    """Return the ellipse of a mask's second moments, taken over all its parts together; ``None`` for an empty mask.

    Parameters
    ----------
    mask
        Row × column.
    spacing_mm
        Millimetres per pixel, (row, column).

    """
    if not mask.any():
        return None
    measure: Any = importlib.import_module("skimage.measure")  # half a second: not before it is needed
    region = measure.regionprops(mask.astype(np.uint8), spacing=spacing_mm)[0]
    # scikit-image counts from the centre of pixel 0.
    centre = (region.centroid[0] + spacing_mm[0] / 2, region.centroid[1] + spacing_mm[1] / 2)
    return Ellipse(
        centre_mm=(float(centre[0]), float(centre[1])),
        major_mm=float(region.axis_major_length),
        minor_mm=float(region.axis_minor_length),
        orientation_deg=math.degrees(region.orientation),
        eccentricity=float(region.eccentricity),
    )


def perimeter_mm(mask: Mask, spacing_mm: tuple[float, float]) -> float:
    r"""Return the length of a mask's outline, holes included, in mm, by Crofton's formula [1]_.

    The length of a curve is half the integral, over all directions and offsets, of how often a line meets it. Lines
    are taken in the eight directions of pixels one or a knight's move apart, weighted by the angle each stands for in
    millimetres; counting pixel edges instead would call every circle :math:`4 / \pi` times too long. Smooth outlines
    come out within 3 % on square pixels and within 5 % on pixels three times as long as wide.

    Parameters
    ----------
    mask
        Row × column.
    spacing_mm
        Millimetres per pixel, (row, column).

    References
    ----------
    .. [1] Legland, Kiêu, Devaux. Computation of Minkowski measures on 2D and 3D binary images. Image Analysis &
       Stereology 26, 2007.

    """
    steps = ((0, 1), (1, 2), (1, 1), (2, 1), (1, 0), (2, -1), (1, -1), (1, -2))
    padded = np.pad(mask.astype(bool), 2)
    row_mm, column_mm = spacing_mm
    angles = np.array([math.atan2(r * row_mm, c * column_mm) for r, c in steps])  # rising from 0 to below π
    neighbours = np.concatenate([[angles[-1] - math.pi], angles, [math.pi]])
    sectors = (neighbours[2:] - neighbours[:-2]) / 2
    length = 0.0
    for (r, c), sector in zip(steps, sectors, strict=True):
        shifted = np.roll(padded, (r, c), axis=(0, 1))
        crossings = np.count_nonzero(padded != shifted)
        # Lines in this direction lie so far apart that each pixel's area belongs to one step along a line.
        apart = row_mm * column_mm / math.hypot(r * row_mm, c * column_mm)
        length += crossings * apart * sector / 2
    return length
