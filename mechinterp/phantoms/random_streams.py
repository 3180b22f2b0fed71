"""A random stream for every structure of every image, so that changing one never moves another."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np


def stream(*key: int | str) -> np.random.Generator:
    """Return a generator that depends on the key alone.

    Parameters
    ----------
    *key
        Whatever names the thing that is drawn: seed, patient, image, structure, index. Two different keys give
        independent streams, and no draw from one stream moves another.

    Notes
    -----
    Philox is counter based: a 128-bit key, here a hash, is all its state, so making one costs microseconds [1]_.

    References
    ----------
    .. [1] Salmon et al. Parallel random numbers: as easy as 1, 2, 3. SC 2011.

    """
    digest = hashlib.blake2b(repr(key).encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))


@dataclass(frozen=True)
class Identity:
    """Which image of which patient of which population: what all randomness of one image is keyed by.

    Parameters
    ----------
    seed
        Seed of the population.
    patient
        Number of the patient: anatomy is drawn from this, so all images of a patient share it.
    image
        Number of the image within the patient: lesions and noise are drawn from this.

    """

    seed: int = 0
    patient: int = 0
    image: int = 0

    def of_patient(self, structure: str, *index: int | str) -> np.random.Generator:
        """Return the stream of a structure that all images of the patient share."""
        return stream(self.seed, "patient", self.patient, structure, *index)

    def of_image(self, structure: str, *index: int | str) -> np.random.Generator:
        """Return the stream of a structure of this image alone."""
        return stream(self.seed, "image", self.patient, self.image, structure, *index)
