"""``edit``: remove what a model takes as a shortcut, with the strength that validation patients choose."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from circuits.acting.bench import Changing, EditBench, Pictures, Unchanged, linear_head, reading
from circuits.acting.decision import Decision, patients_of, true_labels
from circuits.acting.head import HeadEdit, retrained_head
from circuits.acting.scores import Scores, Truth, operating_point
from circuits.acting.site_edits import (
    OF_FEATURES,
    SITE_METHODS,
    SiteEdit,
    SiteMethod,
    SiteSample,
    at_strength,
    site_edit,
)
from mechinterp.errors import ConfigError, ImagesError, ShapeError, nearest
from mechinterp.feature_encoder import FeatureEncoder
from mechinterp.images.image_set import ImageSet
from mechinterp.interventions import intervene
from mechinterp.models.vision_model import VisionModel
from mechinterp.progress import SILENT, Progress
from mechinterp.statistics.bootstrap import groups_to_positions

if TYPE_CHECKING:
    from circuits.acting.edit_bill import EditBill
    from mechinterp.attributes.table import AttributeTable

EditMethod: TypeAlias = SiteMethod | Literal["retrain-head"]
EDIT_METHODS: tuple[EditMethod, ...] = (*SITE_METHODS, "retrain-head")
STRENGTHS = (0.25, 0.5, 0.75, 1.0)
MOST_CLEAN_LOST = 0.01


@dataclass(frozen=True)
class Tried:
    """One strength on the validation patients that choose.

    Parameters
    ----------
    strength
        0 is the model as it is.
    scores
        Of its decisions.
    allowed
        Whether the clean accuracy stays within what may be lost.

    """

    strength: float
    scores: Scores
    allowed: bool

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return {"strength": self.strength, "allowed": self.allowed, **self.scores.to_json()}


@dataclass(frozen=True, eq=False)
class EditedModel:
    """A model with an edit that can be put on and off; its weights are not touched.

    Parameters
    ----------
    model, decision
        What is edited.
    method
        How.
    site
        Where.
    encoder, chosen
        The features edited; of methods that need none, those that random controls are drawn from, and none.
    full
        The edit at full strength.
    strength
        As chosen.
    tried
        All strengths on the validation patients; the first is the model as it is.
    threshold
        Operating point: log-odds from which on an image is called positive.
    sample
        What it was fitted on.
    batch
        Images at once.

    """

    model: VisionModel
    decision: Decision
    method: EditMethod
    site: str
    encoder: FeatureEncoder
    chosen: tuple[int, ...]
    full: SiteEdit | HeadEdit
    strength: float
    tried: tuple[Tried, ...]
    threshold: float
    sample: SiteSample
    batch: int = 64

    @property
    def change(self) -> SiteEdit | HeadEdit:
        """The edit at the strength chosen."""
        return _strong(self.full, self.strength)

    @contextmanager
    def applied(self) -> Iterator[VisionModel]:
        """Edit every forward pass inside the context; undone on leaving it, after errors too."""
        change = self.change
        if not isinstance(change, HeadEdit):
            with intervene(self.model, {self.site: change.acts}):
                yield self.model
            return
        contract = self.model.contract
        x = torch.zeros(1, contract.channels, *contract.size, device=self.model.device)
        head = linear_head(self.model, x)
        if head is None:  # pragma: no cover  refused when the edit was made
            raise ConfigError("the model ends in no linear layer")
        with reading(head) as seen:
            handle = head.register_forward_hook(lambda _m, _args, out: change.logits(out, seen()))
            try:
                yield self.model
            finally:
                handle.remove()

    def logits(self, x: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch output"]:
        """Return the edited model's logits."""
        with self.applied() as model:
            return model.logits(x)

    def bill(
        self,
        images: Pictures,
        *,
        shortcut: Sequence[Any] | NDArray[Any],
        labels: Sequence[Any] | NDArray[Any] | None = None,
        groups: Sequence[Any] | NDArray[Any] | None = None,
        units_are_patients: bool | None = None,
        attributes: AttributeTable | None = None,
        leave_out: Sequence[str] = (),
        n_random: int = 20,
        n_boot: int = 500,
        seed: int = 0,
        progress: Progress = SILENT,
    ) -> EditBill:
        """Return what the edit won and cost on test images; see :func:`circuits.acting.edit_bill.measure_bill`."""
        from circuits.acting.edit_bill import measure_bill

        return measure_bill(
            self, images, shortcut=shortcut, labels=labels, groups=groups, units_are_patients=units_are_patients,
            attributes=attributes, leave_out=leave_out, n_random=n_random, n_boot=n_boot, seed=seed, progress=progress,
        )  # fmt: skip


def edit(
    model: VisionModel,
    encoder: FeatureEncoder,
    images: Pictures,
    *,
    target: str | int,
    shortcut: Sequence[Any] | NDArray[Any],
    method: EditMethod = "ablate",
    features: Sequence[int] = (),
    labels: Sequence[Any] | NDArray[Any] | None = None,
    groups: Sequence[Any] | NDArray[Any] | None = None,
    strengths: Sequence[float] = STRENGTHS,
    most_clean_lost: float = MOST_CLEAN_LOST,
    sensitivity: float = 0.9,
    threshold: float | None = None,
    batch: int = 64,
    seed: int = 0,
    progress: Progress = SILENT,
) -> EditedModel:
    """Edit a model so that a shortcut no longer speaks.

    Half of the validation patients fit the edit, the other half choose its strength: the one with the least worst-group
    loss among those that cost at most `most_clean_lost` of the accuracy on images without the shortcut. Where none is
    better than doing nothing, the strength is 0.

    Parameters
    ----------
    model
        The model.
    encoder
        Features of the site that is edited: SAE, neurons, directions. Methods that change no features use its site only.
    images
        Validation images, none of which the model was trained on.
    target
        The class that the decision is about.
    shortcut
        Whether each image has the shortcut. Pairs of one image without and with it serve best.
    method
        ``ablate``, ``clamp``, ``project`` (of `features`), ``leace``, ``p-clarc``, ``retrain-head``.
    features
        Which features; the first ones of :func:`find_shortcuts`, say.
    labels, groups
        Class and patient of each image; an ``ImageSet`` has its own.
    strengths
        What is tried.
    most_clean_lost
        Share of clean accuracy that may be lost.
    sensitivity, threshold
        The operating point: the threshold at which the model as it is reaches this sensitivity, or the log-odds themselves.
    batch
        Images at once.
    seed
        Which patients fit and which choose.
    progress
        Told of every batch.

    Raises
    ------
    ConfigError
        If there is no such method, a feature does not exist, or a strength or share cannot be meant.
    ImagesError
        If an image group (class with or without the shortcut) is empty in either half, or there are too few patients.

    Examples
    --------
    >>> edited = edit(model, sae, validation, target="referable", shortcut=tag, features=[17])  # doctest: +SKIP
    >>> edited.bill(test, shortcut=test_tag).figure().show()  # doctest: +SKIP

    """
    if method not in EDIT_METHODS:
        raise ConfigError(f"there is no edit '{method}': {nearest(str(method), EDIT_METHODS)}")
    if not strengths or min(strengths) <= 0 or max(strengths) > 1:
        raise ConfigError(f"strengths are {tuple(strengths)}: give numbers above 0, at most 1")
    if not 0 <= most_clean_lost <= 1:
        raise ConfigError(f"most_clean_lost is {most_clean_lost:g}: it is a share, 0 to 1")
    decision = Decision.of(model, target)
    truth = true_labels(images, decision, labels)
    has = as_shortcut(shortcut, len(images))
    patients = patients_of(images, groups)
    fitting, choosing = halves(patients, seed)
    bench = EditBench(model, encoder.site, batch)
    sample = SiteSample.of(bench, _subset(images, fitting), has[fitting], truth[fitting], progress)
    full: SiteEdit | HeadEdit
    if method == "retrain-head":
        (plain,) = bench.run(_subset(images, fitting), [Unchanged()], progress, "what the head reads")
        if not bench.has_linear_head:
            raise ConfigError(
                f"'{model.spec}' ends in no linear layer: edit a site instead ({', '.join(SITE_METHODS)})"
            )
        full = retrained_head(plain.head, truth[fitting], has[fitting], decision)
    else:
        full = site_edit(method, sample, encoder, features)
    ordered = sorted({float(s) for s in strengths})
    changes: list[Changing] = [Unchanged(), *(_strong(full, s) for s in ordered)]
    answers = bench.run(_subset(images, choosing), changes, progress, "strengths")
    said = [decision.log_odds(a.logits).numpy() for a in answers]
    point = operating_point(said[0], truth[choosing], sensitivity) if threshold is None else float(threshold)
    known = Truth(truth[choosing], has[choosing], patients[choosing], point, decision.name)
    tried = _tried([0.0, *ordered], [known.score(s) for s in said], most_clean_lost)
    best = min((t for t in tried if t.allowed), key=lambda t: t.scores.worst.loss)
    return EditedModel(
        model, decision, method, encoder.site, encoder,
        tuple(int(f) for f in features) if method in OF_FEATURES else (),
        full, best.strength, tried, point, sample, batch,
    )  # fmt: skip


def as_shortcut(shortcut: Sequence[Any] | NDArray[Any], images: int) -> Bool[NDArray[np.bool_], " image"]:
    """Return whether each image has the shortcut, from true and false or 1 and 0.

    Raises
    ------
    ShapeError
        If there is not one for each image.
    ConfigError
        If it is neither.

    """
    given = np.asarray(shortcut)
    if given.shape != (images,):
        raise ShapeError(f"shortcut has shape {given.shape} for {images} images: give one each")
    if given.dtype.kind not in "biuf" or not np.isin(given, (0, 1)).all():
        raise ConfigError(
            "shortcut holds other values than true and false: say of each image whether it has the shortcut"
        )
    return given.astype(bool)


def halves(patients: NDArray[Any], seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the images of two halves of the patients.

    Raises
    ------
    ImagesError
        If there are fewer than 4 patients.

    """
    names, members = groups_to_positions(patients)
    if len(names) < 4:
        raise ImagesError(f"{len(names)} patient(s) to fit and choose an edit on: give at least 4")
    order = np.random.default_rng([seed, 5]).permutation(len(names))
    first, second = np.sort(order[: len(order) // 2]), np.sort(order[len(order) // 2 :])
    return np.sort(np.concatenate([members[k] for k in first])), np.sort(np.concatenate([members[k] for k in second]))


def _subset(images: Pictures, rows: NDArray[np.int64]) -> Pictures:
    return images.subset(rows.tolist()) if isinstance(images, ImageSet) else images[torch.from_numpy(rows)]


def _strong(full: SiteEdit | HeadEdit, strength: float) -> SiteEdit | HeadEdit:
    return full.at_strength(strength) if isinstance(full, HeadEdit) else at_strength(full, strength)


def _tried(strengths: Sequence[float], scores: Sequence[Scores], most_lost: float) -> tuple[Tried, ...]:
    least = scores[0].clean_accuracy - most_lost - 1e-12
    return tuple(
        Tried(strength, score, score.clean_accuracy >= least) for strength, score in zip(strengths, scores, strict=True)
    )
