"""The five-element report of a run, from the numbers of its ``results.json``: nothing is computed again but the verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np

from experiments.analysis.claims import exploration_claims
from experiments.analysis.planned import EXPLORATION
from experiments.report import (
    ElementEvidence,
    ModelCheck,
    Plan,
    PlannedTest,
    PlanRecord,
    Report,
    UseCase,
    check_classifier,
)
from experiments.report.elements import ELEMENTS
from mechinterp.claims import Claim

Results: TypeAlias = Mapping[str, Any]

NOT_STATED = "not stated"
UNPLANNED = (
    "This run was made stage by stage: what is tested was fixed by the toolkit, and no plan was written before it."
)
GALLERIES = (
    "Images on which a feature is most active stand on the run's pages; nobody, person or program, has named features and been "
    "tested on held-out images."
)
NO_MAP = "Where features are active is drawn on the run's pages; no map was scored against a mask."


def exploration_report(results: Results) -> Report:
    """Return the report of a run that was made stage by stage, without a question of its own.

    Parameters
    ----------
    results
        The run's ``results.json``.

    """
    model, images = results["model"], results["images"]
    use_case = UseCase(
        name="exploration",
        title=results["title"],
        question=results["question"],
        task=f"{model['spec']} answers one of {len(model['class_names'])} classes for an image.",
        intended_user="Whoever explores the model; no decision about a patient.",
        decision="Whether its features are worth a study of their own.",
        goals=("see what the model has learnt", "find quantities that its features follow"),
        needs=("physical attribution",),
        licences=licences(results),
    )
    claims = exploration_claims(results, results.get("primary_attribute"))
    return Report(
        use_case,
        PlanRecord(Plan(use_case.name, EXPLORATION, note=UNPLANNED)),
        task_check(results),
        sorted_by_element(claims, EXPLORATION, limits={
            "localization": (NO_MAP,),
            "visual recognizability": (GALLERIES,),
            "model transparency": ("What drives an answer was not asked: a study, or `mechinterp circuit`, does.",),
        }),
        tuple(results["answer"]),
        numbers={"images": images["n"]},
        provenance=made_by(results),
    )  # fmt: skip


def task_check(results: Results, claims: tuple[Claim, ...] = ()) -> ModelCheck:
    """Return whether the model does its task on the run's images, where these carry labels that it knows.

    Where the images say which of them are the test's, those alone count: a model knows the images it was fitted to.
    """
    images, names = results["images"], list(results["model"]["class_names"])
    labels, trained = images["labels"], results["model"]["trained"]
    groups = images["groups"] or [None] * images["n"]
    splits = images.get("splits") or ()
    held_out = [i for i, split in enumerate(splits) if split == "test"]
    asked = held_out or list(range(images["n"]))
    task = f"its classes, per image{', on the test split' if held_out else ' (all images: no split is called test)'}"
    if not labels or any(label not in names for label in labels):
        note = "the images carry no labels that are classes of the model"
        n_groups = len(set(groups) - {None}) if images["units_are_patients"] else 1
        found = ModelCheck(
            "its classes, per image", "AUROC", None, None, 0.5, images["n"], n_groups, trained=trained, note=note
        )
    else:
        found = check_classifier(
            np.asarray(images["probabilities"])[asked],
            np.array([names.index(labels[i]) for i in asked]),
            [groups[i] or f"image {i}" for i in asked],
            task=task,
            units_are_patients=images["units_are_patients"],
            trained=trained,
        )
        unnamed = sum(not groups[i] for i in asked)
        if unnamed and found.interval:
            said = f"{unnamed} of {len(asked)} images name no patient: each counts as one"
            found = replace(found, interval_note="; ".join(filter(None, (found.interval_note, said))))
    return replace(found, claims=claims)


def sorted_by_element(
    claims: Sequence[Claim], tests: Sequence[PlannedTest], *, limits: Mapping[str, tuple[str, ...]]
) -> dict[str, ElementEvidence]:
    """Return claims under the element of the test that each answers; a claim that answers none is left out."""
    home = {test.name: test.element for test in tests}
    return {
        name: ElementEvidence(
            name, tuple(claim for claim in claims if home.get(claim.test) == name), limits.get(name, ())
        )
        for name in ELEMENTS
    }


def licences(results: Results) -> dict[str, str]:
    """Return under which licences model and images may be used, as far as anybody said so."""
    return {"model": results["model"]["licence"] or NOT_STATED, "data": results["images"]["licence"] or NOT_STATED}


def made_by(results: Results) -> dict[str, Any]:
    """Return what made the run: model, weights, store, autoencoder, versions."""
    model, provenance = results["model"], results["provenance"]
    return {
        "model": model["spec"].rsplit("/", 1)[-1],
        "site": model["site"],
        "weights hash": model["weights_hash"],
        "store hash": provenance["store_hash"],
        "autoencoder hash": results["sae"]["weights_hash"],
        "images": results["images"]["name"],
        "seed": provenance["seed"],
        "versions": provenance["versions"],
    }
