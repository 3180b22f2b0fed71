"""Many images on one sheet, to look at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from mechinterp.errors import ImagesError
from mechinterp.phantoms.phantom import PhantomImage


def contact_sheet(
    phantoms: Sequence[PhantomImage[Any]], columns: int = 4, *, gap_px: int = 4, outlined: Sequence[str] = ()
) -> Float[NDArray[np.float32], "height width 3"]:
    """Lay images of one size side by side.

    Parameters
    ----------
    phantoms
        What to show, row by row.
    columns
        Images in a row.
    gap_px
        White pixels between them.
    outlined
        Structures whose outline is drawn, in turn in cyan, yellow and magenta.

    Returns
    -------
    ndarray
        The sheet, 0 to 1; ``mechinterp.phantoms.image_folder.png`` makes a file of it.

    Raises
    ------
    ImagesError
        If there is none, or they differ in size.

    """
    if not phantoms:
        raise ImagesError("a contact sheet needs at least one image")
    height, width = phantoms[0].pixels.shape[:2]
    if any(p.pixels.shape[:2] != (height, width) for p in phantoms):
        raise ImagesError("a contact sheet needs images of one size: render them by one renderer")
    rows = -(-len(phantoms) // columns)
    columns = min(columns, len(phantoms))
    sheet = np.ones((rows * (height + gap_px) - gap_px, columns * (width + gap_px) - gap_px, 3), dtype=np.float32)
    for i, phantom in enumerate(phantoms):
        top, left = (i // columns) * (height + gap_px), (i % columns) * (width + gap_px)
        sheet[top : top + height, left : left + width] = _outlined(phantom, outlined)
    return sheet


def _outlined(phantom: PhantomImage[Any], structures: Sequence[str]) -> NDArray[np.float32]:
    from scipy.ndimage import binary_dilation

    grey = phantom.pixels.ndim == 2
    pixels = np.repeat(phantom.pixels[..., None], 3, axis=-1) if grey else phantom.pixels.copy()
    for k, structure in enumerate(structures):
        mask = phantom.mask(structure)
        pixels[binary_dilation(mask) & ~mask] = ((0, 1, 1), (1, 1, 0), (1, 0, 1))[k % 3]
    return pixels
