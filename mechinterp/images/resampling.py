"""Resize a box of a picture or of a volume: linear, widened when shrinking so that nothing aliases."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from PIL import Image


def resized(
    pixels: Float[NDArray[np.float32], "*space"], start: Sequence[float], stop: Sequence[float], size: Sequence[int]
) -> Float[NDArray[np.float32], "*space"]:
    """Return a box of an image at another size.

    Parameters
    ----------
    pixels
        One channel, (height, width) or (depth, height, width).
    start, stop
        The box, in pixels.
    size
        What it is resized to.

    """
    if pixels.ndim == 2:
        (top, left), (bottom, right) = start, stop
        picture = Image.fromarray(np.ascontiguousarray(pixels))
        shown = picture.resize((size[1], size[0]), Image.Resampling.BILINEAR, box=(left, top, right, bottom))
        return np.asarray(shown, dtype=np.float32)
    out = pixels.astype(np.float32, copy=False)
    for axis, (first, last, n) in enumerate(zip(start, stop, size, strict=True)):
        if (first, last, n) != (0, out.shape[axis], out.shape[axis]):
            weights = _weights(out.shape[axis], first, last, n)
            out = np.moveaxis(np.tensordot(weights, out, axes=(1, axis)), 0, axis)
    return np.ascontiguousarray(out)


def _weights(n: int, start: float, stop: float, size: int) -> Float[NDArray[np.float32], "size n"]:
    """Return how much each of `n` pixels counts for each of `size`: a triangle, as in Pillow's bilinear filter."""
    scale = (stop - start) / size
    centres = start + (np.arange(size) + 0.5) * scale
    distance = np.abs(np.arange(n) + 0.5 - centres[:, None])
    weights = np.maximum(1 - distance / max(scale, 1.0), 0)
    normalised: NDArray[np.float32] = (weights / weights.sum(1, keepdims=True)).astype(np.float32)
    return normalised
