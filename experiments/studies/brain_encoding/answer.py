"""The study's answer in plain lines, each made from its numbers."""

from __future__ import annotations

from collections.abc import Mapping

from experiments.report import ElementEvidence, ModelCheck


def answer_lines(check: ModelCheck, evidence: Mapping[str, ElementEvidence]) -> tuple[str, ...]:
    """Return whether responses are predicted, region by region, and what holds of each element: one line each."""
    return (_task(check), *(claim.statement for claim in check.claims), *map(_element, _claimed(evidence)))


def _task(check: ModelCheck) -> str:
    if check.value is None:
        return f"Whether responses are predicted could not be measured: {check.note}."
    over = "" if check.interval is None else f" ({check.interval[0]:.3f} to {check.interval[1]:.3f})"
    word = {"does its task": "are predicted", "at chance": "are not predicted", "not checked": "may be predicted"}
    why = "" if check.trained else " The network was never trained, so nothing else is claimed of it."
    return (
        f"Responses to stimuli never seen {word[check.state]}: mean correlation {check.value:.3f}{over} over {check.n_groups} "
        f"exemplars.{why}"
    )


def _claimed(evidence: Mapping[str, ElementEvidence]) -> list[ElementEvidence]:
    return [element for element in evidence.values() if element.claims]


def _element(evidence: ElementEvidence) -> str:
    held = [c for c in evidence.claims if c.verdict == "met"]
    said = f"{evidence.element.capitalize()}: {len(held)} of {len(evidence.claims)} claims hold."
    if len(held) == len(evidence.claims):
        return f"{said} {held[0].statement}"
    first = next(c for c in evidence.claims if c.verdict != "met")
    return f"{said} Not shown that {first.test}: {first.reasons[0]}."
