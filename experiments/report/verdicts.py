"""From claims, plan and model check to one word per element: pure functions, nothing is written by hand.

The rules, which are this toolkit's own:

1. A model at chance is not interpreted: every element that is needed or has claims is *not met*.
2. Only a claim that answers a test of the plan counts, judged by the plan's own bound; what was found by looking is shown
   and does not count. A control that was planned and not run leaves its claim *inconclusive*.
3. All planned tests met: *met*. Some: *partly*. None, and one of them speaks against it: *not met*; otherwise
   *inconclusive*, with the smallest effect that could have been seen. No claim at all: *not addressed*.
4. *Met* becomes *partly* where the model's task could not be checked, no interval over patients could be had, no plan was
   registered before, no claim has the strength that the element needs, or the images lie outside what the model knows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from experiments.report.element_evidence import ElementEvidence
from experiments.report.elements import ELEMENTS
from experiments.report.model_check import ModelCheck
from experiments.report.plan import PlannedTest, PlanRecord
from mechinterp.claims import Claim, Strength, Verdict

ElementWord = Literal["met", "partly", "not met", "inconclusive", "not addressed"]

WORDS: tuple[ElementWord, ...] = ("met", "partly", "inconclusive", "not met", "not addressed")
"""From what supports an element most to what supports it least."""

STRENGTHS: tuple[Strength, ...] = ("correlational", "interventional", "ground-truth-verified")


@dataclass(frozen=True)
class Standing:
    """A claim beside the plan.

    Parameters
    ----------
    word, reasons
        The claim's own verdict and why, with what the plan asks for beyond it.
    counts
        Whether the element's verdict rests on it.

    """

    word: Verdict
    reasons: tuple[str, ...]
    counts: bool


@dataclass(frozen=True)
class SmallestVisible:
    """What a test that saw nothing would have seen: its smallest effect, in the metric's unit."""

    test: str
    value: float
    unit: str


@dataclass(frozen=True)
class ElementVerdict:
    """One word for an element, and why.

    Parameters
    ----------
    word
        The verdict.
    reasons
        In words; empty only where the element is met.
    smallest_visible
        Of every test that could not be told from its criterion.

    """

    word: ElementWord
    reasons: tuple[str, ...]
    smallest_visible: tuple[SmallestVisible, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the verdict as plain JSON."""
        return {
            "word": self.word,
            "reasons": list(self.reasons),
            "smallest_visible": [vars(seen) for seen in self.smallest_visible],
        }


def claim_standing(claim: Claim, test: PlannedTest | None, *, truth_known: bool = False) -> Standing:
    """Return how a claim stands beside the plan.

    Parameters
    ----------
    claim
        The claim.
    test
        What the plan says of it, or ``None`` where the plan does not name it.
    truth_known
        Whether the images were rendered from known parameters: otherwise nothing is verified against truth.

    """
    if claim.strength == "ground-truth-verified" and not truth_known:
        why = "“ground-truth-verified” is never said of real images: nobody knows their truth"
        return Standing("not met", (*claim.reasons, why), counts=test is not None)
    if test is None:
        return Standing(claim.verdict, (*claim.reasons, "found by looking, not in the plan: it does not count"), False)
    if claim.bound != test.bound or claim.largest_p != test.largest_p:
        why = "judged by another criterion than the plan's"
        return Standing("not met", (*claim.reasons, why), counts=True)
    run = {control.name for control in claim.controls}
    missing = tuple(f"planned control not run: {name}" for name in test.controls if name not in run)
    word: Verdict = "inconclusive" if missing and claim.verdict == "met" else claim.verdict
    return Standing(word, (*claim.reasons, *missing), counts=True)


def element_verdict(
    evidence: ElementEvidence, record: PlanRecord, check: ModelCheck, *, needed: bool, truth_known: bool = False
) -> ElementVerdict:
    """Return an element's verdict.

    Parameters
    ----------
    evidence
        What was found for it.
    record
        The plan, with what became of it.
    check
        Whether the model does its task.
    needed
        Whether the use case needs the element.
    truth_known
        Whether the images were rendered from known parameters.

    """
    tests = record.plan.of(evidence.element)
    if check.state == "at chance" and (needed or evidence.claims):
        return ElementVerdict("not met", check.reasons)
    if not evidence.claims:
        return ElementVerdict("not addressed", _not_addressed(tests))
    by_name = {test.name: test for test in tests}
    standing = [(c, claim_standing(c, by_name.get(c.test), truth_known=truth_known)) for c in evidence.claims]
    counted = [(claim, stands) for claim, stands in standing if stands.counts]
    answered = {claim.test for claim, _ in counted}
    open_tests = tuple(f"planned and not run: {test.name}" for test in tests if test.name not in answered)
    if not counted:
        why = "nothing that was found answers a test of the plan"
        return ElementVerdict("inconclusive", (why, *open_tests))
    reasons = tuple(
        f"{claim.test}: {reason}" for claim, stands in counted if stands.word != "met" for reason in stands.reasons
    )
    unseen = tuple(
        SmallestVisible(claim.test, claim.smallest_visible, claim.unit)
        for claim, _ in counted
        if claim.smallest_visible is not None
    )
    words = [stands.word for _, stands in counted]
    if "met" not in words:
        return ElementVerdict("not met" if "not met" in words else "inconclusive", reasons + open_tests, unseen)
    held = [claim for claim, stands in counted if stands.word == "met"]
    caps = _caps(held, evidence.element, record, check)
    whole = all(word == "met" for word in words) and not open_tests and not caps
    return ElementVerdict("met" if whole else "partly", reasons + open_tests + caps, unseen)


def _caps(held: Sequence[Claim], element: str, record: PlanRecord, check: ModelCheck) -> tuple[str, ...]:
    """Return what keeps an element whose claims hold from being met."""
    found = list(check.reasons)
    if record.registered is None:
        found.append("no plan was registered before the run")
    without = [claim for claim in held if claim.interval is None or not all(map(math.isfinite, claim.interval))]
    if without:
        notes = sorted({claim.interval_note for claim in without if claim.interval_note})
        found.append("no interval over patients" + (f": {'; '.join(notes)}" if notes else ""))
    least = ELEMENTS[element].least_strength
    if not any(STRENGTHS.index(claim.strength) >= STRENGTHS.index(least) for claim in held):
        found.append(f"no claim that holds is {least}")
    return tuple(found)


def _not_addressed(tests: Sequence[PlannedTest]) -> tuple[str, ...]:
    return tuple(f"planned and not run: {test.name}" for test in tests) or ("no method for it is in this study's plan",)
