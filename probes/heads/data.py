"""What heads are fitted to and scored on: features, concepts, labels and patients of the same images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from mechinterp.errors import AttributeTableError, ConfigError, ShapeError
from mechinterp.statistics.bootstrap import groups_to_positions

FOLDS = 5
"""Of the choices made on the training patients; whole patients."""


@dataclass(frozen=True)
class HeadData:
    """Images with their features, concepts and label.

    Parameters
    ----------
    x
        Features.
    concepts
        Values without missing ones, each column in its unit.
    names, units
        Of the concepts.
    y
        0 or 1.
    groups
        Patient of each image.
    ids
        What an image is called where it is shown.

    Raises
    ------
    ShapeError
        If the parts differ in length.
    AttributeTableError
        If a concept has a missing value or does not vary.
    ConfigError
        If the label is not of two classes.

    """

    x: Float[NDArray[np.float64], "image width"]
    concepts: Float[NDArray[np.float64], "image concept"]
    names: tuple[str, ...]
    units: tuple[str, ...]
    y: Int[NDArray[np.int64], " image"]
    groups: NDArray[Any]
    ids: tuple[str, ...]

    def __post_init__(self) -> None:
        for name, values in (
            ("concepts", self.concepts), ("labels", self.y), ("groups", self.groups), ("ids", self.ids),
        ):  # fmt: skip
            if len(values) != len(self.x):
                raise ShapeError(f"{name} has {len(values)} values for {len(self.x)} images: one each")
        if self.concepts.shape[1] != len(self.names) or len(self.names) != len(self.units):
            raise ShapeError(
                f"{self.concepts.shape[1]} concepts have {len(self.names)} names and {len(self.units)} units"
            )
        missing = np.isnan(self.concepts).any(0)
        if missing.any():
            name = self.names[int(missing.argmax())]
            raise AttributeTableError(f"concept '{name}' has missing values: leave those images out, or the concept")
        if set(np.unique(self.y).tolist()) != {0, 1}:
            raise ConfigError(
                f"the label has the values {np.unique(self.y).tolist()}: a head separates two classes, 0 and 1"
            )

    def __len__(self) -> int:
        return len(self.x)

    def take(self, images: Sequence[int] | NDArray[np.int64]) -> HeadData:
        """Return some of the images."""
        at = np.asarray(images)
        return replace(
            self, x=self.x[at], concepts=self.concepts[at], y=self.y[at], groups=self.groups[at],
            ids=tuple(self.ids[int(i)] for i in at),
        )  # fmt: skip

    def with_shuffled_concepts(self, seed: int) -> HeadData:
        """Return the images with concepts that are other patients': rows of whole patients, dealt out anew."""
        rng = np.random.default_rng(seed)
        _, members = groups_to_positions(self.groups)
        moved = self.concepts.copy()
        round_table = rng.permutation(len(members))  # each takes its neighbour's, so nobody keeps its own
        for giver, taker in zip(np.roll(round_table, 1), round_table, strict=True):
            moved[members[taker]] = self.concepts[rng.choice(members[giver], len(members[taker]))]
        return replace(self, concepts=moved)


def folds_of(groups: NDArray[Any], y: NDArray[np.int64]) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Return folds of whole patients with both classes in every training part.

    Raises
    ------
    ConfigError
        If there are too few patients.

    """
    from sklearn.model_selection import StratifiedGroupKFold

    patients = len(set(groups.tolist()))
    if patients < FOLDS:
        raise ConfigError(f"a head is chosen over {FOLDS} folds of whole patients, but only {patients} patients train")
    made = list(StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0).split(np.zeros(len(y)), y, groups))
    if any(len(np.unique(y[train])) < 2 for train, _ in made):
        raise ConfigError("one class of the label has patients in one fold only: more patients of it are needed")
    return made
