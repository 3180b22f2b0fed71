"""The brain study in the five elements: what it needs, what it planned, what it found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from experiments.analysis.claims import study_claims
from experiments.analysis.planned import STUDY
from experiments.analysis.run_report import GALLERIES, NO_MAP, licences, made_by, sorted_by_element, task_check
from experiments.report import Plan, PlanRecord, Report, UseCase

NAME = "brain-mri"
PRIMARY_ATTRIBUTE = "brain_area"
"""Named before the run; all others are reported beside it."""

PLAN = Plan(
    NAME,
    STUDY,
    note="One head: there are no confirmation patients. Slices are held out in blocks, and each band of false answers is tested "
    "with features that were chosen on the other.",
)

_LIMITS = {
    "localization": (NO_MAP,),
    "visual recognizability": (GALLERIES,),
    "physical attribution": (
        "All slices are of one head, and neighbours are alike: whole blocks are shifted to test, and nothing is known of other "
        "heads.",
    ),
    "model transparency": (
        "A set that was not found small may still be there in other features: of another autoencoder, another site, or among what "
        "the autoencoder does not reconstruct.",
    ),
    "actionability": ("The study looks for a cause; it neither edits the model nor defers any slice.",),
}


def brain_mri_report(results: Mapping[str, Any], record: PlanRecord | None = None) -> Report:
    """Return the study's report.

    Parameters
    ----------
    results
        Its ``results.json``.
    record
        Its plan with what became of it; ``None`` for a run that wrote none.

    """
    model, question = results["model"], results["target"]
    use_case = UseCase(
        name=NAME,
        title=results["title"],
        question=results["question"],
        task=f"A slice of a head is answered with one of {', '.join(model['class_names'][:6])}.",
        intended_user="Whoever audits the classifier before it is used or trained on; no clinician at a patient's side.",
        decision=f"Whether the cause of its false “{question['class']}” is known well enough to mend it.",
        goals=("find what drives a wrong answer", "name it as a quantity that can be measured", "act on it"),
        needs=("physical attribution", "model transparency", "actionability"),
        licences=licences(results),
    )
    found, *claims = study_claims(results, PRIMARY_ATTRIBUTE)
    limits = [*model["notes"], f"Second head: {results['replication']['text']}"]
    return Report(
        use_case,
        record or PlanRecord(PLAN),
        task_check(results, (found,)),
        sorted_by_element(claims, STUDY, limits=_LIMITS),
        tuple(results["answer"]),
        tuple(limits),
        numbers_of(results),
        made_by(results),
    )


def numbers_of(results: Mapping[str, Any]) -> dict[str, float | None]:
    """Return the numbers that the answer and the limits speak of, by name."""
    images, question, experiment = results["images"], results["target"], results["experiment"]
    found: dict[str, float | None] = {
        "images": images["n"],
        "called the target": len(question["positive"]),
        "threshold": question["threshold"],
        "findings of features and quantities": results["matrix"]["tests"]["n_findings"],
        "features tested": results["matrix"]["tests"]["n_tested"],
    }
    for band in question["bands"]:
        at = [images["position"][i] for i in band["images"]]
        found |= {
            f"{band['name']} band, first slice [mm]": min(at),
            f"{band['name']} band, last slice [mm]": max(at),
            f"{band['name']} band, slices": len(at),
        }
    for way in experiment["directions"]:
        tested = len(way["before_after"][0]["images"]) if way["before_after"] else None
        name = f"{way['kind']}, ranked by {way['ranked_by']}, {way['name']}"
        found |= {
            f"{name}: size of the set": way["size"],
            f"{name}: tested slices": tested,
            f"{name}: features chosen": len(way["chosen"]),
        }
        for curve in way["curves"]:
            if way["size"] in curve["sizes"]:
                at_size = curve["sizes"].index(way["size"])
                found[f"{name}: share turned, {curve['ablation']}"] = curve["flipped"][at_size]
                if curve["control_flipped"]["median"]:
                    found[f"{name}: random sets, {curve['ablation']}"] = curve["control_flipped"]["median"][at_size]
    second = results["replication"]
    if second["present"]:
        found |= {
            "second head: called the target": second["n_positive"],
            "second head: slices": second["n_images"],
            "second head with skull: called the target": second["with_skull"]["n_positive"],
            "second head with skull: slices": second["with_skull"]["n_images"],
        }
        for tried in second["sets"]:
            found[f"second head: share turned, {tried['ablation']}, chosen on {tried['chosen_on']}"] = tried["flipped"]
    return found
