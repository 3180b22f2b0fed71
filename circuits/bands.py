"""Which images a set experiment chooses on and tests on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from mechinterp.errors import ImagesError, LeakageError


@dataclass(frozen=True)
class Band:
    """Images that share a puzzling answer, and the reference images that go with them.

    Parameters
    ----------
    name
        How pages call it.
    target
        Positions of images that the model gives the target class.
    reference
        Positions of images that the model gives the reference class.

    """

    name: str
    target: tuple[int, ...]
    reference: tuple[int, ...]


def two_bands(
    first: Sequence[int],
    second: Sequence[int],
    reference: Sequence[int],
    *,
    names: tuple[str, str] = ("first", "second"),
    groups: Sequence[str | None] | None = None,
) -> tuple[Band, Band]:
    """Pair two bands of target images with the two halves of the reference images.

    Parameters
    ----------
    first, second
        Positions of target images.
    reference
        Positions of reference images. In their order the first half goes with the first band, so that for the slices of a
        volume each band gets the reference slices of its own side, and neighbouring slices stay together.
    names
        Of the bands.
    groups
        Group (patient, block) of every image of the set; none is split between the halves.

    Raises
    ------
    ImagesError
        If a band is empty, or there are too few reference images (or groups of them) for two halves.

    """
    blocks: dict[object, list[int]] = {}
    for i in sorted(int(i) for i in reference):
        blocks.setdefault(i if groups is None else groups[i], []).append(i)
    halves: tuple[list[int], list[int]] = ([], [])
    for block in blocks.values():
        halves[0 if 2 * len(halves[0]) < len(reference) and not halves[1] else 1].extend(block)
    named = {
        names[0]: first,
        names[1]: second,
        f"reference of {names[0]}": halves[0],
        f"reference of {names[1]}": halves[1],
    }
    for what, images in named.items():
        if len(images) == 0:
            raise ImagesError(
                f"'{what}' holds no image: the experiment needs two bands and two halves of reference images"
            )
    return (
        Band(names[0], tuple(int(i) for i in first), tuple(halves[0])),
        Band(names[1], tuple(int(i) for i in second), tuple(halves[1])),
    )


def require_disjoint(bands: tuple[Band, Band]) -> None:
    """Refuse bands that share an image.

    Raises
    ------
    LeakageError
        Naming the image.

    """
    seen: dict[int, str] = {}
    for band in bands:
        for i in chain(band.target, band.reference):
            if i in seen:
                raise LeakageError(
                    f"image {i} stands in '{seen[i]}' and again in '{band.name}': "
                    "features must be tested on images they were not chosen on"
                )
            seen[i] = band.name


def spread_out(images: tuple[int, ...], most: int) -> tuple[int, ...]:
    """Pick at most `most` images, evenly: neighbours of a volume say almost the same."""
    n = min(len(images), most)
    return tuple(images[i] for i in np.round(np.linspace(0, len(images) - 1, n)).astype(int))
