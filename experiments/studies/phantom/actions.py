"""Actionability: whether handing the least sure images to a person lowers the error, beside handing over any."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray

from experiments.report import ElementEvidence, PlannedTest
from experiments.studies.phantom.bench import StudyBench
from experiments.studies.phantom.patients import StudyPatients
from mechinterp.claims import Bound, Claim, Control
from mechinterp.statistics.bootstrap import bootstrap_groups
from mechinterp.store.reader import ActivationStore

ELEMENT = "actionability"
DEFER = "deferring the least sure images lowers the error"
SHARE = 0.2
LEAST = Bound("at least", 0.25)
RANDOM = "deferring as many at random"
_CRITERION = "at least a quarter of the errors spared beyond the share of images handed over, over the whole interval"


def planned(patients: StudyPatients) -> tuple[PlannedTest, ...]:
    """Return the test of this element."""
    more = "" if patients.further is None else f" and images of {len(patients.further.patients)} further patients"
    return (
        PlannedTest(
            ELEMENT, DEFER,
            f"the {SHARE:.0%} of confirmation images{more} whose answer lies nearest to a threshold set on discovery patients are "
            "handed to a person",
            "share of all errors that are handed over, beyond the share of images", _CRITERION, (RANDOM,), LEAST,
        ),
    )  # fmt: skip


def threshold_of(margins: Float[NDArray[np.float64], " image"], positive: Bool[NDArray[np.bool_], " image"]) -> float:
    """Return the answer from which on an image is as likely positive as not, by logistic regression.

    Of a good model few answers are wrong, and where the fewest are hangs on those few: on 200 images of one model the threshold with
    the fewest errors varied from -2.3 to 2.2 logits (90 %), this one from -1.2 to 1.5. Where the answer does not rise with the class,
    the threshold with the fewest errors is all there is.
    """
    if positive.any() and not positive.all() and np.ptp(margins) > 0:
        from sklearn.linear_model import LogisticRegression

        middle, scale = margins.mean(), margins.std()
        fitted = LogisticRegression(C=100.0, max_iter=1000).fit((margins - middle)[:, None] / scale, positive)
        slope, offset = float(fitted.coef_[0, 0]), float(fitted.intercept_[0])
        found = float(middle - scale * offset / slope) if slope > 0 else np.inf
        if margins.min() <= found <= margins.max():
            return found
    return fewest_errors(margins, positive)


def fewest_errors(margins: Float[NDArray[np.float64], " image"], positive: Bool[NDArray[np.bool_], " image"]) -> float:
    """Return the answer's threshold with the fewest errors: midway between two neighbouring answers."""
    order = np.argsort(margins, kind="stable")
    sorted_margins, labels = margins[order], positive[order]
    # errors when everything from position k on is called positive
    errors = np.concatenate([[0], np.cumsum(labels)]) + (len(labels) - positive.sum()) - np.concatenate(
        [[0], np.cumsum(~labels)]
    )  # fmt: skip
    k = int(np.argmin(errors))
    if k == 0:
        return float(sorted_margins[0] - 1)
    if k == len(labels):
        return float(sorted_margins[-1] + 1)
    return float((sorted_margins[k - 1] + sorted_margins[k]) / 2)


def handed_over(
    margins: Float[NDArray[np.float64], " image"], threshold: float, share: float = SHARE
) -> Int[NDArray[np.int64], " chosen"]:
    """Return the images whose answers lie nearest to the threshold."""
    return np.argsort(np.abs(margins - threshold), kind="stable")[: round(share * len(margins))]


def spared(
    margins: Float[NDArray[np.float64], " image"], positive: Bool[NDArray[np.bool_], " image"], threshold: float,
    share: float = SHARE,
) -> float:  # fmt: skip
    """Return which share of the errors is handed over, beyond the share of images; NaN where there is no error."""
    wrong = (margins > threshold) != positive
    if not wrong.any():
        return float("nan")
    handed = handed_over(margins, threshold, share)
    return float(wrong[handed].sum() / wrong.sum() - len(handed) / len(margins))


def confirm(bench: StudyBench, store: ActivationStore, threshold: float) -> ElementEvidence:
    """Hand over the least sure confirmation images."""
    margins, positive, groups = _answered(bench, store)
    value = spared(margins, positive, threshold)
    interval = bootstrap_groups(
        lambda images: spared(margins[images], positive[images], threshold), groups, seed=bench.config.seed
    )
    random = np.random.default_rng(bench.config.seed)
    wrong = (margins > threshold) != positive
    handed = handed_over(margins, threshold)
    n = len(handed)
    drawn = np.array([
        wrong[random.permutation(len(wrong))[:n]].sum() / max(1, wrong.sum()) - n / len(wrong) for _ in range(1000)
    ])  # fmt: skip
    highest = float(np.quantile(drawn, 0.95))
    kept = float((wrong.sum() - wrong[handed].sum()) / max(1, len(wrong) - n))
    error = float(wrong.mean())
    claim = Claim.measured(
        f"Handing the {SHARE:.0%} least sure of {len(wrong)} images to a person lowers the error from {error:.1%} to {kept:.1%} of "
        "those left.",
        "interventional", value if np.isfinite(value) else None, "share of errors beyond chance", LEAST, _CRITERION,
        controls=(Control(RANDOM, highest, bool(value > highest) if np.isfinite(value) else None,
                          f"95 % of 1000 random choices spare less than {highest:+.2f} beyond their share"),),
        test=DEFER, interval=interval.ends, interval_note=interval.reason or interval.warning, trained=bench.model.trained,
        numbers={
            "images": len(wrong), "errors": int(wrong.sum()), "error": error, "error of those left": kept,
            "share handed over": SHARE, "threshold": threshold,
        },
    )  # fmt: skip
    return ElementEvidence(
        ELEMENT, (claim,), ("Deferral does not mend the model: it says which of its answers to look at.",)
    )


def _answered(
    bench: StudyBench, store: ActivationStore
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.object_]]:
    """Return answer, class and patient of each confirmation image and of those of whom only the answers are looked at."""
    side, further = bench.patients.confirmation, bench.patients.further
    if further is None:
        return bench.margins(store), side.positive, side.groups
    more = bench.captured(further, "further", sites=bench.sites[1:])
    return (
        np.concatenate([bench.margins(store), bench.margins(more)]),
        np.concatenate([side.positive, further.positive]),
        np.concatenate([side.groups, further.groups]),
    )
