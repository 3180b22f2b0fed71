"""Small pictures of images for single pages, as ``data:`` URLs."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from experiments.dashboard.markup import Element, element
from mechinterp.images.image_set import MedicalImage
from mechinterp.picture_figures import picture_url

SIDE = 176
"""Longest side of a thumbnail in pixels: sharp at the width at which pages show it."""


def thumbnail_url(image: MedicalImage, side: int = SIDE) -> str:
    """Return an image, made no larger than `side`, as a PNG in a ``data:`` URL; of a volume its middle slice.

    Parameters
    ----------
    image
        Its whole range of intensities is drawn from black to white.
    side
        Longest side in pixels.

    """
    pixels = image.scaled()
    if image.axes == 3:
        pixels = pixels[len(pixels) // 2]
    return picture_url(shrunk(pixels, side), (0.0, 1.0))


def shrunk(
    pixels: Float[np.ndarray, "row column *channel"], side: int = SIDE
) -> Float[np.ndarray, "row column *channel"]:
    """Return a picture of at most `side` pixels on its longer side; one channel becomes none.

    Parameters
    ----------
    pixels
        Values from 0 to 1.
    side
        Longest side in pixels.

    """
    from skimage.transform import resize

    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    rows, columns = pixels.shape[:2]
    scale = side / max(rows, columns)
    if scale >= 1:
        return pixels
    shape = (max(1, round(rows * scale)), max(1, round(columns * scale)), *pixels.shape[2:])
    return np.asarray(resize(pixels, shape, anti_aliasing=True))  # type: ignore[no-untyped-call]


def thumbnail(image: MedicalImage, words: str) -> Element:
    """Return an image as an entry of a list of thumbnails, with words, its id and its label below."""
    caption = f"{words}: {image.id}" + (f", labelled {image.label}" if image.label else "")
    picture = element("img", src=thumbnail_url(image), alt=caption)
    return element("li", picture, element("span", caption, css="caption"), css="plain")
