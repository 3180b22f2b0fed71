"""The features of a study's last site as a run of their own, which the dashboard and every command that takes a run can open.

The study keeps what it explored and what it confirmed on apart, and neither is a whole run. Once the confirmation patients were
opened and reported on, nothing stands against looking at both: features are matched with attributes on the patients explored and
tested on the others, as in the study.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

from experiments.report import groups_hash, read_plan
from experiments.run_directory import EXPLORER, Run
from experiments.studies.phantom.case import StudyCase
from experiments.studies.phantom.config import PhantomStudyConfig
from experiments.studies.phantom.patients import study_patients
from mechinterp.capturing import CaptureConfig, capture
from mechinterp.errors import ConfigError, HashMismatchError
from mechinterp.images.image_set import ImageSet
from mechinterp.models.vision_model import VisionModel
from mechinterp.progress import SILENT, Progress

_REPORT = ("report.html", "report.json", "report.pdf")


def explorable(folder: Path, *, progress: Progress = SILENT) -> Path:
    """Return the run whose pages show a run's features: itself, or of a screening study the one made here beneath it.

    Parameters
    ----------
    folder
        A run.
    progress
        Sees both halves of the patients captured, the first time.

    Raises
    ------
    ConfigError
        If the folder is no run, or a study's that trained no autoencoder: its model was at chance, or it has not ended.
    HashMismatchError
        If the images are those of other patients than the study confirmed on.

    """
    planned = read_plan(folder) if (folder / "plan.json").is_file() else None
    if planned is None or planned.plan.use_case not in _cases():
        return folder
    case = _cases()[planned.plan.use_case]
    stage = Run.open(folder).stages.get("study")
    if stage is None or not (folder / "report.json").is_file():
        raise ConfigError(f"{folder} has no report yet: mechinterp study {case.name} --out {folder} goes on with it")
    config = PhantomStudyConfig(**stage["config"])
    trained = folder / "saes" / f"seed-{config.seed}"
    if config.condition == "shuffled-labels" or not (trained / "cfg.json").is_file():
        raise ConfigError(
            f"{folder} has no features to show: {_why(config)}; open {folder / 'report.html'}, which says what was found"
        )
    images = partial(_both_halves, case, config, planned.plan.confirmation, progress)
    return _made(folder, case, config, trained, images, progress)


def _made(
    folder: Path,
    case: StudyCase,
    config: PhantomStudyConfig,
    trained: Path,
    both_halves: Callable[[], ImageSet],
    progress: Progress,
) -> Path:
    from experiments.analysis.circuit_runs import model_of_run
    from mechinterp.store.reader import ActivationStore
    from sparse_autoencoders import SparseAutoencoder

    out = folder / EXPLORER
    model = model_of_run(ActivationStore.open(folder / "activations" / "discovery"))
    site = SparseAutoencoder.load(trained).site
    run = Run.create(out)
    if "capture" not in run.stages:
        progress.note(f"the study's features become a run of their own: {out}")
        with run.stage("capture", model=model.spec, site=site) as record:
            images = both_halves()
            settings = CaptureConfig(sites=(site,), outputs=True)
            store = capture(model, images, out=out / "activations", config=settings, progress=progress)
            record.update(activations="activations", hash=store.hash, of_study=_asked(case, config, model, images))
    shutil.copytree(trained, out / "saes" / trained.name, dirs_exist_ok=True)
    for name in _REPORT:
        if (folder / name).is_file():
            shutil.copy2(folder / name, out / name)
    return out


def _both_halves(case: StudyCase, config: PhantomStudyConfig, confirmed: str | None, progress: Progress) -> ImageSet:
    """Return all images with the patients confirmed on as `test`, in a form that says where they come from."""
    from mechinterp.images.opening import open_images

    patients = study_patients(case, config, progress)
    if groups_hash(patients.opened_once) != confirmed:
        raise HashMismatchError(
            f"{config.data or case.phantom} has other patients than the study confirmed on: run it again into another folder"
        )
    phantoms = patients.discovery.phantoms
    images = open_images(str(config.data)) if phantoms is None else phantoms.images
    return images.tested_on(patients.confirmation.patients)


def _asked(case: StudyCase, config: PhantomStudyConfig, model: VisionModel, images: ImageSet) -> dict[str, str]:
    """Return what the study asks about, as far as this model and these images have it."""
    found, attribute = {"title": f"{case.name}: features of the last site"}, config.attribute or case.primary
    if case.target in model.class_names and case.reference in model.class_names:
        found |= {"target": case.target, "reference": case.reference}
    if attribute in images.attributes.names:
        found["attribute"] = attribute
    return found


def _cases() -> dict[str, StudyCase]:
    from experiments.studies.breast_cancer import BREAST_CANCER
    from experiments.studies.dr_screening import DR_SCREENING

    return {case.name: case for case in (DR_SCREENING, BREAST_CANCER)}


def _why(config: PhantomStudyConfig) -> str:
    if config.condition == "shuffled-labels":
        return "its labels belong to other images"
    if config.condition == "frozen-random-sae":
        return "its autoencoders were never trained"
    return "its model was at chance and not explored"
