"""A study's answer in plain lines, each made from its numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from experiments.report import ElementEvidence, ModelCheck

if TYPE_CHECKING:
    from experiments.studies.phantom.bench import StudyBench


def answer_lines(bench: StudyBench, check: ModelCheck, evidence: Mapping[str, ElementEvidence]) -> tuple[str, ...]:
    """Return whether the model does its task, what its answer follows, how, and what can be done: one line each."""
    return (_task(check), *(_element(evidence[name]) for name in evidence if evidence[name].claims))


def _task(check: ModelCheck) -> str:
    if check.value is None:
        return f"Whether the model does its task could not be measured: {check.note}."
    said = f"The model {'does its task' if check.state == 'does its task' else 'is at chance'}: {check.metric} {check.value:.3f}"
    over = "" if check.interval is None else f" ({check.interval[0]:.3f} to {check.interval[1]:.3f})"
    return f"{said}{over} on {check.n_groups} patients it never saw."


def _element(evidence: ElementEvidence) -> str:
    held = [c for c in evidence.claims if c.verdict == "met"]
    said = f"{evidence.element.capitalize()}: {len(held)} of {len(evidence.claims)} claims hold."
    if len(held) == len(evidence.claims):
        return f"{said} {held[-1].statement}"
    first = next(c for c in evidence.claims if c.verdict != "met")
    return f"{said} Not shown that {first.test}: {first.reasons[0]}."
