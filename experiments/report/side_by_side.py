"""Several reports side by side: the same elements and the same tests, run by run, as plain JSON.

Nothing is computed anew: verdicts follow from each report's own claims and plan. What the runs share, and what they do
not, is said beside them, because a difference between two numbers means little where model and patients both differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from experiments.report.element_evidence import ElementEvidence
from experiments.report.elements import CITATION, ELEMENTS
from experiments.report.report import NOTICE, Report
from mechinterp.errors import ConfigError

FORMAT_VERSION = 1
_SHOWN_OF_HASH = 8


def run_names(folders: Sequence[Path]) -> tuple[str, ...]:
    """Return a short name for each run: its folder's, with as many parents as it takes to tell them apart.

    Raises
    ------
    ConfigError
        If a run is given twice, or only one.

    """
    paths = [folder.resolve() for folder in folders]
    if len(paths) < 2:
        raise ConfigError("one run cannot be compared: give the folders of at least two")
    if len(set(paths)) < len(paths):
        twice = next(path for path in paths if paths.count(path) > 1)
        raise ConfigError(f"{twice} is given twice: give each run once")
    depth = 1
    while len({path.parts[-depth:] for path in paths}) < len(paths):
        depth += 1
    return tuple("/".join(path.parts[-depth:]) for path in paths)


def side_by_side(reports: Mapping[str, Report]) -> dict[str, Any]:
    """Return several reports as one record: a column for each run.

    Parameters
    ----------
    reports
        By the name that each run is shown under.

    """
    every = list(reports.values())
    return {
        "format": FORMAT_VERSION,
        "notice": NOTICE,
        "citation": CITATION,
        "runs": [_run(name, report) for name, report in reports.items()],
        "shared": list(shared(every)),
        "elements": [
            {
                "element": name,
                "question": ELEMENTS[name].question,
                "cells": [_element_cell(report, name) for report in every],
            }
            for name in ELEMENTS
        ],
        "tests": [
            {"element": element, "name": name, "cells": [_test_cell(report, element, name) for report in every]}
            for element, name in _tests(every)
        ],
    }


def shared(reports: Sequence[Report]) -> tuple[str, ...]:
    """Return in words whether study, plan, patients and images are the same for all runs."""
    studies = {report.use_case.name for report in reports}
    planted = {_condition(report) for report in reports} - {None, "as-it-is"}
    criteria = {tuple(test.name for test in report.plan.plan.tests) for report in reports}
    found = []
    if len(studies) > 1:
        found.append("The runs are of different studies: compare how far each is understood, not their numbers.")
    units = {report.use_case.units for report in reports}
    whom = units.pop() if len(units) == 1 else "patients"
    differs = "the model, what was made of it and, where something was planted wrong, that" if planted else "the model and what was made of it"  # fmt: skip
    found.append(
        {
            "same": f"All runs were confirmed on the same images: what differs is {differs}.",
            "unknown": f"All runs were confirmed on {whom} of the same names. Not every run says which pixels their images had: "
            f"if they are the same, what differs is {differs}.",
            "other images": f"The runs were confirmed on other images of {whom} of the same names: their numbers differ by that too.",
            "other patients": f"The runs were not confirmed on the same {whom}: their numbers differ by that too.",
        }[_confirmed_on(reports)]
    )  # fmt: skip
    if len(studies) == 1 and len(criteria) > 1:
        found.append("The runs did not plan the same tests: a dash says that a run has no such test.")
    return tuple(found)


def _confirmed_on(reports: Sequence[Report]) -> Literal["same", "unknown", "other images", "other patients"]:
    """Say whether all runs opened the same images: told by their pixels, where every run kept their hash."""
    about = [report.provenance.get("images", {}) for report in reports]
    hashes = {images.get("confirmation_hash") for images in about}
    if len(hashes) == 1 and None not in hashes:
        return "same"
    # two sets of phantoms number their patients alike: names are the same patients within one set of images only
    named = {
        (report.plan.plan.confirmation, str(images.get("name")), report.use_case.name)
        for report, images in zip(reports, about, strict=True)
    }
    if len(named) > 1 or not all(report.plan.plan.confirmation for report in reports):
        return "other patients"
    return "other images" if len(hashes - {None}) > 1 else "unknown"


def _run(name: str, report: Report) -> dict[str, Any]:
    check = report.model_check
    model = report.provenance.get("model", {})
    return {
        "name": name,
        "study": report.use_case.name,
        "title": report.use_case.title,
        "model": str(model.get("spec", "not stated")),
        "weights_hash": model.get("weights_hash"),
        "weights": None if model.get("weights_hash") is None else str(model["weights_hash"])[:_SHOWN_OF_HASH],
        "condition": _condition(report),
        "check": {
            "state": check.state, "metric": check.metric, "value": check.value,
            "interval": None if check.interval is None else list(check.interval), "n_groups": check.n_groups,
        },
        "n_needed": len(report.use_case.needs),
        "n_needed_met": len(report.use_case.needs) - len(report.unmet),
        "answer": list(report.answer),
    }  # fmt: skip


def _condition(report: Report) -> str | None:
    config = report.provenance.get("config")
    return config.get("condition") if isinstance(config, Mapping) else None


def _element_cell(report: Report, name: str) -> dict[str, Any]:
    verdict = report.verdicts[name]
    return {
        "word": verdict.word,
        "needed": name in report.use_case.needs,
        "n_tests": len(report.plan.plan.of(name)),
        "n_held": sum(
            stands.counts and stands.word == "met" for stands in report.standings(_evidence(report, name))
        ),
        "reason": verdict.reasons[0] if verdict.reasons else "",
    }  # fmt: skip


def _tests(reports: Sequence[Report]) -> list[tuple[str, str]]:
    """Return element and name of every planned test, in the order of the elements and of the first plan that has it."""
    found = dict.fromkeys((test.element, test.name) for report in reports for test in report.plan.plan.tests)
    order = list(ELEMENTS)
    return sorted(found, key=lambda test: order.index(test[0]))


def _test_cell(report: Report, element: str, name: str) -> dict[str, Any] | None:
    """Return what a run found for a test; ``None`` where it was not planned, no word where it was not run."""
    if name not in {test.name for test in report.plan.plan.of(element)}:
        return None
    evidence = _evidence(report, element)
    for claim, stands in zip(evidence.claims, report.standings(evidence), strict=True):
        if claim.test == name:
            return {
                "word": stands.word, "value": claim.value, "unit": claim.unit, "strength": claim.strength,
                "interval": None if claim.interval is None else list(claim.interval),
                "reason": stands.reasons[0] if stands.reasons else "",
            }  # fmt: skip
    return {"word": "not run", "value": None, "unit": "", "strength": "", "interval": None, "reason": ""}


def _evidence(report: Report, name: str) -> ElementEvidence:
    return report.evidence.get(name, ElementEvidence(name))
