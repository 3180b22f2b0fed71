"""What a slice of the brain consists of and how it is shaped, in physical units."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray

from mechinterp.attributes.measuring import area_mm2, ellipse_of
from mechinterp.attributes.table import Attribute, AttributeTable
from mechinterp.errors import AttributeTableError, ShapeError

DEEP_MM = 25.0
"""CSF so far from the brain's outline counts as deep: ventricles, cisterns and the middle of the fissure between the
hemispheres, but no CSF over the cortex."""

Plane = Float[NDArray[np.float32], "row column"]


@dataclass(frozen=True, eq=False)
class TissueSlice:
    """One slice with its brain mask and, where they are known, its tissues.

    Parameters
    ----------
    intensity
        Black 0, white 1.
    mask
        Where there is brain, CSF inside it included.
    spacing_mm
        Millimetres per pixel, (row, column).
    position_mm
        Where the slice lies along its normal.
    grey, white
        Probability, or share, of grey and of white matter in each pixel; both or neither.
    midline_column
        Continuous column of the plane between left and right; ``None`` where left and right are not in the slice.

    """

    intensity: Plane
    mask: Bool[NDArray[np.bool_], "row column"]
    spacing_mm: tuple[float, float]
    position_mm: float
    grey: Plane | None = None
    white: Plane | None = None
    midline_column: float | None = None

    def __post_init__(self) -> None:
        if (self.grey is None) != (self.white is None):
            raise AttributeTableError("a slice has a map of one tissue alone: give grey and white matter, or neither")
        for what, plane in (("mask", self.mask), ("grey matter", self.grey), ("white matter", self.white)):
            if plane is not None and plane.shape != self.intensity.shape:
                raise ShapeError(f"{what} has shape {plane.shape}, its slice {self.intensity.shape}: use one grid")

    @property
    def csf(self) -> Plane | None:
        """What is neither grey nor white inside the mask; 0 outside, never below 0."""
        if self.grey is None or self.white is None:
            return None
        rest: Plane = np.where(self.mask, np.clip(1 - self.grey - self.white, 0, 1), 0).astype(np.float32)
        return rest


def tissue_attributes(slices: Sequence[TissueSlice], tissues_from: str = "probability map") -> AttributeTable:
    """Measure every slice.

    Parameters
    ----------
    slices
        The slices of one volume. Tissues are measured only where all of them have maps.
    tissues_from
        Where the tissue maps come from, for the attributes' descriptions.

    Returns
    -------
    AttributeTable
        One row per slice; NaN where a slice without brain has no answer. All of a volume's slices go into the centre
        that ``distance_from_centre`` is measured from.

    Raises
    ------
    AttributeTableError
        If there is no slice.

    Notes
    -----
    ``orientation`` is given between −45° and 135°: slices are long from front to back (0°) or from left to right (90°),
    and neither may lie where the angle wraps around.

    """
    if not slices:
        raise AttributeTableError("no slices to measure")
    brain_area = np.array([area_mm2(s.mask, s.spacing_mm) for s in slices])
    position = np.array([s.position_mm for s in slices])
    centre = float((position * brain_area).sum() / brain_area.sum()) if brain_area.any() else float(position.mean())
    columns: list[tuple[Attribute, NDArray[np.float64]]] = [
        (Attribute("slice_position", "mm", measured="coordinate of the slice along its normal"), position),
        (
            Attribute("distance_from_centre", "mm", measured="from the centre of the brain's volume, along the normal"),
            np.abs(position - centre),
        ),
        (Attribute("brain_area", "mm²", measured="pixels of the brain mask times their area"), brain_area),
    ]
    if all(s.grey is not None for s in slices):
        columns += _tissue_columns(slices, tissues_from)
    columns += _shape_columns(slices)
    if all(s.midline_column is not None for s in slices):
        asymmetry = Attribute(
            "asymmetry", "1", measured="|left − mirrored right| over their sum, of intensity inside the mask; 0 to 1"
        )
        columns.append((asymmetry, np.array([_asymmetry(s) for s in slices])))
    return AttributeTable.from_columns(columns)


def tissue_by_intensity(
    intensity: Float[NDArray[np.float32], "*axes"], mask: Bool[NDArray[np.bool_], "*axes"]
) -> tuple[Float[NDArray[np.float32], "*axes"], Float[NDArray[np.float32], "*axes"]]:
    """Guess grey and white matter of a T1-weighted volume that has no tissue maps, by its intensities.

    Otsu's thresholds [1]_ cut the intensities inside the mask into three classes: the darkest is CSF, the brightest
    white matter. Field inhomogeneity and partial volumes are not corrected: a stand-in for a segmentation, and to be
    labelled so.

    Parameters
    ----------
    intensity
        T1-weighted values, in any unit.
    mask
        Where there is brain.

    Returns
    -------
    grey, white
        1 where there is that tissue, else 0.

    Raises
    ------
    AttributeTableError
        If there are not three values inside the mask to tell apart.

    References
    ----------
    .. [1] Otsu. A threshold selection method from gray-level histograms. IEEE Trans. SMC 9, 1979.

    """
    inside = intensity[mask]
    if len(np.unique(inside)) < 3:
        raise AttributeTableError(
            "fewer than three intensities inside the brain mask: three tissues cannot be told apart"
        )
    filters: Any = importlib.import_module("skimage.filters")
    dark, bright = filters.threshold_multiotsu(inside, classes=3)
    white = mask & (intensity > bright)
    grey = mask & (intensity > dark) & ~white
    return grey.astype(np.float32), white.astype(np.float32)


def _tissue_columns(slices: Sequence[TissueSlice], tissues_from: str) -> list[tuple[Attribute, NDArray[np.float64]]]:
    rows = np.array([_tissues(s) for s in slices])
    derived = f"derived as 1 − grey − white inside the brain mask, not measured ({tissues_from})"
    fraction = f"mean of the {tissues_from} inside the brain mask"
    area = f"sum of the {tissues_from} inside the brain mask times the pixel's area"
    attributes = (
        Attribute("grey_fraction", "1", measured=fraction),
        Attribute("white_fraction", "1", measured=fraction),
        Attribute("csf_fraction", "1", measured=derived),
        Attribute("grey_area", "mm²", measured=area),
        Attribute("white_area", "mm²", measured=area),
        Attribute("csf_area", "mm²", measured=derived),
        Attribute(
            "deep_csf_area",
            "mm²",
            measured=f"CSF, {derived}, {DEEP_MM:g} mm or more inside the mask's outline: ventricles, cisterns, fissure",
        ),
    )
    return list(zip(attributes, rows.T, strict=True))


def _tissues(one: TissueSlice) -> tuple[float, ...]:
    from scipy.ndimage import distance_transform_edt

    csf = one.csf
    if one.grey is None or one.white is None or csf is None:
        raise AttributeTableError("a slice without tissue maps has no tissues to measure")
    pixel = one.spacing_mm[0] * one.spacing_mm[1]
    sums = [float(plane[one.mask].sum(dtype=np.float64)) for plane in (one.grey, one.white, csf)]
    n = int(one.mask.sum())
    # Outside the picture there is no brain either: a border of one pixel lets the distance know.
    depth = distance_transform_edt(np.pad(one.mask, 1), sampling=one.spacing_mm)[1:-1, 1:-1]
    deep = float(csf[depth >= DEEP_MM].sum(dtype=np.float64))
    fractions = [s / n if n else np.nan for s in sums]
    return (*fractions, *(s * pixel for s in sums), deep * pixel)


def _shape_columns(slices: Sequence[TissueSlice]) -> list[tuple[Attribute, NDArray[np.float64]]]:
    ellipses = [ellipse_of(s.mask, s.spacing_mm) for s in slices]
    # A symmetric mask's angle is 0 or 90 but for rounding, which ranks must not see.
    orientation = [np.nan if e is None else round((e.orientation_deg + 45) % 180 - 45, 6) + 0.0 for e in ellipses]
    eccentricity = [np.nan if e is None else e.eccentricity for e in ellipses]
    mean = [float(s.intensity[s.mask].mean(dtype=np.float64)) if s.mask.any() else np.nan for s in slices]
    return [
        (
            Attribute("mean_intensity", "1", measured="mean inside the brain mask, as a fraction of white"),
            np.array(mean),
        ),
        (
            Attribute(
                "orientation",
                "°",
                measured="major axis of the brain mask's second moments, from the vertical, counter-clockwise",
            ),
            np.array(orientation),
        ),
        (
            Attribute("eccentricity", "1", measured="of the ellipse with the brain mask's second moments"),
            np.array(eccentricity),
        ),
    ]


def _asymmetry(one: TissueSlice) -> float:
    """Return how much the two halves differ, over the pixels that have a partner across the midline.

    The midline is rounded to the nearest border or centre of a pixel: no intensity is interpolated.
    """
    columns = np.arange(one.intensity.shape[1])
    partner = round(2 * (one.midline_column or 0.0)) - 1 - columns
    inside = (partner >= 0) & (partner < len(columns))
    shown = np.where(one.mask, one.intensity, 0).astype(np.float64)
    here, there = shown[:, columns[inside]], shown[:, partner[inside]]
    total = float((here + there).sum())
    return float(np.abs(here - there).sum()) / total if total > 0 else np.nan
