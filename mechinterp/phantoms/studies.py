"""What all studies of phantoms share: patients, splits, ranks of illness, and a mark planted with the label."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from mechinterp.errors import ConfigError, nearest
from mechinterp.phantoms.planted_shortcut import Shortcut, assign_mark
from mechinterp.phantoms.random_streams import Identity, stream

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, kw_only=True)
class PhantomStudy:
    """Which patients and images a set of phantoms holds.

    Raises
    ------
    ConfigError
        If a number cannot be meant, or the shortcut's mark is none of the phantom's.

    """

    MARKS: ClassVar[tuple[str, ...]] = ()

    patients: Annotated[int, "number of patients"] = 200
    images_per_patient: Annotated[int, "images of each patient"] = 2
    size_px: Annotated[int, "height of an image in pixels"] = 128
    validation_share: Annotated[float, "share of the patients in the validation split"] = 0.15
    test_share: Annotated[float, "share of the patients in the test split"] = 0.25
    shortcut: Annotated[Shortcut | None, "a mark that goes with the label"] = None
    seed: Annotated[int, "all randomness follows from it"] = 0

    def __post_init__(self) -> None:
        if self.patients < 4:
            raise ConfigError(f"patients is {self.patients}: give at least 4")
        if self.images_per_patient < 1:
            raise ConfigError(f"images_per_patient is {self.images_per_patient}: give at least 1")
        shares = self.validation_share, self.test_share
        if min(shares) < 0 or sum(shares) >= 1:
            raise ConfigError(f"validation_share {shares[0]:g} and test_share {shares[1]:g} leave nothing to train on")
        if self.shortcut is not None and self.shortcut.mark not in self.MARKS:
            raise ConfigError(
                f"the phantom has no mark '{self.shortcut.mark}': {nearest(self.shortcut.mark, self.MARKS)}"
            )


Drawn = tuple[list[dict[str, Any]], list[Identity], list[str]]


def draw_study(
    study: PhantomStudy,
    draw: Callable[[Identity, float], dict[str, Any]],
    labelled: Callable[[dict[str, Any]], bool],
) -> Drawn:
    """Draw the parameters of every image of a study.

    Parameters
    ----------
    study
        How many patients, in which splits, with which shortcut.
    draw
        Returns the parameters of one image from its identity and its patient's rank of illness, 0 to 1: a uniform
        share of the patients of each split, so that a threshold on it gives equal shares of labels in every split.
    labelled
        Returns the binary label of some parameters: what the shortcut goes with.

    Returns
    -------
    parameters, identities, splits
        One an image, patients in order.

    """
    split_of = splits(study)
    rank = ranks(study, split_of)
    parameters, identities, of_image = [], [], []
    for patient in range(study.patients):
        for image in range(study.images_per_patient):
            who = Identity(study.seed, patient, image)
            parameters.append(draw(who, float(rank[patient])))
            identities.append(who)
            of_image.append(split_of[patient])
    if study.shortcut is not None:
        _plant(study, study.shortcut, parameters, of_image, labelled)
    return parameters, identities, of_image


def splits(study: PhantomStudy) -> list[str]:
    """Return every patient's split."""
    order = stream(study.seed, "splits").permutation(study.patients)
    test = round(study.test_share * study.patients)
    validation = round(study.validation_share * study.patients)
    split_of = np.full(study.patients, "train", dtype=object)
    split_of[order[:test]] = "test"
    split_of[order[test : test + validation]] = "validation"
    return [str(s) for s in split_of]


def ranks(study: PhantomStudy, split_of: Sequence[str]) -> Float[NDArray[np.float64], " patient"]:
    """Return every patient's rank of illness, 0 to 1, even within each split."""
    rank = np.zeros(study.patients)
    for split in SPLITS:
        members = np.flatnonzero(np.array(split_of) == split)
        rank[members] = (stream(study.seed, "illness", split).permutation(len(members)) + 0.5) / max(len(members), 1)
    return rank


def _plant(
    study: PhantomStudy, shortcut: Shortcut, parameters: list[dict[str, Any]], of_image: list[str],
    labelled: Callable[[dict[str, Any]], bool],
) -> None:  # fmt: skip
    labels = np.array([labelled(p) for p in parameters])
    for split in SPLITS:
        members = np.flatnonzero(np.array(of_image) == split)
        if not len(members):
            continue
        correlation = shortcut.test if split == "test" else shortcut.train
        marks = assign_mark(labels[members], correlation, stream(study.seed, "shortcut", split))
        for i, mark in zip(members, marks, strict=True):
            parameters[i][shortcut.mark] = int(mark)
