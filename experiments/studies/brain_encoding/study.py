"""Where does each voxel look, what does it answer to, and which features of a network account for that?

Plan first; fit encoding models to some stimuli; open others once; report by the five elements.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from experiments.report import (
    ElementEvidence,
    Plan,
    Report,
    UseCase,
    groups_hash,
    open_confirmation,
    register_plan,
    write_report,
)
from experiments.run_directory import Run
from experiments.studies.brain_encoding import actions, attribution, localization, recognizability, transparency
from experiments.studies.brain_encoding.answer import answer_lines
from experiments.studies.brain_encoding.bench import EncodingBench
from experiments.studies.brain_encoding.check import check_predictions
from experiments.studies.brain_encoding.config import BrainEncodingConfig
from experiments.studies.brain_encoding.experiment import Experiment, simulated_experiment
from experiments.studies.brain_encoding.features import driving, frozen_features, trained_features
from experiments.studies.brain_encoding.fits import Confirmed, Explored, confirm, explore
from experiments.studies.brain_encoding.folder import recorded_experiment
from mechinterp.models.vision_model import VisionModel
from mechinterp.progress import SILENT, Progress
from mechinterp.provenance import versions

NAME = "brain-encoding"
NOT_OTHER_PEOPLE = "Intervals are over exemplars of stimuli: what they say holds for these subjects and other stimuli, not for other people."


def run_brain_encoding(
    out: Path, config: BrainEncodingConfig, *, download: bool = False, progress: Progress = SILENT
) -> Report:
    """Run the study into a folder and return its report.

    Parameters
    ----------
    out
        Folder of the run.
    config
        Settings, fixed when the run starts.
    download
        Allow the network for missing weights.
    progress
        Sees every long step.

    """
    run = Run.create(out)
    with run.stage("study", config=dataclasses.asdict(config)) as record:
        model = studied_model(config, download=download, progress=progress)
        bench = EncodingBench(config, run, model, studied_experiment(config, progress), progress)
        register_plan(run.folder, study_plan(bench))
        explored = explore(bench)
        progress.note("opening the confirmation stimuli")
        plan = open_confirmation(run.folder, bench.experiment.groups[bench.experiment.confirm])
        confirmed = confirm(bench, explored)
        check = check_predictions(bench, explored, confirmed)
        found: tuple[ElementEvidence, ...] = ()
        if check.state == "at chance":
            progress.note("responses are not predicted: nothing is interpreted")
        else:
            found = _elements(bench, explored, confirmed)
        evidence = {element.element: element for element in found}
        report = Report(
            use_case(bench), plan, check, evidence, answer_lines(check, evidence),
            (NOT_OTHER_PEOPLE, *bench.model.notes, *bench.experiment.notes), {}, _made_by(bench),
        )  # fmt: skip
        write_report(run.folder, report)
        record.update(report="report.json", model=model.spec, weights_hash=model.weights_hash)
    return report


def studied_model(config: BrainEncodingConfig, *, download: bool = False, progress: Progress = SILENT) -> VisionModel:
    """Return the network that is asked about: a user's own, the reference model, or one with random weights."""
    from mechinterp.models.loading import load_model
    from mechinterp.reference.stimuli import train_stimulus_reference

    if config.model is not None:
        weights = "random" if config.condition == "random-network" else config.weights
        return load_model(config.model, weights, download=download, seed=config.seed)
    reference = train_stimulus_reference(config.architecture, progress=progress)
    if config.condition == "random-network":
        return load_model(reference.spec, "random", seed=config.seed)
    model = reference.model()
    model.licence = model.licence or "Apache-2.0, trained here on rendered stimuli"
    return model


def studied_experiment(config: BrainEncodingConfig, progress: Progress) -> Experiment:
    """Return the rendered stimuli with simulated voxels, or a user's own recordings."""
    return simulated_experiment(config, progress) if config.data is None else recorded_experiment(config, progress)


def study_plan(bench: EncodingBench) -> Plan:
    """Return everything that will be tested, and on which stimuli, before any is looked at."""
    known, experiment = bench.experiment.truth is not None, bench.experiment
    tests = (
        *localization.planned(truth_known=known),
        *recognizability.planned(bench),
        *attribution.planned(truth_known=known),
        *transparency.planned(transparency.asked(experiment)),
        *actions.planned(bench),
    )
    return Plan(
        NAME,
        tests,
        groups_hash(experiment.groups[experiment.explored]),
        groups_hash(experiment.groups[experiment.confirm]),
    )


def use_case(bench: EncodingBench) -> UseCase:
    """Return what the encoding models are meant for."""
    known = bench.experiment.truth is not None
    needs = ["localization", "model transparency", "actionability"]
    return UseCase(
        NAME,
        "Brain encoding: where voxels look, and which features of a network account for their responses",
        "A network sees the stimuli that a subject saw. Where in the visual field does each voxel look, what does it answer to, and "
        "which of the network's features account for that?",
        "From a stimulus, the response of every voxel is predicted.",
        "Whoever plans the next experiment and must decide which voxels and which stimuli to use.",
        "Which stimuli are shown next, and which voxels' predictions are believed.",
        (
            "know where each voxel looks, in degrees of visual angle",
            "know which features a region's prediction rests on, and what they show",
            "choose stimuli that drive a voxel before they are shown",
        ),
        tuple(needs + (["physical attribution"] if known else [])),
        licences={
            "model": bench.model.licence or "not stated",
            "data": bench.experiment.images.licence or "not stated",
        },
        truth_known=known,
        # voxels for the distance of fields, as its limits say
        units="exemplars",
    )


def _elements(bench: EncodingBench, explored: Explored, confirmed: Confirmed) -> tuple[ElementEvidence, ...]:
    store = bench.stored()
    features, frozen = trained_features(bench, store), frozen_features(bench, store)
    found, of_frozen = driving(bench, explored, features), driving(bench, explored, frozen)
    return (
        localization.confirm(bench, explored),
        recognizability.confirm(bench, store, features, found, frozen, of_frozen),
        attribution.confirm(bench, explored),
        transparency.confirm(bench, explored, confirmed, features, found, frozen, of_frozen),
        actions.confirm(bench, explored, confirmed),
    )


def _made_by(bench: EncodingBench) -> dict[str, Any]:
    model, images = bench.model, bench.experiment.images
    return {
        "model": {"spec": model.name, "weights_hash": model.weights_hash, "trained": model.trained},
        "images": {
            "name": images.name,
            "number": len(images),
            "confirmation_hash": images.subset(bench.experiment.confirm).hash,
        },
        "sites": list(bench.sites),
        "feature_site": bench.feature_site,
        "config": dataclasses.asdict(bench.config),
        "versions": versions(),
    }
