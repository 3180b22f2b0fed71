"""Contrast energy in bands of orientation and spatial frequency: what a complex cell sees."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

ORIENTATIONS_DEG = tuple(np.arange(8) * 22.5)
FREQUENCIES_CPD = (0.5, 1.0, 2.0)
# half widths: von Mises concentration over twice the angle, octaves
CONCENTRATION, OCTAVES = 4.0, 0.55


@dataclass(frozen=True)
class EnergyFilters:
    """Quadrature filters of one image size, as transfer functions; a pair's energy is the squared modulus.

    Parameters
    ----------
    transfer
        Filter × frequency row × frequency column; the filters run over orientations, then frequencies.

    """

    transfer: Float[NDArray[np.float64], "filter row column"]

    @classmethod
    def of(cls, size_px: int, spacing_deg: float) -> EnergyFilters:
        """Return the filters for square images of a size and a pixel's side in degrees."""
        return _filters(size_px, spacing_deg)

    def __call__(self, pixels: Float[NDArray[np.float32], "height width"]) -> Float[NDArray[np.float64], "filter h w"]:
        """Return the energy of every filter at every pixel."""
        spectrum = np.fft.fft2(pixels.astype(np.float64) - float(np.median(pixels)))
        energy: NDArray[np.float64] = np.square(np.abs(np.fft.ifft2(self.transfer * spectrum)))
        return energy

    @staticmethod
    def tuning(
        orientation_deg: Float[NDArray[np.float64], " voxel"], frequency_cpd: Float[NDArray[np.float64], " voxel"]
    ) -> Float[NDArray[np.float64], "filter voxel"]:
        """Return how much voxels of a preferred orientation and frequency take from every filter; sums to 1."""
        bands = [(o, f) for o in ORIENTATIONS_DEG for f in FREQUENCIES_CPD]
        orientation, frequency = np.array(bands).T
        apart = np.deg2rad(orientation[:, None] - orientation_deg)
        octaves = np.log2(frequency[:, None] / frequency_cpd)
        taken = np.exp(CONCENTRATION * (np.cos(2 * apart) - 1)) * np.exp(-np.square(octaves) / (2 * 0.5**2))
        shares: NDArray[np.float64] = taken / taken.sum(0)
        return shares


@lru_cache(maxsize=4)
def _filters(size_px: int, spacing_deg: float) -> EnergyFilters:
    rows, columns = np.meshgrid(*(np.fft.fftfreq(size_px, spacing_deg),) * 2, indexing="ij")
    radius = np.hypot(rows, columns)
    # bars run at right angles to their wave; rows grow downwards, angles anticlockwise
    bars = np.arctan2(rows, columns) + np.pi / 2
    found = []
    for orientation in ORIENTATIONS_DEG:
        # one half of the plane: the filter and its quadrature partner at once
        wave = np.deg2rad(orientation) - np.pi / 2
        half = (columns * np.cos(wave) - rows * np.sin(wave)) > 0
        angle = np.exp(CONCENTRATION * (np.cos(2 * (-bars - np.deg2rad(orientation))) - 1))
        for frequency in FREQUENCIES_CPD:
            octaves = np.log2(np.maximum(radius, 1e-9) / frequency)
            found.append(2 * half * angle * np.exp(-np.square(octaves) / (2 * OCTAVES**2)))
    return EnergyFilters(np.stack(found))
