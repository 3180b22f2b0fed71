"""What is plain in the pixels: the baseline that a probe of activations has to beat."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from mechinterp.images.image_set import ImageSet
from mechinterp.progress import SILENT, Progress
from probes.regions import MaskOf

DARK = 0.05
"""Below this share of white a pixel counts as background."""


def pixel_baseline(
    images: ImageSet,
    *,
    mask_of: MaskOf | None = None,
    chosen: Sequence[int] | NDArray[np.int64] | None = None,
    progress: Progress = SILENT,
) -> Float[NDArray[np.float64], "image measure"]:
    """Measure size, mean intensity and contrast of images, or of a region of each.

    Parameters
    ----------
    images
        The images.
    mask_of
        The region; without it, whole images are measured.
    chosen
        Positions of the images; all by default.
    progress
        Counts the images.

    Returns
    -------
    NDArray
        Whole images: share that is not background; of each channel mean, standard deviation, 1st, 50th and 99th
        percentile. Regions: share of the image they cover; of each channel mean inside, and mean inside minus mean of
        all else. NaN where a region is empty.

    """
    positions = range(len(images)) if chosen is None else [int(i) for i in chosen]
    rows = []
    for i in progress.track(positions, "pixel baseline", total=len(positions)):
        scaled = images[i].scaled().astype(np.float64)
        pixels = scaled[..., None] if scaled.ndim == 2 or _is_grey_volume(images, scaled) else scaled
        flat = pixels.reshape(-1, pixels.shape[-1])
        rows.append(
            _whole(flat) if mask_of is None else _inside(flat, np.asarray(mask_of(i), dtype=np.float64).ravel())
        )
    return np.stack(rows)


def _is_grey_volume(images: ImageSet, pixels: NDArray[Any]) -> bool:
    return pixels.ndim == 3 and getattr(images, "axes", 2) == 3


def _whole(flat: Float[NDArray[np.float64], "pixel channel"]) -> NDArray[np.float64]:
    quantiles = np.quantile(flat, [0.01, 0.5, 0.99], axis=0)
    return np.concatenate([[(flat.mean(1) > DARK).mean()], flat.mean(0), flat.std(0), quantiles.ravel()])


def _inside(flat: Float[NDArray[np.float64], "pixel channel"], mask: NDArray[np.float64]) -> NDArray[np.float64]:
    if not 0 < mask.sum() < len(mask):
        return np.full(1 + 2 * flat.shape[1], np.nan)
    inside = mask @ flat / mask.sum()
    outside = (1 - mask) @ flat / (1 - mask).sum()
    return np.concatenate([[mask.mean()], inside, inside - outside])
