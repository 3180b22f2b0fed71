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
from experiments.report.label_checks import check_labels
from mechinterp.claims import Claim
from mechinterp.images.image_set import own_patient
from mechinterp.images.labels import words_of

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
        task=_task(model),
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


def _task(model: Mapping[str, Any]) -> str:
    n = len(model["class_names"])
    if model.get("activation") != "sigmoid":
        return f"{model['spec']} answers one of {n} classes for an image."
    each = f"each of {n} findings" if n > 1 else f"'{model['class_names'][0]}'"
    return f"{model['spec']} says of {each} whether an image shows it."


def task_check(results: Results, claims: tuple[Claim, ...] = ()) -> ModelCheck:
    """Return whether the model does its task on the run's images, where these carry labels that it knows.

    Where the images say which of them are the test's, those alone count: a model knows the images it was fitted to. Images
    without a label are left out. Of a model whose outputs do not exclude one another each is a label of its own: a cell may
    hold several between bars (``Effusion|Mass``), and a word that none is called, as ``No Finding``, means none of them.
    """
    images, names = results["images"], list(results["model"]["class_names"])
    trained = results["model"]["trained"]
    several = results["model"].get("activation") == "sigmoid"
    found_labels = [words_of(label, several=several) for label in images["labels"] or ()]
    groups = images["groups"] or [None] * images["n"]
    splits = images.get("splits") or ()
    held_out = [i for i, split in enumerate(splits) if split == "test"]
    asked = held_out or list(range(images["n"]))
    labelled = [i for i in asked if found_labels and found_labels[i]]
    seen = {word for words in found_labels for word in words}
    strangers = sorted(seen - set(names))
    if not seen & set(names) or not labelled or (strangers and not several):
        n_groups = len(set(groups) - {None}) if images["units_are_patients"] else 1
        return ModelCheck(
            "its classes, per image", "AUROC", None, None, 0.5, images["n"], n_groups, trained=trained, claims=claims,
            note=_not_classes(strangers, names),
        )  # fmt: skip
    task = f"its {'labels' if several else 'classes'}, per image"
    task += ", on the test split" if held_out else " (all images: no split is called test)"
    if strangers:
        task += f"; {_listed(strangers)} counts as none of them"
    if len(labelled) < len(asked):
        task += f"; {len(asked) - len(labelled)} without a label left out"
    probabilities = np.asarray(images["probabilities"])[labelled]
    own = [own_patient(name) for name in images.get("ids") or map(str, range(images["n"]))]
    whose = [groups[i] or own[i] for i in labelled]
    settings: dict[str, Any] = {"units_are_patients": images["units_are_patients"], "trained": trained}
    if several:
        present = np.array([[name in found_labels[i] for name in names] for i in labelled])
        found = check_labels(probabilities, present, whose, task=task, **settings)
    else:
        truth = np.array([names.index(found_labels[i][0]) for i in labelled])
        found = check_classifier(probabilities, truth, whose, task=task, **settings)
    unnamed = sum(groups[i] in {None, own[i]} for i in labelled)
    if unnamed and found.interval:
        said = f"{unnamed} of {len(labelled)} images name no patient: each counts as one"
        found = replace(found, interval_note="; ".join(filter(None, (found.interval_note, said))))
    return replace(found, claims=claims)


def _not_classes(strangers: Sequence[str], names: Sequence[str]) -> str:
    if not strangers:
        return "the images carry no labels that are classes of the model"
    return f"the images are labelled {_listed(strangers)}, which is no class of the model ({_listed(names)})"


def _listed(names: Sequence[str], most: int = 4) -> str:
    return ", ".join(f"'{name}'" for name in names[:most]) + (", …" if len(names) > most else "")


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
