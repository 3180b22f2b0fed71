"""What is plain in the pixels of each token's tile: the baseline that a probe of tokens has to beat."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from mechinterp.token_grid import Placement, TokenGrid
from probes.regions import cell_coverage

MEASURES = 3
"""For each channel: mean and standard deviation of the tile, and its mean against that of the image."""


def tile_pixels(
    pixels: Float[NDArray[np.float32], "row column *channel"], grid: TokenGrid, placement: Placement
) -> Float[NDArray[np.float32], "cell measure"]:
    """Measure intensity and contrast of every tile of an image.

    Parameters
    ----------
    pixels
        0 to 1, grey or with channels.
    grid
        The site's cells in the model's input.
    placement
        From the input to the image.

    Returns
    -------
    NDArray
        :data:`MEASURES` of every channel. A tile that need not end at pixels counts part of each; beyond the image all
        is black.

    """
    channels = np.asarray(pixels, dtype=np.float64).reshape(*pixels.shape[:2], -1)
    found = []
    for channel in np.moveaxis(channels, -1, 0):
        mean = cell_coverage(channel, grid, placement)
        spread = np.sqrt(np.maximum(cell_coverage(channel**2, grid, placement) - mean**2, 0))
        found += [mean, spread, mean - channel.mean()]
    return np.stack(found, axis=1).astype(np.float32)
