"""Heads that are interpretable by construction, fitted to one site of a store: from the images' table to the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from experiments.analysis.store_cautions import cautions_of
from experiments.dashboard.markup import Element
from experiments.dashboard.single_page import Shown, write_single_page
from mechinterp.attributes.table import AttributeTable
from mechinterp.errors import AttributeTableError, ConfigError, nearest
from mechinterp.picture_figures import picture_url
from probes.heads import (
    ConceptBottleneck,
    HeadComparison,
    HeadData,
    PrototypeHead,
    comparison_figure,
    explanation_figure,
    intervention_figure,
    shapes_figure,
)
from probes.heads.comparing import NAMES
from probes.pooling import patients_of, pooled_activations
from probes.scores import auroc

if TYPE_CHECKING:
    from mechinterp.images.image_set import ImageSet
    from mechinterp.store.reader import ActivationStore

_FEWEST_IMAGES = 40
_THUMBNAIL_PX = 128


@dataclass(frozen=True)
class HeadRun:
    """The images that can be used, parted by patient.

    Parameters
    ----------
    train, held_out
        Their features, concepts and labels.
    held_out_images, train_images
        Positions of theirs in the store.
    label, classes
        What is told apart, and what 0 and 1 stand for.
    notes
        What was left out, and how the patients were parted.
    units_are_patients
        False where the groups are parts of one subject.

    """

    train: HeadData
    held_out: HeadData
    train_images: NDArray[np.int64]
    held_out_images: NDArray[np.int64]
    label: str
    classes: tuple[str, str]
    notes: tuple[str, ...]
    units_are_patients: bool


def head_run(
    store: ActivationStore,
    images: ImageSet,
    site: str,
    *,
    label: str | None = None,
    concepts: Sequence[str] = (),
    held_out: float = 0.4,
    seed: int = 0,
) -> HeadRun:
    """Bring features, concepts and label of a store's images together, and part its patients.

    Parameters
    ----------
    store, images
        The store, and its images with their attributes.
    site
        Whose activations are pooled (mean over the tokens).
    label
        A binary attribute, or ``None`` for the images' class labels.
    concepts
        Names of attributes; all but the label that nothing is missing of, without any.
    held_out
        Share of the patients that is scored.
    seed
        Which patients.

    Raises
    ------
    AttributeTableError
        If there is no such attribute, or no concept is left.
    ConfigError
        If the label has not two classes, or too few images can be used.

    """
    if not 0.1 <= held_out <= 0.9:
        raise ConfigError(f"--held-out is {held_out}: it must be between 0.1 and 0.9")
    y, classes, named = _labels(store, images, label)
    table = images.attributes
    for name in concepts:
        if name not in table.names:
            raise AttributeTableError(f"no attribute '{name}': {nearest(name, table.names)}")
    missing = [np.isnan(table.column(name)) for name in concepts]
    kept = np.flatnonzero(~np.logical_or.reduce([y < 0, *missing]))
    if len(kept) < _FEWEST_IMAGES:
        raise ConfigError(f"{len(kept)} images have a label and every concept: at least {_FEWEST_IMAGES} are needed")
    groups, are_patients = patients_of(store)
    if groups is None:
        raise ConfigError(
            "the images name no patients: give metadata.csv a column `group`, so that no patient is on both sides"
        )
    patients = np.array(sorted(set(groups[kept].tolist())), dtype=object)
    chosen = np.random.default_rng(seed).permutation(len(patients))[: max(1, round(held_out * len(patients)))]
    is_held = np.isin(groups[kept].astype(str), patients[chosen].astype(str))
    names, notes = (tuple(concepts), []) if concepts else _concepts(table, named, y, kept[~is_held])
    if len(kept) < len(y):
        notes.append(f"{len(y) - len(kept)} images without a label or a concept's value are left out")
    values = np.stack([table.column(name)[kept] for name in names], axis=1)
    x = pooled_activations(store, site, images=kept).astype(np.float64)
    ids = tuple(str(i) for i in store.images["id"].to_numpy()[kept])
    data = HeadData(x, values, names, tuple(table[name].unit for name in names), y[kept], groups[kept], ids)
    notes.append(f"{len(chosen)} of {len(patients)} patients, drawn by seed {seed}, are held out")
    notes += [said.removesuffix(".") for said in cautions_of(store)]
    return HeadRun(
        data.take(np.flatnonzero(~is_held)), data.take(np.flatnonzero(is_held)), kept[~is_held], kept[is_held], named, classes,
        tuple(notes), are_patients,
    )  # fmt: skip


def _labels(
    store: ActivationStore, images: ImageSet, label: str | None
) -> tuple[NDArray[np.int64], tuple[str, str], str]:
    if label is None:
        words = [str(w) if w is not None and w == w else "" for w in store.images["label"].to_numpy(dtype=object)]
        classes = sorted(set(words) - {""})
        if len(classes) != 2:
            raise ConfigError(
                f"the images have {len(classes)} classes ({', '.join(classes[:5]) or 'none'}): name a binary attribute with --label"
            )
        # the class that negates the other is 0: "not referable" sorts before "referable", "abnormal" before "normal"
        return np.array([classes.index(w) if w else -1 for w in words]), (classes[0], classes[1]), "label"
    column = images.attributes.column(label)
    values = set(np.unique(column[~np.isnan(column)]).tolist())
    if values != {0.0, 1.0}:
        raise ConfigError(f"attribute '{label}' is not binary: it has {len(values)} values, and a head needs 0 and 1")
    return np.where(np.isnan(column), -1, column).astype(np.int64), (f"not {label}", label), label


def _concepts(
    table: AttributeTable, label: str, y: NDArray[np.int64], train: NDArray[np.int64]
) -> tuple[tuple[str, ...], list[str]]:
    """Return the attributes that serve as concepts, and what was left out; the label in disguise is told by training patients."""
    chosen: list[str] = []
    missing: list[str] = []
    telling: list[str] = []
    for attribute in table:
        values = table.column(attribute.name)
        if attribute.name == label or attribute.kind == "categorical" or np.nanstd(values) == 0:
            continue
        if np.isnan(values).any():
            missing.append(attribute.name)
        elif _tells(values[train], y[train]):
            telling.append(attribute.name)
        else:
            chosen.append(attribute.name)
    notes = []
    if telling:
        notes.append(
            f"{', '.join(telling)} alone would tell the classes of training patients apart without an error: left out, as the "
            "label in disguise"
        )
    if missing:
        notes.append(f"not every image has {', '.join(missing)}: left out, name them by --concepts to use them")
    if not chosen:
        raise AttributeTableError("no attribute can serve as a concept: name some by --concepts")
    return tuple(chosen), notes


def _tells(values: NDArray[np.float64], y: NDArray[np.int64]) -> bool:
    """Return whether a threshold on an attribute gives the label exactly."""
    return bool(auroc(y[:, None].astype(np.float64), values[:, None])[0] in {0.0, 1.0})


def write_head_page(
    run: HeadRun, found: HeadComparison, images: ImageSet, site: str, path: Path, *, trained: bool
) -> Path:
    """Write the page: scores, what corrections win, curves of concepts, and two answers taken apart."""
    lines = [
        f"Class 1 is “{run.classes[1]}”. Each head sees the activations at {site}, pooled over the image, and nothing else.",
        *(f"{note}." for note in run.notes),
        *found.sentences(),
        "Every answer below is the sum of what is drawn: rounding differs by at most "
        f"{max(s.rounding for s in found.scores):.0e}.",
    ]
    if not trained:
        lines.insert(0, "Untrained model (random weights): no claim about it is met.")
    shown = [
        Shown(
            "Heads on held-out patients",
            comparison_figure(found),
            "Further right is better; the line is the opaque classifier.",
        )
    ]
    if found.curve is not None:
        shown.append(
            Shown(
                "What correcting concepts wins", intervention_figure(found.curve),
                f"True values put in place of those read, in this order: {', '.join(found.curve.order)}.",
            )
        )  # fmt: skip
    additive = found.heads.get("additive")
    if isinstance(additive, ConceptBottleneck):
        shown.append(
            Shown(
                "What each concept adds",
                shapes_figure(additive, run.train),
                "Between the 1st and 99th centile of training patients.",
            )
        )
    for title, i in _examples(run, found):
        for kind, explained in found.explain(run.held_out.x[i]).items():
            truth = run.classes[int(run.held_out.y[i])]
            shown.append(
                Shown(
                    f"{title}: {NAMES[kind]}",
                    explanation_figure(explained),
                    f"Image {run.held_out.ids[i]}, truly “{truth}”.",
                )
            )
    after = []
    prototypes = found.heads.get("prototype")
    if isinstance(prototypes, PrototypeHead):
        after = _prototypes(prototypes, run, images)
    return write_single_page(path, f"Interpretable heads at {site}", lines, shown, after=after)


def _examples(run: HeadRun, found: HeadComparison) -> list[tuple[str, int]]:
    """Return a held-out image that the first head gets right most surely, and the one that it gets most wrong."""
    first = next(iter(found.heads.values()))
    answers = first.outputs(run.held_out.x) - (0.5 if first.scale == "probability" else 0.0)
    margin = np.where(run.held_out.y == 1, answers, -answers)
    chosen = [("A sure and right answer", int(margin.argmax()))]
    if margin.min() < 0:
        chosen.append(("The most wrong answer", int(margin.argmin())))
    return chosen


def _prototypes(head: PrototypeHead, run: HeadRun, images: ImageSet) -> list[Element]:
    """Show the training images that stand for each class."""
    cards = []
    for position, name, label, weight in zip(head.images, head.ids, head.classes, head.weights, strict=True):
        pixels = images[int(run.train_images[position])].scaled()
        step = max(1, max(pixels.shape[:2]) // _THUMBNAIL_PX)
        said = f"{name}: {run.classes[label]}; likeness to it adds {weight:+.2f} a unit"
        picture = Element("img", {"src": picture_url(pixels[::step, ::step]), "alt": said, "width": str(_THUMBNAIL_PX)})
        cards.append(
            Element(
                "figure",
                {"style": f"margin:0;width:{_THUMBNAIL_PX + 30}px"},
                (picture, Element("figcaption", {}, (said,))),
            )
        )
    style = "display:flex;flex-wrap:wrap;gap:16px;font-size:13px"
    return [
        Element("h2", {}, ("Prototypes: training images that stand for a class",)),
        Element("div", {"style": style}, tuple(cards)),
    ]
