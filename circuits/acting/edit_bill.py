"""The bill of an edit: what it won and what it cost on test images, beside random edits that change as much."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from circuits.acting.bench import Answers, Changing, EditBench, Pictures, Unchanged
from circuits.acting.collateral import LOST, Collateral, measure_collateral
from circuits.acting.decision import patients_of, true_labels
from circuits.acting.editing import MOST_CLEAN_LOST, EditedModel, as_shortcut
from circuits.acting.head import HeadEdit
from circuits.acting.scores import Scores, Truth, losses
from circuits.acting.site_edits import norm_of, random_direction_edits, random_feature_edits
from mechinterp.claims import Claim, Control
from mechinterp.images.image_set import ImageSet
from mechinterp.progress import SILENT, Progress
from mechinterp.statistics.bootstrap import Interval, bootstrap_groups

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from mechinterp.attributes.table import AttributeTable

WON_BACK = 0.5
AS_GOOD = 0.05
"""At most this share of random edits may win back as much."""
FEWEST_RANDOM = 20
"""Of fewer random edits a single one is more than that share, so that none doing as well shows nothing."""
READ_AFTER_RANDOM = 5
"""Of so many random edits of either kind the probes are run too: each is a probe for every attribute."""


@dataclass(frozen=True, eq=False)
class EditBill:
    """What an edit did on test images.

    Parameters
    ----------
    method, strength, features
        The edit.
    target
        The class decided on.
    threshold
        Operating point in log-odds, fixed before the edit.
    images, patients
        How many were tested; no patients where nobody said whose images these are, or all are of one subject.
    before, after
        Scores of the model as it is and edited.
    random_features, random_directions
        Scores after random edits of the same norm, at the same site; empty for a retrained head. Of fewer than 20 of either
        kind none can carry the claim: it is *inconclusive* then.
    norm
        Root mean square over images of what the edit changes of the activation.
    collateral
        Every other attribute.
    intervals
        Of changes (after minus before), over patients: ``worst_loss``, ``clean_loss``, ``clean_accuracy``,
        ``sensitivity``, ``specificity``.
    trained
        Whether the model is.

    """

    method: str
    strength: float
    features: tuple[int, ...]
    target: str
    threshold: float
    images: int
    patients: int | None
    before: Scores
    after: Scores
    random_features: tuple[Scores, ...]
    random_directions: tuple[Scores, ...]
    norm: float
    collateral: tuple[Collateral, ...]
    intervals: dict[str, Interval]
    trained: bool = True

    @property
    def won_back(self) -> float:
        """Share of the worst group's loss that the edit takes away; the worst group may be another one afterwards."""
        return self.won_back_by(self.after)

    def won_back_by(self, scores: Scores) -> float:
        """Return the same share for other scores."""
        before = self.before.worst.loss
        return (before - scores.worst.loss) / before if before > 0 else 0.0

    @property
    def clean_lost(self) -> float:
        """Fall of the accuracy on images without the shortcut."""
        return self.before.clean_accuracy - self.after.clean_accuracy

    @property
    def lost(self) -> tuple[Collateral, ...]:
        """Attributes that can be read clearly worse."""
        return tuple(c for c in self.collateral if c.lost)

    @cached_property
    def claim(self) -> Claim:
        """That the edit wins back half of the worst group's loss at a point of clean accuracy."""
        worst = self.intervals.get("worst_loss", Interval.not_estimable(0))
        controls = [
            self._control(f"{len(scores)} {name} of the same norm", scores)
            for name, scores in (("random features' edits", self.random_features), ("random directions", self.random_directions))
            if self.norm > 0
        ]  # fmt: skip
        names = ", ".join(c.attribute for c in self.lost)
        controls.append(
            Control(
                "other attributes",
                float(len(self.lost)),
                not self.lost,
                f"{len(self.lost)} of {len(self.collateral)} attributes can be read worse by more than {LOST:g}"
                + (f": {names}" if names else ""),
            )
        )
        before = self.before.worst.loss
        return Claim(
            statement=(
                f"the edit '{self.method}' wins back {self.won_back:.0%} of the worst group's loss "
                f"({before:.2f} → {self.after.worst.loss:.2f} nats); accuracy without the shortcut "
                f"{self.before.clean_accuracy:.1%} → {self.after.clean_accuracy:.1%}"
            ),
            strength="interventional",
            value=self.won_back,
            unit="1",
            holds=self.won_back >= WON_BACK and self.clean_lost <= MOST_CLEAN_LOST,
            criterion=(
                f"at least {WON_BACK:.0%} of the worst group's loss for at most {MOST_CLEAN_LOST:.0%} of the clean accuracy"
            ),
            controls=tuple(controls),
            interval=None if worst.ends is None or before <= 0 else (-worst.ends[1] / before, -worst.ends[0] / before),
            interval_note=worst.reason or worst.warning,
            trained=self.trained,
        )

    def _control(self, name: str, scores: Sequence[Scores]) -> Control:
        few = f"not testable: fewer than {FEWEST_RANDOM} cannot show that at most {AS_GOOD:.0%} do as well; draw {FEWEST_RANDOM} or more"
        if not scores:
            return Control(name, None, None, few)
        won = [self.won_back_by(s) for s in scores]
        as_good = sum(w >= self.won_back for w in won)
        enough = len(won) >= FEWEST_RANDOM or as_good > 0
        return Control(
            name, float(np.median(won)), as_good <= AS_GOOD * len(won) if enough else None,
            f"they win back {np.median(won):.0%} (median), {max(won):.0%} at most; {as_good} of {len(won)} do as well"
            + ("" if enough else f"; {few}"),
        )  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """Return the bill as plain JSON."""
        return {
            "method": self.method,
            "strength": self.strength,
            "features": list(self.features),
            "target": self.target,
            "threshold": self.threshold,
            "images": self.images,
            "patients": self.patients,
            "norm": self.norm,
            "won_back": self.won_back,
            "clean_lost": self.clean_lost,
            "before": self.before.to_json(),
            "after": self.after.to_json(),
            "random_features": [s.to_json() for s in self.random_features],
            "random_directions": [s.to_json() for s in self.random_directions],
            "collateral": [c.to_json() for c in self.collateral],
            "intervals": {name: i.to_json() for name, i in self.intervals.items()},
            "claim": self.claim.to_json(),
        }

    def figure(self) -> go.Figure:
        """Draw loss and accuracy of every group, before and after."""
        from circuits.acting.figures import bill_figure

        return bill_figure(self)


def measure_bill(
    edited: EditedModel,
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
    """Measure an edit on test images.

    Parameters
    ----------
    edited
        From :func:`circuits.acting.editing.edit`.
    images
        Test images, that took no part in training, fitting or choosing.
    shortcut, labels, groups
        As for :func:`circuits.acting.editing.edit`.
    units_are_patients
        Whether those groups are patients; an ``ImageSet`` knows it, and of prepared images it is believed.
    attributes
        Of the images; an ``ImageSet`` has its own.
    leave_out
        Attributes that are the shortcut itself.
    n_random
        Random edits of either kind; with fewer than 20 the claim stays *inconclusive*.
    n_boot, seed
        Of intervals (none at 0 draws), random edits and folds.
    progress
        Told of every batch.

    """
    truth = true_labels(images, edited.decision, labels)
    known = Truth(
        truth, as_shortcut(shortcut, len(images)), patients_of(images, groups), edited.threshold, edited.decision.name
    )
    change = edited.change
    features: list[Changing] = []
    directions: list[Changing] = []
    norm = 0.0
    if not isinstance(change, HeadEdit):
        norm = norm_of(change, edited.sample.acts)
        size = max(len(edited.chosen), 1)
        if norm > 0:
            features = [*random_feature_edits(edited.encoder, edited.sample, size, norm, n=n_random, seed=seed)]
            directions = [*random_direction_edits(edited.sample, size, norm, n=n_random, seed=seed)]
    bench = EditBench(edited.model, edited.site, edited.batch)
    answers = bench.run(images, [Unchanged(), change, *features, *directions], progress, "the bill")
    said = [edited.decision.log_odds(a.logits).double().numpy() for a in answers]
    scores = [known.score(s) for s in said]
    table = attributes if attributes is not None else images.attributes if isinstance(images, ImageSet) else None
    collateral: tuple[Collateral, ...] = ()
    patients = units_are_patients
    if patients is None:
        patients = not isinstance(images, ImageSet) or images.units_are_patients
    named = groups is not None or (isinstance(images, ImageSet) and images.groups is not None)
    if table is not None:
        read = _read(answers, len(features), len(directions))
        collateral = measure_collateral(
            read, table, known.groups, leave_out=tuple(leave_out), units_are_patients=patients, n_boot=n_boot, seed=seed
        )
    return EditBill(
        edited.method, edited.strength, edited.chosen, edited.decision.name, edited.threshold, len(truth),
        len(set(known.groups.tolist())) if patients and named else None, scores[0], scores[1], tuple(scores[2 : 2 + len(features)]),
        tuple(scores[2 + len(features) :]), norm, collateral,
        _intervals(known, said[0], said[1], n_boot, seed, units_are_patients=patients), edited.model.trained,
    )  # fmt: skip


def _read(answers: list[Answers], features: int, directions: int) -> list[Float[NDArray[np.float32], "image width"]]:
    some = [*range(2, 2 + min(features, READ_AFTER_RANDOM))]
    some += [*range(2 + features, 2 + features + min(directions, READ_AFTER_RANDOM))]
    return [answers[0].head, answers[1].head, *(answers[k].head for k in some)]


def _intervals(
    truth: Truth,
    before: Float[NDArray[np.float64], " image"],
    after: Float[NDArray[np.float64], " image"],
    n_boot: int,
    seed: int,
    *,
    units_are_patients: bool,
) -> dict[str, Interval]:
    if not n_boot:
        return {}
    loss = [losses(s, truth.labels) for s in (before, after)]
    right = [(s > 0) == truth.labels for s in (before, after)]
    positive = [s >= truth.threshold for s in (before, after)]
    cells = list(truth.cells.values())
    member = np.full(len(before), -1)
    for k, rows in enumerate(cells):
        member[rows] = k

    def worst(images: NDArray[np.int64]) -> float:
        of = member[images]
        counts = np.maximum(np.bincount(of, minlength=len(cells)), 1)
        tops = [float((np.bincount(of, weights=v[images], minlength=len(cells)) / counts).max()) for v in loss]
        return tops[1] - tops[0]

    def among(chosen: NDArray[np.bool_], pair: list[NDArray[Any]]) -> Callable[[NDArray[np.int64]], float]:
        change = pair[1].astype(np.float64) - pair[0]

        def mean(images: NDArray[np.int64]) -> float:
            kept = images[chosen[images]]
            return float(change[kept].mean()) if len(kept) else float("nan")

        return mean

    statistics: dict[str, Callable[[NDArray[np.int64]], float]] = {
        "worst_loss": worst,
        "clean_loss": among(~truth.shortcut, loss),
        "clean_accuracy": among(~truth.shortcut, right),
        "sensitivity": among(truth.labels, positive),
        "specificity": among(~truth.labels, [~p for p in positive]),
    }
    return {
        name: bootstrap_groups(
            s, truth.groups, n_boot, seed, method="percentile", units_are_patients=units_are_patients
        )
        for name, s in statistics.items()
    }
