"""Where the lesions are: masks on the image's pixels, brought to the model's input without losing small ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from circuits.localization.maps import RelevanceMaps
from circuits.localization.shown_images import ShownImages
from mechinterp.attributes.token_level import token_attributes
from mechinterp.errors import ConfigError, ImagesError, nearest
from mechinterp.token_grid import TokenGrid


@dataclass(frozen=True, eq=False)
class Lesions:
    """The truth about some images.

    Parameters
    ----------
    share
        Of each input pixel's part of the image, the share that is lesion; NaN where the input shows no image (padding).
    boxes
        Per image: (top, left, bottom, right) of every lesion pixel of the image, in the images' length unit.
    unit
        The unit of lengths: ``mm`` or ``px``.

    """

    share: Float[NDArray[np.float32], "image row column"]
    boxes: tuple[Float[NDArray[np.float64], "pixel corner"], ...]
    unit: str

    def __len__(self) -> int:
        return len(self.share)

    def present(self) -> Int[NDArray[np.int64], " image"]:
        """Return the images with a lesion of at least one input pixel."""
        return np.flatnonzero(np.nansum(self.share, axis=(1, 2)) >= 0.5)

    def subset(self, chosen: Sequence[int] | NDArray[np.int64]) -> Lesions:
        """Return what is true of some images, in the given order."""
        at = [int(i) for i in chosen]
        return Lesions(self.share[at], tuple(self.boxes[i] for i in at), self.unit)

    def distances(self, maps: RelevanceMaps) -> Float[NDArray[np.float64], " image"]:
        """Return how far each map's peak lies from the nearest lesion pixel; 0 where the peak's pixel holds lesion."""
        found = np.full(len(self), np.nan)
        for i, boxes in enumerate(self.boxes):
            if not len(boxes):
                continue
            at = np.asarray(maps.peak_mm(i))
            gap = np.maximum(np.maximum(boxes[:, :2] - at, at - boxes[:, 2:]), 0)
            row, column = maps.peak(i)
            found[i] = 0.0 if self.share[i, row, column] > 0 else float(np.sqrt(np.square(gap).sum(1)).min())
        return found


def lesions_of(shown: ShownImages, names: Sequence[str]) -> Lesions:
    """Read the union of some masks of every image.

    Parameters
    ----------
    shown
        Images from a set that has masks.
    names
        Names of the masks.

    Raises
    ------
    ImagesError
        If the images come without masks, or a mask is not there in any image.
    ConfigError
        If no name is given.

    """
    if not names:
        raise ConfigError("no mask is named: say which masks hold what the map should find")
    if shown.images is None:
        raise ImagesError("prepared images come without masks: give the image set")
    rows, columns = int(shown.x.shape[2]), int(shown.x.shape[3])
    pixels = TokenGrid(rows, columns, (1.0, 1.0), (0.5, 0.5), (1.0, 1.0))
    share = np.empty((len(shown), rows, columns), dtype=np.float32)
    boxes, seen, met = [], set(), set()
    for i, size in enumerate(shown.sizes):
        masks = shown.images.masks(i)
        seen |= set(masks)
        held = [np.asarray(masks[name], dtype=bool) for name in names if name in masks]
        met |= {name for name in names if name in masks}
        mask = np.logical_or.reduce(held) if held else np.zeros(size, dtype=bool)
        table = token_attributes({"lesion": mask.astype(np.float32)}, pixels, shown.placements[i], (1.0, 1.0))
        share[i] = table.column("lesion_share").reshape(rows, columns)
        at = np.argwhere(mask)
        boxes.append(np.concatenate([at, at + 1], axis=1) * np.tile(shown.lengths(i), 2))
    for name in names:
        if name not in met:
            raise ImagesError(f"no image has a mask '{name}': {nearest(name, sorted(seen))}")
    return Lesions(share, tuple(boxes), shown.length_unit)
