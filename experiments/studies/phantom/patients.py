"""Whose images a study looks at: phantoms or a user's folder, divided by patient before anything is opened."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Int
from numpy.typing import NDArray

from experiments.studies.phantom.case import StudyCase
from experiments.studies.phantom.config import PhantomStudyConfig
from mechinterp.attributes.table import AttributeTable
from mechinterp.errors import ImagesError, nearest
from mechinterp.images.image_set import ImageSet, own_patient
from mechinterp.phantoms.datasets import draw_phantoms, phantom_kind, study_of
from mechinterp.phantoms.phantom import PhantomImage
from mechinterp.phantoms.phantom_set import PhantomSet
from mechinterp.progress import Progress

FEWEST_PATIENTS = 20
_FRESH = 1000
"""Added to the seed: the reference models were trained on patients of small seeds."""
_FURTHER = 1_000_000
"""Added to the seed for further patients: the others' seeds do not come so far."""


@dataclass(frozen=True)
class Side:
    """The images of one half of the patients.

    Parameters
    ----------
    images
        As everything takes them; read when they are needed.
    positive
        Whether each image is of the class asked about.
    groups
        Patient of each image.
    phantoms
        Where they were rendered, so that they can be rendered again with one thing changed.
    positions
        Of the images in `phantoms`.

    """

    images: ImageSet
    positive: Bool[NDArray[np.bool_], " image"]
    groups: NDArray[Any]
    phantoms: PhantomSet | None
    positions: Int[NDArray[np.int64], " image"]

    @property
    def patients(self) -> tuple[str, ...]:
        """Each once."""
        return tuple(dict.fromkeys(self.groups.tolist()))

    def rendered(self, most: int, possible: Callable[[Any], bool] | None = None) -> list[PhantomImage[Any]]:
        """Return the first image of so many patients, with their counterfactuals one call away.

        Parameters
        ----------
        most
            Of so many patients at most.
        possible
            Says of an image's parameters whether it is taken; all are by default.

        """
        if self.phantoms is None:
            return []
        firsts = self.positions[np.unique(self.groups, return_index=True)[1]].tolist()
        chosen = [i for i in firsts if possible is None or possible(self.phantoms.parameters[i])]
        return [self.phantoms.phantom(i) for i in chosen[:most]]


@dataclass(frozen=True)
class StudyPatients:
    """Both halves: to explore on freely, and to confirm on once.

    Parameters
    ----------
    discovery, confirmation
        The halves.
    name, licence
        Of the images.
    notes
        What a reader must know of them.
    further
        More patients to confirm on, of whom only the answers are looked at; ``None`` where no more can be rendered.

    """

    discovery: Side
    confirmation: Side
    name: str
    licence: str
    notes: tuple[str, ...] = ()
    further: Side | None = None

    @property
    def opened_once(self) -> tuple[str, ...]:
        """Everyone who is looked at only when the plan is written."""
        return self.confirmation.patients + (() if self.further is None else self.further.patients)

    @property
    def truth_known(self) -> bool:
        """Whether the images were rendered from known parameters."""
        return self.discovery.phantoms is not None


def study_patients(case: StudyCase, config: PhantomStudyConfig, progress: Progress) -> StudyPatients:
    """Draw or open the images, and divide their patients.

    Raises
    ------
    ImagesError
        If a user's folder has no labels, no patients enough, or labels that do not say which class is asked about.

    """
    return _drawn(case, config) if config.data is None else _opened(case, config, progress)


def _drawn(case: StudyCase, config: PhantomStudyConfig) -> StudyPatients:
    images, phantoms, positive = _rendered(case, config, config.sizes.patients, _FRESH + config.seed)
    sides = [_side(images, positive, phantoms.where(split), phantoms) for split in ("train", "test")]
    more, others, ill = _rendered(case, config, config.sizes.further, _FURTHER + config.seed)
    # patients are numbered from 0 in every draw
    renamed = replace(more, groups=tuple(f"further-{g}" for g in more.groups or ()))
    further = _side(renamed, ill, others.where("test"), others)
    return StudyPatients(sides[0], sides[1], images.name, str(images.licence), (), further)


def _rendered(
    case: StudyCase, config: PhantomStudyConfig, patients: int, seed: int
) -> tuple[ImageSet, PhantomSet, NDArray[np.bool_]]:
    """Draw so many patients on either side: their images, what those were drawn from, and who is ill."""
    # the two hospitals of the planted shortcut: at the one explored the mark goes with the label, at the other it does not
    planted = {"mark": case.marks[0], "train": 0.9, "test": 0.0} if config.condition == "shortcut" else None
    settings = {
        **case.study_settings, **(case.quick_settings if config.quick_reference else {}), "patients": 2 * patients,
        "images_per_patient": 1, "validation_share": 0.0, "test_share": 0.5, "seed": seed,
    }  # fmt: skip
    phantoms = draw_phantoms(phantom_kind(case.phantom), study_of(case.phantom, settings, planted))
    images = phantoms.images
    if config.condition == "shuffled-labels":
        images = _shuffled(images, config.seed)
    return images, phantoms, np.array([label == case.target for label in images.labels or ()])


def _opened(case: StudyCase, config: PhantomStudyConfig, progress: Progress) -> StudyPatients:
    from mechinterp.images.opening import open_images

    images = open_images(str(config.data), progress=progress)
    if images.labels is None or any(label is None for label in images.labels):
        raise ImagesError(f"{config.data} has images without a label: {case.folder_layout}")
    wanted = tuple(w.strip() for w in (config.positive or case.target).split(","))
    known = sorted({str(label) for label in images.labels})
    unknown = [w for w in wanted if w not in known]
    if unknown:
        raise ImagesError(
            f"no image of {config.data} has the label '{unknown[0]}': {nearest(unknown[0], known)}; --positive says which "
            "labels count as the class asked about"
        )
    notes = ["The images are a user's own: nothing about them is known but what their files say."]
    groups = images.groups
    if groups is None:
        notes.append("The folder names no patients (column `group`): every image was counted as a patient.")
        groups = images.ids
    elif unnamed := sum(g == own_patient(i) for g, i in zip(groups, images.ids, strict=True)):
        notes.append(f"{unnamed} of {len(images)} images name no patient: each was counted as one of its own.")
    images = replace(images, groups=tuple(str(g) for g in groups))
    if config.condition == "shuffled-labels":
        images = _shuffled(images, config.seed)
    positive = np.array([str(label) in wanted for label in images.labels or ()])
    names = np.asarray(images.groups, dtype=object)
    patients = sorted(set(names.tolist()))
    if len(patients) < 2 * FEWEST_PATIENTS:
        raise ImagesError(
            f"{config.data} has images of {len(patients)} patients: a study needs {2 * FEWEST_PATIENTS}, half to explore on "
            "and half to confirm on"
        )
    if images.splits is not None and "test" in images.splits:
        held = {g for g, s in zip(names.tolist(), images.splits, strict=True) if s == "test"}
    else:
        held = set(np.random.default_rng(config.seed).permutation(patients)[: len(patients) // 2].tolist())
    inside = np.array([g in held for g in names.tolist()])
    sides = [_side(images, positive, np.flatnonzero(chosen), None) for chosen in (~inside, inside)]
    return StudyPatients(sides[0], sides[1], images.name, images.licence or "not stated", tuple(notes))


def _side(images: ImageSet, positive: NDArray[np.bool_], positions: NDArray[np.int64], phantoms: Any) -> Side:
    chosen = replace(images.subset(positions), splits=None)
    return Side(chosen, positive[positions], np.asarray(chosen.groups, dtype=object), phantoms, positions)


def _shuffled(images: ImageSet, seed: int) -> ImageSet:
    """Give every image the labels and attributes of another one: what must then not be found is all that was true."""
    order = np.random.default_rng(seed).permutation(len(images))
    table = images.attributes
    values = table.values[order]
    return replace(
        images,
        labels=None if images.labels is None else tuple(images.labels[int(i)] for i in order),
        attributes=AttributeTable(table.attributes, values, table.categories),
        source={},
    )
