"""What numbers over a store's images cannot know: whose they are, and which of them the model was trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from probes.pooling import patients_of

if TYPE_CHECKING:
    from mechinterp.store.reader import ActivationStore

UNNAMED = (
    "Nobody said whose images these are: each counts as a patient of its own. Where several are of one patient, scores are too good "
    "and intervals too narrow: give the images a column `group`."
)


def named_patients(store: ActivationStore) -> bool:
    """Return whether what is held out of a store is patients: somebody named them, and they are more than parts of one."""
    groups, are_patients = patients_of(store)
    return are_patients and groups is not None


def unnamed_patients(store: ActivationStore) -> list[str]:
    """Return what must be said where nobody named a patient; nothing where somebody did, or where there is but one subject."""
    groups, are_patients = patients_of(store)
    return [UNNAMED] if are_patients and groups is None else []


def cautions_of(store: ActivationStore) -> list[str]:
    """Return what a reader of scores over all of a store's images should know, one sentence each; nothing where all is known.

    Cross-validation keeps a probe from patients it is scored on. It cannot keep the model from them.
    """
    splits = store.images["split"].tolist()
    trained_on, n = splits.count("train"), len(splits)
    if not (store.manifest.trained and trained_on):
        return unnamed_patients(store)
    how_many = f"All {n}" if trained_on == n else f"{trained_on} of {n}"
    return [
        *unnamed_patients(store),
        f"{how_many} images are of the split train. If the model was trained on them, its activations say more of them than of "
        "images it has not seen: capture those into a store of their own.",
    ]
