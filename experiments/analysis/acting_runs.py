"""A run's shortcuts, and an edit with its bill: opened from a store, written as JSON and one page each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from experiments.analysis.chosen_images import patients_of_rows, rows_of_split, spread
from experiments.analysis.circuit_runs import model_of_run, prepared_images
from experiments.analysis.stagewise import images_of
from experiments.dashboard.single_page import Shown, write_single_page
from experiments.run_directory import Run
from mechinterp.attributes.from_masks import attributes_from_masks
from mechinterp.attributes.table import AttributeTable
from mechinterp.errors import AttributeTableError, ConfigError, nearest
from mechinterp.files import write_json
from mechinterp.images.labels import words_of
from mechinterp.progress import SILENT, Progress
from mechinterp.store.reader import ActivationStore

if TYPE_CHECKING:
    from circuits.acting.edit_bill import EditBill
    from circuits.acting.editing import EditedModel, EditMethod
    from circuits.acting.shortcuts import ShortcutSearch
    from circuits.measuring import Method
    from mechinterp.feature_encoder import FeatureEncoder
    from mechinterp.images.image_set import ImageSet
    from mechinterp.models.vision_model import VisionModel
    from mechinterp.statistics.bootstrap import Interval


_TOLD = 20


@dataclass(frozen=True, eq=False)
class Opened:
    """What a run was captured from: the model, its images as the store prepared them, and features of its sites."""

    model: VisionModel
    images: ImageSet
    preparation: Any
    encoders: tuple[FeatureEncoder, ...]

    def prepared(self, rows: NDArray[np.int64]) -> Any:
        """Return some images as the model's input."""
        return prepared_images(self.model, self.images.subset(rows.tolist()), self.preparation)

    def rows(self, split: str | None, most: int | None = None, flag: str = "--most-images") -> NDArray[np.int64]:
        """Return the images of a split, or all; at most so many, spread over them.

        Raises
        ------
        ConfigError
            If there is none, or none is asked for; `flag` is what asks.

        """
        found = rows_of_split(self.images, split)
        return found if most is None else spread(found, most, flag)

    @property
    def units_are_patients(self) -> bool:
        """Whether intervals over groups are over patients: not over blocks of one head, nor where nobody said whose images."""
        return self.images.units_are_patients and self.images.groups is not None

    @property
    def caution(self) -> list[str]:
        """What p-values and intervals cannot know, and whom they leave out; nothing where every image has patient and label."""
        return [*self._whose, *unlabelled_words(sum(label is None for label in self.images.labels or ()))]

    @property
    def _whose(self) -> list[str]:
        if self.units_are_patients:
            return []
        if self.images.groups is None:
            return [
                "Nobody said whose images these are: each counts as a patient of its own, which is too sure if some are not."
            ]
        return ["The images are parts of one subject: its blocks are no patients, so nothing here holds beyond it."]

    def labelled(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return those of some images that have a label; of the others nobody knows whether they show the target."""
        labels = self.images.labels
        return rows if labels is None else rows[np.array([labels[i] is not None for i in rows], dtype=bool)]

    def patients(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Return the patients of some images; each image its own where nobody said."""
        return patients_of_rows(self.images, rows)

    def truth(self, rows: NDArray[np.int64], target: str, label: str | None) -> NDArray[np.bool_]:
        """Return which of some labelled images truly show the target: those of its label, the class's name unless told.

        Where the model's outputs are findings of their own, several labels of an image may stand between bars.

        Raises
        ------
        ConfigError
            If the images have no labels, or none has this one.

        """
        if self.images.labels is None:
            raise ConfigError("the run's images have no labels: use of a feature is measured on the truth; give labels")
        wanted = label or _name(self.model, target)
        several = self.model.activation == "sigmoid"
        labels = [words_of(label, several=several) for label in self.images.labels]
        names = sorted({word for words in labels for word in words})
        if wanted not in names:
            raise ConfigError(
                f"no image is labelled '{wanted}': say with --label which label is the target ({', '.join(names)})"
            )
        return np.array([wanted in labels[i] for i in rows], dtype=bool)

    def column(self, flag: str, name: str) -> NDArray[np.float64]:
        """Return an attribute by name, given or measured from the masks; the nearest are named where there is none."""
        table = self.images.attributes
        if name not in table.names:
            table = self._measured.joined(table)
        if name not in table.names:
            raise AttributeTableError(f"{flag} '{name}' is no attribute of the images: {nearest(name, table.names)}")
        return table.column(name)

    @cached_property
    def _measured(self) -> AttributeTable:
        """What the images' masks say, as ``--measure`` takes it from them; nothing where there are none, or no millimetres."""
        if self.images.read_masks is None:
            return AttributeTable.empty(len(self.images))
        try:
            return attributes_from_masks(self.images)
        except AttributeTableError:
            return AttributeTable.empty(len(self.images))


def open_run(run: Run, site: str | None, sae: Path | None = None) -> Opened:
    """Open a run's model, images and features: an autoencoder, a site's neurons, or all the run's autoencoders.

    Of autoencoders of several seeds the first is taken.

    Raises
    ------
    ConfigError
        If the run holds no activations, neither a site nor an autoencoder says where to look, or both do.

    """
    from mechinterp.feature_encoder import Neurons
    from sparse_autoencoders import SparseAutoencoder

    store = ActivationStore.open(run.store_folder)
    model = model_of_run(store)
    encoders: dict[str, FeatureEncoder] = {}
    if site is not None and sae is not None:
        raise ConfigError("--site asks for neurons and --sae for features: give one of them")
    if sae is not None:
        chosen = SparseAutoencoder.load(sae)
        encoders[chosen.site] = chosen
    elif site is not None:
        encoders[site] = Neurons(site, model.site(site).width)
    else:
        for path in sorted((run.folder / "saes").glob("*/cfg.json")):
            own = SparseAutoencoder.load(path.parent)
            encoders.setdefault(own.site, own)
    if not encoders:
        raise ConfigError(f"{run.folder} has no autoencoders: name a site whose neurons are looked at, --site")
    return Opened(model, images_of(store), store.manifest.preparation, tuple(encoders.values()))


def search_run(
    opened: Opened, environment: str, target: str, *, label: str | None, split: str | None, most_images: int, method: Method, seed: int,
    progress: Progress = SILENT,
) -> ShortcutSearch:  # fmt: skip
    """Search a run's images for features whose use differs by an attribute of two values, or between two splits."""
    from circuits import find_shortcuts

    images = opened.images
    values: NDArray[Any]
    if environment == "split" and images.splits is not None:
        values = np.asarray(images.splits)
        rows = opened.labelled(np.arange(len(images)))
    else:
        column = opened.column("--environment", environment)
        rows = opened.labelled(rows_of_split(images, split))
        rows = rows[np.isfinite(column[rows])]
        values = np.array([f"{environment} {v:g}" for v in column])
    rows = spread(rows, most_images)
    return find_shortcuts(
        opened.model, list(opened.encoders), opened.prepared(rows), environments=values[rows], target=as_class(target),
        labels=opened.truth(rows, target, label), groups=opened.patients(rows),
        units_are_patients=opened.units_are_patients, method=method, seed=seed, progress=progress,
    )  # fmt: skip


def edit_run(
    opened: Opened, shortcut: str, target: str, *, label: str | None, method: EditMethod, features: Sequence[int], sensitivity: float,
    random: int, seed: int, progress: Progress = SILENT,
) -> tuple[EditedModel, EditBill]:  # fmt: skip
    """Edit a run's model on its validation images and bill the edit on its test images.

    Raises
    ------
    ConfigError
        If the images have no splits ``validation`` and ``test``, or fewer than no random edits are asked for.

    """
    from circuits import edit

    if random < 0:
        raise ConfigError(f"--random is {random}: give 0 or more")
    column = opened.column("--shortcut", shortcut)
    parts = {}
    for split in ("validation", "test"):
        known_split = split in (opened.images.splits or ())
        rows = opened.labelled(rows_of_split(opened.images, split) if known_split else np.arange(0))
        parts[split] = rows[np.isfinite(column[rows])]
        if not len(parts[split]):
            raise ConfigError(
                f"the run has no labelled image of a split '{split}': an edit is chosen on validation and billed on test"
            )

    # over what is no patient there is no interval
    draws: dict[str, Any] = {} if opened.units_are_patients else {"n_boot": 0}

    def known(rows: NDArray[np.int64]) -> dict[str, Any]:
        truth = opened.truth(rows, target, label)
        return {"shortcut": column[rows], "labels": truth, "groups": opened.patients(rows)}

    edited = edit(
        opened.model, opened.encoders[0], opened.prepared(parts["validation"]), target=as_class(target), method=method,
        features=features, sensitivity=sensitivity, seed=seed, progress=progress, **known(parts["validation"]),
    )  # fmt: skip
    table = opened.images.attributes
    bill = edited.bill(
        opened.prepared(parts["test"]), attributes=None if table is None else table.select(parts["test"]),
        leave_out=(shortcut,), n_random=random, seed=seed, progress=progress,
        units_are_patients=opened.units_are_patients, **known(parts["test"]), **draws,
    )  # fmt: skip
    return edited, bill


def write_search(search: ShortcutSearch, out: Path, caution: Sequence[str] = ()) -> dict[str, str]:
    """Write a search as JSON and as a page, with what its p-values cannot know; return the files' names."""
    # all that were found, since scores of doubt are taken from here; and some of the next, for whoever reads on
    told = search.to_json(max(_TOLD, len(search.found)))
    write_json(out / "shortcuts.json", {**told, "caution": list(caution)})
    claim = search.claim
    lines = [
        *caution,
        claim.statement,
        f"Verdict: {claim.verdict}. {' '.join(claim.reasons)}",
        *(c.detail for c in claim.controls),
    ]
    shown = Shown(
        "Use in both environments", search.figure(), "A feature whose two marks lie apart is used differently."
    )
    write_single_page(out / "shortcuts.html", "Features whose use differs", lines, [shown])
    return {name: str(out / name) for name in ("shortcuts.json", "shortcuts.html")}


def write_bill(edited: EditedModel, bill: EditBill, out: Path, caution: Sequence[str] = ()) -> dict[str, str]:
    """Write a bill, with what was tried and what intervals cannot know, as JSON and as a page; return the files' names."""
    tried = [t.to_json() for t in edited.tried]
    write_json(out / "edit.json", {**bill.to_json(), "tried": tried, "caution": list(caution)})
    claim = bill.claim
    b, a = bill.before, bill.after
    lines = [
        *caution,
        claim.statement,
        f"Verdict: {claim.verdict}. {' '.join(claim.reasons)}",
        f"Sensitivity {b.sensitivity:.1%} → {a.sensitivity:.1%}, specificity {b.specificity:.1%} → {a.specificity:.1%} at the "
        f"operating point; calibration error {b.calibration_error:.3f} → {a.calibration_error:.3f}.",
        *(c.detail for c in claim.controls),
    ]
    shown = Shown("Loss of every class with and without the shortcut", bill.figure(), "Lower is better.")
    write_single_page(out / "edit.html", f"Bill of the edit '{bill.method}'", lines, [shown])
    return {name: str(out / name) for name in ("edit.json", "edit.html")}


def unlabelled_words(n: int) -> list[str]:
    """Return what is said where so many images have no label; nothing where all have one."""
    return [f"{n} image{'s have' if n > 1 else ' has'} no label: left out, since nobody knows the truth."] if n else []


def interval_words(interval: Interval) -> str:
    """Return an interval's ends for a table, or why there are none; pages and JSON hold its warnings too."""
    ends = interval.ends
    return interval.reason if ends is None else f"{ends[0]:.3g} to {ends[1]:.3g}"


def as_class(target: str) -> str | int:
    """Return a class as it was named on the command line: by number where it is one."""
    return int(target) if target.isdigit() else target


def _name(model: VisionModel, target: str) -> str:
    from circuits.acting.decision import Decision

    return Decision.of(model, as_class(target)).name
