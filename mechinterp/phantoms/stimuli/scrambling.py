"""Scrambled faces and scenes, the control of localizer experiments: as bright, as contrasted, and nothing to recognise.

Random phases [1]_ keep how much contrast there is at every spatial frequency and orientation; tiles that change places [2]_ keep edges
and parts as well, and only their arrangement is lost. Either stays within the outline of the content, with its mean and its standard
deviation, so that neither the outline nor contrast tells a face from a scrambled one.

References
----------
.. [1] Malach et al. Object-related activity revealed by functional magnetic resonance imaging in human occipital cortex. PNAS 1995.
.. [2] Grill-Spector et al. A sequence of object-processing stages revealed by fMRI in the human occipital lobe. Human Brain
   Mapping 1998.

"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from mechinterp.phantoms.random_streams import Identity

Image = NDArray[np.float64]

TILES = 4
"""Rows and columns of tiles over the content's height and width."""


def with_tiles_moved(v: Image, u: Image, width: float, who: Identity) -> tuple[Image, Image]:
    """Return where each pixel takes its brightness from: tiles change places, what lies beyond them stays.

    Parameters
    ----------
    v, u
        Every pixel's place, down and to the right, over the content's height.
    width
        Of the content, over its height.
    who
        Which image of which person or place: keys the order.

    """
    to = who.of_image("tiles").permutation(TILES * TILES)
    row, column = np.floor((v + 0.5) * TILES).astype(int), np.floor((u / width + 0.5) * TILES).astype(int)
    inside = (row >= 0) & (row < TILES) & (column >= 0) & (column < TILES)
    new = to[np.where(inside, row * TILES + column, 0)]
    moved_v, moved_u = v + (new // TILES - row) / TILES, u + (new % TILES - column) / TILES * width
    return np.where(inside, moved_v, v), np.where(inside, moved_u, u)


def with_random_phases(
    picture: Float[Image, "height width"], outline: Float[Image, "height width"], who: Identity
) -> Float[Image, "height width"]:
    """Return a texture of the picture's amplitude spectrum, random phases, and its mean and deviation within the outline.

    Parameters
    ----------
    picture
        Brightness about the screen's grey.
    outline
        Share of every pixel that is covered; beyond it the picture is the screen's grey.
    who
        Which image of which person or place: keys the phases, which depend on the picture's size.

    """
    noise = np.fft.fft2(who.of_image("phases", *picture.shape).standard_normal(picture.shape))
    texture = np.fft.ifft2(np.fft.fft2(picture * outline) * noise / np.maximum(np.abs(noise), 1e-12)).real
    return _like(texture, picture, outline)


def _like(texture: Image, picture: Image, outline: Image) -> Image:
    """Return the texture with the picture's mean and standard deviation within the outline."""
    share = outline / max(float(outline.sum()), 1e-12)
    mean, own = float((share * picture).sum()), float((share * texture).sum())
    spread = np.sqrt(float((share * np.square(picture - mean)).sum()))
    theirs = np.sqrt(float((share * np.square(texture - own)).sum()))
    scaled: Image = np.clip(mean + (texture - own) * spread / max(theirs, 1e-12), -0.5, 0.5)
    return scaled
