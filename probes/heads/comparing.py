"""All heads on the same features, fitted to some patients and scored on others, beside the opaque classifier."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from mechinterp.errors import ConfigError, LeakageError
from mechinterp.progress import SILENT, Progress
from mechinterp.statistics.bootstrap import Interval, bootstrap_groups
from mechinterp.statistics.separation_intervals import auroc_interval
from probes.heads.bottleneck import ConceptBottleneck, fit_bottleneck
from probes.heads.data import HeadData
from probes.heads.intervention_curve import InterventionCurve, intervention_curve
from probes.heads.leakage import Leakage, concept_leakage
from probes.heads.nadaraya_watson import fit_nadaraya_watson
from probes.heads.opaque import fitted_logistic
from probes.heads.prototypes import fit_prototypes
from probes.heads.terms import Explanation, Head
from probes.scores import auroc, r_squared

Values = NDArray[np.float64]
HeadKind = Literal["bottleneck", "additive", "prototype", "kernel"]
KINDS: tuple[HeadKind, ...] = get_args(HeadKind)
OPAQUE = "logistic regression on all features"
NAMES: dict[HeadKind, str] = {
    "bottleneck": "concept bottleneck", "additive": "additive model of concepts", "prototype": "prototypes",
    "kernel": "Nadaraya–Watson",
}  # fmt: skip


@dataclass(frozen=True)
class HeadScore:
    """One head on held-out patients.

    Parameters
    ----------
    name
        Of the head.
    auroc, interval
        And its 95 % interval over patients.
    bits
        Mean log-loss, in bits.
    brier
        Mean squared error of the probability.
    price, price_interval
        AUROC of the opaque classifier minus this one's: what the interpretable form costs.
    rounding
        Largest difference between an answer and the sum of its terms.

    """

    name: str
    auroc: float
    interval: Interval
    bits: float
    brier: float
    price: float
    price_interval: Interval
    rounding: float


@dataclass(frozen=True)
class HeadComparison:
    """See :func:`compare_heads`.

    Parameters
    ----------
    scores
        The opaque classifier first.
    heads
        The fitted heads by kind.
    concept_r2
        How well each concept is read off the features of held-out patients: R².
    curve, leakage
        Of the bottleneck.
    patients
        How many trained and how many were held out.

    """

    scores: tuple[HeadScore, ...]
    heads: dict[HeadKind, Head]
    concept_r2: dict[str, float]
    curve: InterventionCurve | None
    leakage: Leakage | None
    patients: tuple[int, int]

    def explain(self, x: Float[Values, " width"]) -> dict[HeadKind, Explanation]:
        """Take every head's answer for one image apart."""
        return {kind: head.explain(x) for kind, head in self.heads.items()}

    def sentences(self) -> list[str]:
        """Say what was found, in words."""
        opaque, *others = self.scores
        lines = [
            f"{self.patients[0]} patients trained, {self.patients[1]} others are scored. The opaque classifier reaches AUROC "
            f"{opaque.auroc:.3f} ({opaque.interval.text})."
        ]
        for score in others:
            sure = score.price_interval.ends
            seen = "not estimable" if not sure else "seen" if sure[0] > 0 or sure[1] < 0 else "none seen"
            lines.append(
                f"{score.name[0].upper()}{score.name[1:]}: AUROC {score.auroc:.3f} ({score.interval.text}); the opaque one's "
                f"minus this is {score.price:+.3f} ({score.price_interval.text}): difference {seen}."
            )
        if self.curve is not None:
            lines.append(
                f"With every concept put right the bottleneck's accuracy goes from {self.curve.accuracy[0]:.3f} to "
                f"{self.curve.accuracy[-1]:.3f}, its AUROC from {self.curve.auroc[0]:.3f} to {self.curve.auroc[-1]:.3f}"
                + (
                    ": it takes the true values for something else than those it learned from, so correcting it does not help."
                    if self.curve.accuracy[-1] < self.curve.accuracy[0]
                    else "."
                )
            )
        if self.leakage is not None:
            lines.append(f"Leakage: {self.leakage.text}.")
        unread = [name for name, r2 in self.concept_r2.items() if r2 < 0.3]
        if unread:
            lines.append(
                f"Hardly read off the features (R² below 0.3): {', '.join(unread)}. A term of such a concept says little about it."
            )
        return lines

    def to_json(self) -> dict[str, Any]:
        """Return all numbers as plain JSON."""
        return {
            "patients": {"training": self.patients[0], "held_out": self.patients[1]},
            "heads": [
                {**asdict(s), "interval": s.interval.to_json(), "price_interval": s.price_interval.to_json()}
                for s in self.scores
            ],
            "concept_r2": self.concept_r2,
            "intervention_curve": None if self.curve is None else asdict(self.curve),
            "leakage": None if self.leakage is None
            else {**asdict(self.leakage), "interval": self.leakage.interval.to_json(), "text": self.leakage.text},
            "sentences": self.sentences(),
        }  # fmt: skip


def compare_heads(
    train: HeadData,
    held_out: HeadData,
    *,
    kinds: tuple[HeadKind, ...] = KINDS,
    per_class: int = 5,
    units_are_patients: bool = True,
    seed: int = 0,
    progress: Progress = SILENT,
) -> HeadComparison:
    """Fit every head to the same patients and score it on others.

    Parameters
    ----------
    train, held_out
        Different patients.
    kinds
        Which heads.
    per_class
        Prototypes of each class.
    units_are_patients
        False where the groups are parts of one subject: then no interval is given.
    seed
        Of k-means, random orders, shuffled concepts and draws.
    progress
        Sees one step per head.

    Raises
    ------
    LeakageError
        If a patient stands on both sides.
    ConfigError
        If a kind is unknown or there are too few patients.

    """
    for kind in kinds:
        if kind not in KINDS:
            raise ConfigError(f"'{kind}' is no head: it must be one of {', '.join(KINDS)}")
    if set(train.groups.tolist()) & set(held_out.groups.tolist()):
        raise LeakageError("a patient is among those that train and those held out: split whole patients")
    opaque: Values = fitted_logistic(train.x, train).decision_function(held_out.x)
    scores = [_score(OPAQUE, opaque, opaque, held_out, 0.0, units_are_patients)]
    heads: dict[HeadKind, Head] = {}
    for kind in progress.track(kinds, "fitting heads", total=len(kinds)):
        heads[kind] = _fit(kind, train, per_class, seed)
        answers = heads[kind].outputs(held_out.x)
        rounding = max(abs(e.total - e.output) for e in (heads[kind].explain(x) for x in held_out.x))
        odds = answers if heads[kind].scale == "log-odds" else _to_log_odds(answers)
        scores.append(_score(NAMES[kind], odds, opaque, held_out, rounding, units_are_patients))
    bottleneck = heads.get("bottleneck")
    concept_r2: dict[str, float] = {}
    curve = leakage = None
    if isinstance(bottleneck, ConceptBottleneck):
        r2 = r_squared(held_out.concepts, bottleneck.concepts(held_out.x), train.concepts.mean(0))
        concept_r2 = {name: float(v) for name, v in zip(train.names, r2, strict=True)}
        curve = intervention_curve(bottleneck, train, held_out, seed=seed)
        leakage = concept_leakage(train, held_out, units_are_patients=units_are_patients, seed=seed)
    counts = (len(set(train.groups.tolist())), len(set(held_out.groups.tolist())))
    return HeadComparison(tuple(scores), heads, concept_r2, curve, leakage, counts)


def _fit(kind: HeadKind, train: HeadData, per_class: int, seed: int) -> Head:
    match kind:
        case "bottleneck":
            return fit_bottleneck(train)
        case "additive":
            return fit_bottleneck(train, shape="spline")
        case "prototype":
            return fit_prototypes(train, per_class=per_class, seed=seed)
        case "kernel":
            return fit_nadaraya_watson(train, seed=seed)


def _to_log_odds(p: Float[Values, " image"]) -> Float[Values, " image"]:
    from scipy.special import logit

    odds: Values = logit(np.clip(p, 1e-6, 1 - 1e-6))
    return odds


def _score(
    name: str,
    odds: Float[Values, " image"],
    opaque: Float[Values, " image"],
    held_out: HeadData,
    rounding: float,
    units_are_patients: bool,
) -> HeadScore:
    from scipy.special import expit, log_expit

    truth = held_out.y.astype(np.float64)

    def area(answers: Float[Values, " image"], images: NDArray[np.int64]) -> float:
        return float(auroc(truth[images, None], answers[images, None])[0])

    def price(images: NDArray[np.int64]) -> float:
        return area(opaque, images) - area(odds, images)

    everyone = np.arange(len(truth))
    return HeadScore(
        name,
        area(odds, everyone),
        auroc_interval(odds, truth, held_out.groups, units_are_patients=units_are_patients),
        float(-log_expit(np.where(truth == 1, odds, -odds)).mean() / np.log(2)),
        float(((expit(odds) - truth) ** 2).mean()),
        price(everyone),
        bootstrap_groups(price, held_out.groups, 1000, 0, method="bca", units_are_patients=units_are_patients),
        rounding,
    )
