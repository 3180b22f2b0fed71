"""Folds for held-out prediction: whole groups, and along a volume contiguous blocks with a gap around them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int
from numpy.typing import NDArray

from mechinterp.errors import ConfigError, LeakageError, ShapeError


@dataclass(frozen=True)
class Folds:
    """Which images are tested together, and which may train for them.

    Parameters
    ----------
    fold
        Fold of each image, 0, 1, …
    order
        Position of each image along its volume, or ``None``.
    gap
        Images nearer than or as near as this to a tested one, in positions, do not train for it.

    """

    fold: Int[NDArray[np.int64], " image"]
    order: Int[NDArray[np.int64], " image"] | None = None
    gap: int = 0

    @property
    def n(self) -> int:
        """Number of folds."""
        return int(self.fold.max()) + 1

    def split(self, fold: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the positions of the images that train and of those that are tested."""
        tested = self.fold == fold
        train = ~tested
        if self.order is not None and self.gap > 0:
            distance = np.abs(self.order[:, None] - self.order[tested][None]).min(1)
            train &= distance > self.gap
        return np.flatnonzero(train), np.flatnonzero(tested)

    def subset(self, images: NDArray[np.int64]) -> Folds:
        """Return the folds of some images, numbered anew where one became empty."""
        fold = np.unique(self.fold[images], return_inverse=True)[1].reshape(-1)
        return Folds(fold.astype(np.int64), None if self.order is None else self.order[images], self.gap)


def make_folds(
    n_images: int,
    folds: int | Sequence[int] | NDArray[np.int64] = 5,
    *,
    groups: Sequence[Any] | NDArray[Any] | None = None,
    order: Sequence[int] | NDArray[Any] | None = None,
    gap: int = 0,
    classes: NDArray[Any] | None = None,
    seed: int = 0,
) -> Folds:
    """Divide images into folds that no group straddles.

    Parameters
    ----------
    n_images
        Number of images.
    folds
        Number of folds, or the fold of each image.
    groups
        Patient (or block) of each image; every image is one of its own by default.
    order
        Position of each image along one volume: folds are then contiguous blocks, made of whole groups where given.
    gap
        With `order`: how many positions around a tested image do not train.
    classes
        Class of each image, kept in proportion over folds of groups.
    seed
        Which groups go together.

    Returns
    -------
    Folds
        Each with at least one image to test.

    Raises
    ------
    LeakageError
        If given folds put one group on both sides; it names the folds, never the group, which is a patient.
    ConfigError
        If there are fewer groups than folds, or fewer than two folds, or a gap without an order.
    ShapeError
        If a list does not have one value per image.

    """
    for name, values in (("groups", groups), ("order", order), ("folds", None if isinstance(folds, int) else folds)):
        if values is not None and len(values) != n_images:
            raise ShapeError(f"{name} has {len(values)} values for {n_images} images: one each")
    if gap < 0 or (gap > 0 and order is None):
        raise ConfigError(f"gap is {gap}: it counts positions along a volume, so it is 0 or more and needs order")
    unit = np.arange(n_images) if groups is None else _codes(groups)
    places = None if order is None else np.asarray(order).astype(np.int64)
    if not isinstance(folds, int):
        fold = _codes(folds)
        names = np.asarray(folds, dtype=object)
        for u in np.unique(unit):
            both = list(dict.fromkeys(names[unit == u].tolist()))
            if len(both) > 1:
                raise LeakageError(
                    f"a group stands in both fold '{both[0]}' and fold '{both[1]}': put all images of a patient into one"
                )
        if fold.max() < 1:
            raise ConfigError("folds holds a single fold: at least two are needed")
        return Folds(fold, places, gap)
    n_units = len(np.unique(unit))
    if folds < 2 or folds > n_units:
        raise ConfigError(f"{folds} folds of {n_units} groups: choose between 2 and the number of groups")
    if places is not None:
        blocks = Folds(_blocks(unit, places, folds), places, gap)
        if any(len(blocks.split(k)[0]) < 2 for k in range(blocks.n)):
            raise ConfigError(
                f"gap {gap} leaves a block of {n_images} images without two to train: take a smaller gap or smaller groups"
            )
        return blocks
    return Folds(_by_group(unit, folds, classes, seed), None, 0)


def _codes(values: Sequence[Any] | NDArray[Any]) -> NDArray[np.int64]:
    seen: dict[Any, int] = {}
    return np.array([seen.setdefault(v, len(seen)) for v in np.asarray(values, dtype=object).tolist()], dtype=np.int64)


def _blocks(unit: NDArray[np.int64], places: NDArray[np.int64], folds: int) -> NDArray[np.int64]:
    # Groups in the order of their first slice, cut where the count of images passes each k-th part of all.
    ids, inverse, counts = np.unique(unit, return_inverse=True, return_counts=True)
    first = np.full(len(ids), np.iinfo(np.int64).max)
    np.minimum.at(first, inverse.reshape(-1), places)
    order = np.argsort(first)
    middle = np.cumsum(counts[order]) - counts[order] / 2
    block = np.empty(len(ids), dtype=np.int64)
    block[order] = np.minimum((middle * folds / len(unit)).astype(np.int64), folds - 1)
    fold: NDArray[np.int64] = np.unique(block, return_inverse=True)[1].reshape(-1)[inverse.reshape(-1)]
    return fold.astype(np.int64)


def _by_group(unit: NDArray[np.int64], folds: int, classes: NDArray[Any] | None, seed: int) -> NDArray[np.int64]:
    # Largest groups first, each into the fold that has least of its classes, then least images: balanced and greedy.
    rng = np.random.default_rng(seed)
    ids, inverse, counts = np.unique(unit, return_inverse=True, return_counts=True)
    codes = np.zeros(len(unit), dtype=np.int64) if classes is None else _codes(classes)
    content = np.zeros((len(ids), int(codes.max()) + 1))
    np.add.at(content, (inverse.reshape(-1), codes), 1)
    share = content / content.sum(0)
    load = np.zeros((folds, content.shape[1]))
    fold_of = np.empty(len(ids), dtype=np.int64)
    order = rng.permutation(len(ids))
    for group in order[np.argsort(-counts[order], kind="stable")]:
        cost = ((load + share[group]) ** 2 - load**2).sum(1)
        fold_of[group] = int(np.lexsort((load.sum(1), cost))[0])
        load[fold_of[group]] += share[group]
    return fold_of[inverse.reshape(-1)]
