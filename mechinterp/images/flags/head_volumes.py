"""Tell whether a head volume still has its face: from it, a surface that friends recognise is rendered in a minute."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Shaped
from numpy.typing import NDArray
from scipy import ndimage

_HEAD_MM = (130.0, 250.0)  # front to back at the forehead, from infants to the largest adults
_FINE_MM = 2.0
_MIDDLE_MM = 12.0  # half width of the band about the midline where forehead, nose and chin lie
# All in lengths of the head, front to back, below the crown.
_FOREHEAD = (0.20, 0.45)
_FACE = (0.58, 0.85)
_RECESS = 0.16  # how far behind the forehead a face may lie: the mouth, not the temporal lobes
_LEAST_SEEN = 0.17  # how much of the face must be there, from nose to chin

Volume = Shaped[NDArray[np.generic], "x y z"]


def has_face(volume: Volume, voxel_mm: tuple[float, float, float]) -> bool | None:
    """Say whether the volume of a head still has a face.

    Below the forehead, a head goes on to nose, lips and chin; a defaced head, or a brain without its skull, recedes by
    several centimetres there. The profile along the midline is measured and compared with the forehead.

    Parameters
    ----------
    volume
        Axes running to the patient's right (or left), front and top, as :class:`mechinterp.images.volume.Volume` has
        them.
    voxel_mm
        Size of a voxel along the three axes.

    Returns
    -------
    bool or None
        ``None`` where it cannot be said: no head (by its length from front to back), or the volume ends above the nose.

    Notes
    -----
    It does not see ears, a face that is turned by more than about 20°, one of which only a slice was kept, or one that
    was blurred rather than cut off. A head without arms in the picture is assumed.

    """
    # 2 mm are fine enough for a profile, and eight times faster than 1 mm.
    steps = tuple(max(1, round(_FINE_MM / mm)) for mm in voxel_mm)
    voxel_mm = (voxel_mm[0] * steps[0], voxel_mm[1] * steps[1], voxel_mm[2] * steps[2])
    head = _largest_part(np.asarray(volume)[tuple(slice(None, None, n) for n in steps)].astype(np.float32))
    if head is None:
        return None
    front, length = _midline(head, voxel_mm)
    seen = np.flatnonzero(~np.isnan(front))
    if len(seen) == 0:
        return None
    below = (seen[-1] - np.arange(len(front))) * voxel_mm[2]  # millimetres below the crown

    def between(shares: tuple[float, float], size: float) -> Bool[NDArray[np.bool_], " z"]:
        inside: NDArray[np.bool_] = (below >= shares[0] * size) & (below <= shares[1] * size) & ~np.isnan(front)
        return inside

    # The length at the forehead decides where the forehead is looked for: two rounds settle it.
    size = float(np.nanmax(length[below <= 80])) if (below[seen] <= 80).any() else 0.0
    for _ in range(2):
        forehead = between(_FOREHEAD, size)
        if not forehead.any():
            return None
        size = float(length[forehead].max())
    if not _HEAD_MM[0] <= size <= _HEAD_MM[1]:
        return None
    if below.max() < (_FACE[0] + _LEAST_SEEN) * size:
        return None
    face = between(_FACE, size)
    like_a_face = front[face] >= front[forehead].max() - _RECESS * size
    return bool(np.count_nonzero(like_a_face) * voxel_mm[2] >= _LEAST_SEEN * size)


def _largest_part(values: Float[NDArray[np.float32], "x y z"]) -> Bool[NDArray[np.bool_], "x y z"] | None:
    """Return the head, or whatever is the largest thing that is not air."""
    finite = np.isfinite(values)
    low, high = np.percentile(values[finite], [1, 99.5]) if finite.any() else (0.0, 0.0)
    if high <= low:
        return None
    scaled = np.clip((values - low) / (high - low), 0, 1)
    filters: Any = importlib.import_module("skimage.filters")
    # Half of Otsu's threshold: skin is darker than what Otsu parts from the rest, air is much darker.
    parts, n = ndimage.label(ndimage.binary_opening(scaled > 0.5 * filters.threshold_otsu(scaled.ravel())))
    if n == 0:
        return None
    largest: NDArray[np.bool_] = parts == 1 + int(np.argmax(np.bincount(parts.ravel())[1:]))
    return largest


def _midline(
    head: Bool[NDArray[np.bool_], "x y z"], voxel_mm: tuple[float, float, float]
) -> tuple[Float[NDArray[np.float64], " z"], Float[NDArray[np.float64], " z"]]:
    """Return for each level where the midline's front lies and how long it is, in millimetres; NaN where nothing is."""
    across = np.flatnonzero(head.any(axis=(1, 2)))
    middle, half = (across[0] + across[-1]) // 2, max(1, round(_MIDDLE_MM / voxel_mm[0]))
    band = head[max(middle - half, 0) : middle + half + 1].mean(axis=0) > 0.3
    there = band.any(axis=0)
    last = band.shape[0] - 1 - band[::-1].argmax(axis=0)
    first = band.argmax(axis=0)
    front = np.where(there, last * voxel_mm[1], np.nan)
    return front, np.where(there, (last - first + 1) * voxel_mm[1], np.nan)
