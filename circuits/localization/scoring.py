"""Maps against masks: every score of every image, at three levels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from circuits.localization.config import Level
from circuits.localization.lesions import Lesions
from circuits.localization.maps import RelevanceMaps
from circuits.localization.scores import (
    THRESHOLDS,
    average_precision,
    dice_curve,
    mass_inside,
    means_by_part,
    parts_with_lesion,
)
from circuits.localization.shown_images import ShownImages
from mechinterp.errors import ShapeError
from mechinterp.token_grid import TokenGrid

PIXELS_PER_REGION = 64


@dataclass(frozen=True, eq=False)
class ImageScores:
    """One number per image and score.

    Parameters
    ----------
    auprc
        Level → area under the precision-recall curve.
    dice
        Level → Dice coefficient at every threshold.
    distance
        From the peak to the nearest lesion.
    pointing
        1 where the peak lies in a lesion.
    mass
        Share of the positive relevance inside.

    """

    auprc: dict[Level, Float[NDArray[np.float64], " image"]]
    dice: dict[Level, Float[NDArray[np.float64], "image threshold"]]
    distance: Float[NDArray[np.float64], " image"]
    pointing: Float[NDArray[np.float64], " image"]
    mass: Float[NDArray[np.float64], " image"]

    def best_threshold(self, level: Level) -> float:
        """Return the threshold with the highest mean Dice coefficient: choose it on other patients than it is used on."""
        return float(THRESHOLDS[int(np.nanmean(self.dice[level], axis=0).argmax())])

    def dice_at(self, level: Level, threshold: float) -> Float[NDArray[np.float64], " image"]:
        """Return the Dice coefficient at one of the thresholds."""
        found: NDArray[np.float64] = self.dice[level][:, int(np.abs(THRESHOLDS - threshold).argmin())]
        return found


def score_maps(
    maps: RelevanceMaps, lesions: Lesions, parts: dict[Level, Int[NDArray[np.int64], "image pixel"]]
) -> ImageScores:
    """Score maps against masks.

    Parameters
    ----------
    maps
        Of images with lesions.
    lesions
        What is true of the same images.
    parts
        Level → the part of every input pixel, from :func:`parts_of`; pixels that show no image belong to none.

    Raises
    ------
    ShapeError
        If maps and truth are of other images.

    """
    if maps.values.shape != lesions.share.shape:
        raise ShapeError(
            f"maps of shape {maps.values.shape} for a truth of shape {lesions.share.shape}: score maps of the same images"
        )
    n = len(maps)
    auprc = {level: np.full(n, np.nan) for level in parts}
    dice = {level: np.full((n, len(THRESHOLDS)), np.nan) for level in parts}
    mass = np.full(n, np.nan)
    for i in range(n):
        share, values = lesions.share[i].ravel(), maps.values[i].ravel()
        seen = np.isfinite(share)
        mass[i] = mass_inside(values[seen], share[seen])
        for level, part in parts.items():
            if level == "pixel":
                value, truth = values[seen], share[seen]
            else:
                value, truth = means_by_part(values, part[i]), parts_with_lesion(share, part[i])
                held = np.bincount(part[i][part[i] >= 0], minlength=len(value)) > 0
                value, truth = value[held], truth[held]
            auprc[level][i] = average_precision(value, truth)
            dice[level][i] = dice_curve(value, truth)
    distance = lesions.distances(maps)
    return ImageScores(auprc, dice, distance, np.where(np.isnan(distance), np.nan, distance == 0), mass)


def parts_of(
    shown: ShownImages, lesions: Lesions, grid: TokenGrid, levels: Sequence[Level]
) -> dict[Level, Int[NDArray[np.int64], "image pixel"]]:
    """Return which part every input pixel belongs to at each level; -1 where the input shows no image.

    Pixels are their own part; a token is the tile of `grid` that holds the pixel's centre; regions are SLIC's superpixels
    of the image, of about 64 pixels each, which follow its edges and know nothing of model or lesion.
    """
    n, _, rows, columns = shown.x.shape
    outside = np.isnan(lesions.share).reshape(n, -1)
    found: dict[Level, NDArray[np.int64]] = {}
    for level in levels:
        match level:
            case "pixel":
                part = np.tile(np.arange(rows * columns), (n, 1))
            case "token":
                part = np.tile(_tile_of_pixel(grid, (rows, columns)), (n, 1))
            case "region":
                part = np.stack([_superpixels(x) for x in shown.x.cpu().numpy()])
        found[level] = np.where(outside, -1, part)
    return found


def _tile_of_pixel(grid: TokenGrid, size: tuple[int, int]) -> Int[NDArray[np.int64], " pixel"]:
    along = [
        np.floor((np.arange(n) + 0.5 - first) / stride + 0.5).astype(np.int64)
        for n, first, stride in zip(size, grid.first_centre, grid.stride, strict=True)
    ]
    inside = [(a >= 0) & (a < cells) for a, cells in zip(along, grid.shape, strict=True)]
    cell = along[0][:, None] * grid.columns + along[1]
    return np.where(inside[0][:, None] & inside[1], cell, -1).ravel()


def _superpixels(x: Float[NDArray[np.floating], "channel row column"]) -> Int[NDArray[np.int64], " pixel"]:
    from skimage.segmentation import slic

    low, high = x.min(), x.max()
    picture = np.moveaxis((x - low) / max(float(high - low), 1e-12), 0, -1)
    count = max(2, picture.shape[0] * picture.shape[1] // PIXELS_PER_REGION)
    labels = slic(
        picture,
        n_segments=count,
        compactness=0.1,
        channel_axis=-1,
        convert2lab=False,
        start_label=0,
        enforce_connectivity=True,
    )
    found: NDArray[np.int64] = labels.astype(np.int64).ravel()
    return found
