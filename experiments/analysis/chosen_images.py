"""Which of a run's images a command looks at: those of a split, so many of them, and whose they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int
from numpy.typing import NDArray

from mechinterp.errors import ConfigError

if TYPE_CHECKING:
    from mechinterp.images.image_set import ImageSet


def rows_of_split(images: ImageSet, split: str | None) -> Int[NDArray[np.int64], " chosen"]:
    """Return the positions of the images of a split, or of all where none is named.

    Raises
    ------
    ConfigError
        If there is none.

    """
    if split is None:
        return np.arange(len(images))
    found = np.flatnonzero([s == split for s in images.splits or [""] * len(images)])
    if not len(found):
        known = ", ".join(sorted({str(s) for s in images.splits or ()})) or "none"
        raise ConfigError(f"no image is of the split '{split}': the run's splits are {known}")
    return found


def spread(rows: NDArray[np.int64], most: int, flag: str = "--most-images") -> Int[NDArray[np.int64], " chosen"]:
    """Return at most so many of some positions, in order: one of each of so many equal stretches, drawn at random.

    Every n-th would take left eyes alone where left and right take turns. The draw is the same every time.

    Raises
    ------
    ConfigError
        If not even one is asked for; `flag` says where.

    """
    if most < 1:
        raise ConfigError(f"{flag} is {most}: look at 1 image at least")
    if len(rows) <= most:
        return rows
    ends = np.arange(most + 1) * len(rows) // most
    return rows[np.random.default_rng(0).integers(ends[:-1], ends[1:])]


def patients_of_rows(images: ImageSet, rows: NDArray[np.int64]) -> NDArray[Any]:
    """Return the patients of some images; each image its own where nobody said, of all or of this one."""
    if images.groups is None:
        return rows
    return np.array([images.groups[i] or f"image {images.ids[i]}" for i in rows], dtype=object)
