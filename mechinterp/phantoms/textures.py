"""Random textures with a known spectrum, on square lattices that repeat, and how they are laid over an image."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

Lattice = NDArray[np.float32]


def power_law(random: np.random.Generator, cells: int, beta: float, *, from_cycles: float = 1.0) -> Lattice:
    """Return noise whose power falls as ``1 / frequency^beta``, with mean 0 and standard deviation 1.

    Parameters
    ----------
    random
        The stream it is drawn from; the number of draws depends on `cells` alone.
    cells
        Side of the square lattice, which repeats.
    beta
        Exponent of the power spectrum: 0 white; the parenchyma of mammograms has about 3 [1]_.
    from_cycles
        Waves longer than the lattice's side over this number are left out.

    References
    ----------
    .. [1] Burgess, Jacobson, Judy. Human observer detection experiments with mammograms and power-law noise. 2001.

    """
    spectrum = np.fft.rfft2(random.standard_normal((cells, cells)))
    frequency = np.hypot(np.fft.fftfreq(cells)[:, None], np.fft.rfftfreq(cells)[None, :]) * cells
    kept = frequency >= from_cycles
    spectrum = np.where(kept, spectrum / np.maximum(frequency, 1.0) ** (beta / 2), 0.0)
    field = np.fft.irfft2(spectrum, s=(cells, cells))
    scaled: Lattice = (field / field.std()).astype(np.float32)
    return scaled


def ridges(lattice: Lattice, sharpness: float) -> Lattice:
    """Return thin bright lines where a lattice crosses zero, 0 to 1."""
    lines: Lattice = np.exp(-sharpness * np.abs(lattice))
    return lines


def sampled(
    lattice: Lattice, rows: Float[NDArray[np.floating], "h w"], columns: Float[NDArray[np.floating], "h w"]
) -> Lattice:
    """Read a lattice between its cells, repeating it; `rows` and `columns` are in units of its side."""
    n = len(lattice)
    at = np.stack([rows, columns]).astype(np.float32) * n
    read: Lattice = map_coordinates(lattice, at, order=1, mode="grid-wrap", output=np.float32, prefilter=False)
    return read
