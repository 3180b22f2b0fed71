"""How bright, how grainy and how sharp a region is: contrast to its surroundings, density, texture; in physical lengths."""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from mechinterp.attributes.measuring import Mask
from mechinterp.attributes.shape import fractal_dimension
from mechinterp.attributes.table import Attribute, AttributeTable
from mechinterp.errors import ConfigError, ShapeError

Plane = Float[NDArray[Any], "row column"]
LEVELS = 32
"""Grey levels of the co-occurrence matrix, evenly over the values that are shown."""

_GLCM = ("contrast", "homogeneity", "energy", "correlation")
_NOISE = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], dtype=np.float64)


def contrast_of(
    image: Plane, mask: Mask, spacing_mm: tuple[float, float], *, gap_mm: float = 0.0, ring_mm: float = 2.0,
    within: Mask | None = None,
) -> tuple[float, float, float]:  # fmt: skip
    """Return a region's contrast to the ring around it: difference of means, its ratio to the ring's mean and to its noise.

    Parameters
    ----------
    image
        In any unit.
    mask
        The region.
    spacing_mm
        Millimetres per pixel, (row, column): the ring is as wide along rows as along columns in millimetres.
    gap_mm, ring_mm
        How far from the region the ring begins, and how wide it is.
    within
        Where the ring may lie, for example in the organ; everywhere by default.

    Returns
    -------
    difference, ratio, to_noise
        Mean inside minus mean of the ring, in the image's unit; that over the ring's mean (Weber's contrast); that over
        the ring's standard deviation. NaN where the region or the ring is empty, or what is divided by is 0.

    """
    from scipy.ndimage import distance_transform_edt

    if not mask.any() or mask.all():
        return float("nan"), float("nan"), float("nan")
    distance = distance_transform_edt(~mask, sampling=spacing_mm)
    ring = (distance > gap_mm) & (distance <= gap_mm + ring_mm)
    if within is not None:
        ring &= within
    if not ring.any():
        return float("nan"), float("nan"), float("nan")
    inside, around = image[mask].astype(np.float64), image[ring].astype(np.float64)
    difference, mean, noise = float(inside.mean() - around.mean()), float(around.mean()), float(around.std())
    return difference, _over(difference, mean), _over(difference, noise)


def density_of(part: Mask, whole: Mask) -> float:
    """Return which share of a structure another covers, 0 to 1, as fibroglandular tissue covers the breast."""
    total = np.count_nonzero(whole)
    return float(np.count_nonzero(part & whole)) / total if total else float("nan")


def cooccurrence(
    image: Plane, mask: Mask, spacing_mm: tuple[float, float], *, distance_mm: float, limits: tuple[float, float]
) -> dict[str, float]:
    """Return properties of the grey-level co-occurrence matrix of a region [1]_.

    Parameters
    ----------
    image, mask
        Pairs count where both pixels are in the mask.
    spacing_mm
        Millimetres per pixel, (row, column).
    distance_mm
        Distance of the pixels compared, in millimetres in all four directions: on pixels that are no squares the steps
        differ in pixels. At least one pixel.
    limits
        Values of the lowest and highest of the 32 grey levels: the same for all images that are compared.

    Returns
    -------
    dict
        ``contrast``, ``homogeneity``, ``energy``, ``correlation`` as scikit-image defines them, mean over directions; NaN
        where the region holds no pair.

    References
    ----------
    .. [1] Haralick, Shanmugam, Dinstein. Textural features for image classification. 1973.

    """
    low, high = limits
    if not high > low or not distance_mm > 0:
        raise ConfigError(
            f"limits {limits} and distance_mm {distance_mm:g}: the limits must rise, the distance be above 0"
        )
    feature: Any = importlib.import_module("skimage.feature")
    levels = np.clip((image.astype(np.float64) - low) / (high - low) * LEVELS, 0, LEVELS - 1).astype(np.uint8) + 1
    found = []
    for across, down in ((1.0, 0.0), (math.sqrt(0.5), math.sqrt(0.5)), (0.0, 1.0), (-math.sqrt(0.5), math.sqrt(0.5))):
        step = round(down * distance_mm / spacing_mm[0]), round(across * distance_mm / spacing_mm[1])
        row, column = step if any(step) else (int(bool(down)), round(math.copysign(bool(across), across)))
        counts = feature.graycomatrix(
            np.where(mask, levels, 0), [math.hypot(row, column)], [math.atan2(row, column)], LEVELS + 1, symmetric=True
        )[1:, 1:]  # level 0 is outside the mask
        if counts.sum():
            found.append([float(feature.graycoprops(counts, name)[0, 0]) for name in _GLCM])
    means: NDArray[np.float64] = np.array(found).mean(0) if found else np.full(len(_GLCM), np.nan)
    return dict(zip(_GLCM, map(float, means), strict=True))


def entropy_of(values: Float[NDArray[Any], " pixel"], limits: tuple[float, float], bins: int = 64) -> float:
    """Return the Shannon entropy of intensities in bits, over even bins between fixed limits."""
    counts = np.histogram(np.clip(values, *limits), bins=bins, range=limits)[0]
    shares = counts[counts > 0] / max(1, counts.sum())
    return float(-(shares * np.log2(shares)).sum()) if len(shares) else float("nan")


def sharpness_of(image: Plane, mask: Mask, spacing_mm: tuple[float, float]) -> float:
    """Return the root-mean-square gradient inside a region, in the image's unit per millimetre."""
    if not mask.any() or min(image.shape) < 2:
        return float("nan")
    down, across = (np.asarray(g) for g in np.gradient(image.astype(np.float64), *spacing_mm))
    return float(np.sqrt(np.mean(down[mask] ** 2 + across[mask] ** 2)))


def noise_of(image: Plane, mask: Mask) -> float:
    """Return the standard deviation of pixel noise inside a region, in the image's unit, by Immerkær's estimate [1]_.

    Structure that is straight over three pixels does not count as noise. Pixels whose neighbours leave the mask are not
    looked at.

    References
    ----------
    .. [1] Immerkær. Fast noise variance estimation. Computer Vision and Image Understanding 64, 1996.

    """
    from scipy.ndimage import binary_erosion, convolve

    inside = binary_erosion(mask, np.ones((3, 3)))
    if not inside.any():
        return float("nan")
    residual = convolve(image.astype(np.float64), _NOISE, mode="nearest")[inside]
    return float(math.sqrt(math.pi / 2) * np.abs(residual).mean() / 6)


def texture_attributes(
    images: Sequence[Plane],
    masks: Sequence[Mask],
    spacing_mm: Sequence[tuple[float, float]],
    structure: str,
    *,
    unit: str = "1",
    limits: tuple[float, float] = (0.0, 1.0),
    distance_mm: float = 1.0,
    ring_mm: float = 2.0,
) -> AttributeTable:
    """Measure one structure's brightness, contrast and texture in every image.

    Parameters
    ----------
    images, masks, spacing_mm
        Of each image: one grey plane, the structure's mask, millimetres per pixel (row, column).
    structure
        Its name, which the attributes' names begin with.
    unit
        Of the intensities, for example ``HU``.
    limits
        Intensities at the ends of the scale that entropy and co-occurrence are counted on.
    distance_mm
        Distance of the pixels that co-occurrence compares.
    ring_mm
        Width of the surroundings that contrast compares with.

    Returns
    -------
    AttributeTable
        One row per image; all missing where the structure is absent.

    Raises
    ------
    ShapeError
        If there is not one image and one spacing for each mask, or an image and its mask differ in shape.

    """
    if not len(images) == len(masks) == len(spacing_mm):
        raise ShapeError(f"{len(images)} images, {len(masks)} masks, {len(spacing_mm)} spacings: one each")
    rows = []
    for image, mask, spacing in zip(images, masks, spacing_mm, strict=True):
        inside = np.asarray(mask, dtype=bool)
        if image.shape != inside.shape:
            raise ShapeError(f"an image of shape {image.shape} has a mask of shape {inside.shape}: use one grid")
        difference, ratio, to_noise = contrast_of(image, inside, spacing, ring_mm=ring_mm)
        glcm = cooccurrence(image, inside, spacing, distance_mm=distance_mm, limits=limits)
        rows.append(
            [
                float(image[inside].mean(dtype=np.float64)) if inside.any() else float("nan"),
                difference, ratio, to_noise, *glcm.values(), entropy_of(image[inside], limits),
                sharpness_of(image, inside, spacing), noise_of(image, inside), fractal_dimension(inside, spacing),
            ]
        )  # fmt: skip
    around = f"the {ring_mm:g} mm around it"
    grey = f"of the co-occurrence of {LEVELS} grey levels {distance_mm:g} mm apart, mean over four directions"
    per_mm = "1/mm" if unit in {"", "1"} else f"{unit}/mm"
    about = [
        ("mean", unit, "mean inside the mask"),
        ("contrast", unit, f"mean inside the mask minus that of {around}"),
        ("contrast_ratio", "1", f"contrast over the mean of {around}"),
        ("contrast_to_noise", "1", f"contrast over the standard deviation of {around}"),
        *((f"glcm_{name}", "1", f"{name} {grey}") for name in _GLCM),
        ("entropy", "bit", "of 64 even bins of intensity inside the mask"),
        ("sharpness", per_mm, "root mean square of the gradient inside the mask"),
        ("noise", unit, "Immerkær's estimate inside the mask"),
        ("fractal_dimension", "1", "box-counting dimension of the mask, boxes in millimetres"),
    ]
    return AttributeTable.from_columns(
        (Attribute(f"{structure}_{name}", of, measured=how), column)
        for (name, of, how), column in zip(about, np.array(rows).T, strict=True)
    )


def _over(top: float, bottom: float) -> float:
    return top / bottom if bottom else float("nan")
