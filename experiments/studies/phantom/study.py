"""A study whose truth is known: plan first, explore on half of the patients, confirm once on the other half, report.

The same steps serve diabetic retinopathy and breast cancer, phantoms and a user's own folder; what differs is the
:class:`~experiments.studies.phantom.case.StudyCase`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments.report import (
    ElementEvidence,
    ModelCheck,
    OutOfDistribution,
    Plan,
    Report,
    check_classifier,
    distance_check,
    groups_hash,
    open_confirmation,
    read_plan,
    register_plan,
    write_report,
)
from experiments.run_directory import Run
from experiments.studies.phantom import actions, attribution, localization, recognizability, shortcut, transparency
from experiments.studies.phantom.answer import answer_lines
from experiments.studies.phantom.bench import StudyBench
from experiments.studies.phantom.case import StudyCase
from experiments.studies.phantom.config import PhantomStudyConfig
from experiments.studies.phantom.patients import Side, study_patients
from mechinterp.models.vision_model import VisionModel
from mechinterp.progress import SILENT, Progress
from mechinterp.provenance import versions
from mechinterp.reference.training import TrainedReference
from mechinterp.store.reader import ActivationStore
from probes import pooled_activations
from sparse_autoencoders import SparseAutoencoder

UNEXPLORED = "The model is at chance on the discovery patients: nothing was looked for in it, and nothing tested."


def run_phantom_study(
    case: StudyCase,
    out: Path,
    config: PhantomStudyConfig,
    *,
    download: bool = False,
    progress: Progress = SILENT,
) -> Report:
    """Run a study into a folder and return its report.

    A model that is at chance on the discovery patients is not explored.

    Parameters
    ----------
    case
        What is asked.
    out
        Folder of the run. Stages that are whole there, made with the same settings, are taken over.
    config
        Settings, fixed when the run starts.
    download
        Allow the network for missing weights.
    progress
        Sees every long step.

    """
    run = Run.create(out)
    with run.stage("study", config=dataclasses.asdict(config)) as record:
        bench = StudyBench(
            case, config, run, studied_model(case, config, download=download, progress=progress),
            study_patients(case, config, progress), progress,
        )  # fmt: skip
        earlier = read_plan(run.folder)
        if earlier is None or earlier.opened is None:
            register_plan(run.folder, study_plan(bench))
        explored = bench.captured(bench.patients.discovery, "discovery")
        discovered = None
        if _classified(bench, bench.patients.discovery, explored).state != "at chance":
            progress.note("exploring on the discovery patients")
            discovered = _explored(bench, explored)
            # what the discovery patients give reason for is planned too, before the others are opened
            register_plan(run.folder, study_plan(bench, discovered.suspected))
        progress.note("opening the confirmation patients")
        plan = open_confirmation(run.folder, bench.patients.opened_once)
        confirmed = bench.captured(bench.patients.confirmation, "confirmation")
        check = _check(bench, explored, confirmed)
        found: tuple[ElementEvidence, ...] = ()
        if discovered is None or check.state == "at chance":
            progress.note("the model is at chance: it is not interpreted")
        else:
            found = _confirmed(bench, explored, confirmed, discovered)
        evidence = {element.element: element for element in found}
        use_case = case.use_case(
            bench.model.licence or "not stated", bench.patients.licence, truth_known=bench.patients.truth_known
        )
        report = Report(
            use_case, plan, check, evidence, answer_lines(bench, check, evidence),
            (*bench.model.notes, *bench.patients.notes, *(() if discovered else (UNEXPLORED,))), {}, _made_by(bench, explored),
        )  # fmt: skip
        write_report(run.folder, report)
        record.update(report="report.json", model=bench.model.spec, weights_hash=bench.model.weights_hash)
    return report


@dataclass(frozen=True)
class _Discovered:
    """What the discovery patients gave, and the confirmation patients are held against."""

    directions: attribution.ChosenDirections
    threshold: float
    named_sae: SparseAutoencoder
    circuits: dict[str, transparency.ChosenCircuits]
    suspected: shortcut.Suspected | None


def _explored(bench: StudyBench, explored: ActivationStore) -> _Discovered:
    directions = attribution.choose(bench, explored)
    threshold = actions.threshold_of(bench.margins(explored), bench.patients.discovery.positive)
    named_sae = recognizability.choose(bench, explored)
    last_sae = transparency.trained_sae(bench, explored)
    circuits = transparency.choose(bench, explored, last_sae)
    return _Discovered(directions, threshold, named_sae, circuits, shortcut.choose(bench, last_sae))


def _confirmed(
    bench: StudyBench, explored: ActivationStore, confirmed: ActivationStore, discovered: _Discovered
) -> tuple[ElementEvidence, ...]:
    return (
        localization.confirm(bench),
        recognizability.confirm(bench, explored, confirmed, discovered.named_sae),
        attribution.confirm(bench, confirmed, discovered.directions),
        transparency.confirm(bench, discovered.circuits),
        _joined(actions.confirm(bench, confirmed, discovered.threshold), shortcut.confirm(bench, discovered.suspected)),
    )


def studied_model(
    case: StudyCase, config: PhantomStudyConfig, *, download: bool = False, progress: Progress = SILENT
) -> VisionModel:
    """Return the model that is asked about: a user's own, the reference model, or one that is planted wrong."""
    from mechinterp.models.loading import load_model

    if config.model is not None:
        return load_model(config.model, config.weights, download=download, seed=config.seed)
    if config.condition == "random-network":
        # its architecture alone: nothing is trained that would be thrown away
        about = TrainedReference(config.architecture, Path(), {"phantom": case.phantom})
        return load_model(about.spec, "random", seed=config.seed)
    reference = case.trained(config.architecture, config.condition == "shortcut", config.quick_reference, progress)
    model = reference.model()
    model.licence = model.licence or "Apache-2.0, trained here on phantoms"
    return model


def study_plan(bench: StudyBench, suspected: shortcut.Suspected | None = None) -> Plan:
    """Return everything that will be tested, and on whom.

    Parameters
    ----------
    bench
        The study.
    suspected
        What the discovery patients gave; before they are looked at, nothing.

    """
    known = bench.patients.truth_known
    tests = (
        *localization.planned(bench),
        *recognizability.planned(bench),
        *attribution.planned(bench.case, bench.config.sizes.n_random, bench.primary, truth_known=known),
        *transparency.planned(bench.case),
        *actions.planned(bench.patients),
        *shortcut.planned(bench, suspected),
    )
    return Plan(
        bench.case.name, tests, groups_hash(bench.patients.discovery.patients), groups_hash(bench.patients.opened_once),
    )  # fmt: skip


def _joined(first: ElementEvidence, second: ElementEvidence) -> ElementEvidence:
    """Return what two parts of a study found for one element."""
    return ElementEvidence(
        first.element, first.claims + second.claims, first.limits + second.limits, first.figures + second.figures
    )


def _check(bench: StudyBench, explored: ActivationStore, confirmed: ActivationStore) -> ModelCheck:
    last = bench.sites[1]
    outside = distance_check(
        pooled_activations(explored, last), bench.patients.discovery.groups.tolist(), pooled_activations(confirmed, last),
        what=f"mean activations of {last}", seed=bench.config.seed,
    )  # fmt: skip
    return _classified(bench, bench.patients.confirmation, confirmed, outside)


def _classified(
    bench: StudyBench, side: Side, store: ActivationStore, outside: OutOfDistribution | None = None
) -> ModelCheck:
    positive = 1 / (1 + np.exp(-bench.margins(store)))
    return check_classifier(
        np.stack([1 - positive, positive], 1), side.positive.astype(np.int64), side.groups.tolist(),
        task=f"{bench.case.target} against {bench.case.reference}, per image", trained=bench.model.trained,
        out_of_distribution=outside, seed=bench.config.seed,
    )  # fmt: skip


def _made_by(bench: StudyBench, explored: ActivationStore) -> dict[str, Any]:
    model = bench.model
    return {
        "model": {"spec": model.name, "weights_hash": model.weights_hash, "trained": model.trained},
        "images": {
            "name": bench.patients.name,
            "store_hash": explored.hash,
            "confirmation_hash": bench.patients.confirmation.images.hash,
        },
        "sites": list(bench.sites),
        "config": dataclasses.asdict(bench.config),
        "versions": versions(),
    }
