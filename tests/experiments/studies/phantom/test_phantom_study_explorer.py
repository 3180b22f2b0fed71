"""A study's features become a run that the dashboard opens, with the patients of both halves where the study had them."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.analysis.stagewise import images_of
from experiments.report import groups_hash, register_plan
from experiments.report.plan import Plan
from experiments.run_directory import EXPLORER, Run
from experiments.studies.dr_screening import DR_SCREENING
from experiments.studies.phantom.config import PhantomStudyConfig
from experiments.studies.phantom.explorer import explorable
from experiments.studies.phantom.patients import study_patients
from experiments.studies.phantom.study import studied_model
from mechinterp.capturing import CaptureConfig, capture
from mechinterp.errors import ConfigError, HashMismatchError
from mechinterp.phantoms.datasets import fundus_phantoms
from mechinterp.phantoms.fundus_population import FundusStudy
from mechinterp.progress import SILENT
from mechinterp.reference.training import TrainedReference
from mechinterp.store.reader import ActivationStore
from sparse_autoencoders.baselines import random_sae

SITE = "stages.3"


def ended(folder: Path, **settings: Any) -> PhantomStudyConfig:
    """Write what a study leaves behind that ran to its end, as far as its features need it."""
    model_spec = TrainedReference("cnn", Path(), {"phantom": "fundus"}).spec
    config = PhantomStudyConfig(patients=20, model=model_spec, weights="random", **settings)
    patients = study_patients(DR_SCREENING, config, SILENT)
    model = studied_model(DR_SCREENING, config)
    store = capture(
        model, patients.discovery.images, out=folder / "activations" / "discovery", config=CaptureConfig(sites=(SITE,), outputs=True)
    )  # fmt: skip
    random_sae(store, SITE, np.arange(len(store)), 24, 4, 0).save(folder / "saes" / "seed-0")
    register_plan(
        folder,
        Plan("dr-screening", (), groups_hash(patients.discovery.patients), groups_hash(patients.opened_once)),
    )
    with Run.create(folder).stage("study", config=dataclasses.asdict(config)):
        (folder / "report.json").write_text("{}")
        (folder / "report.html").write_text("<title>report</title>")
    return config


@pytest.fixture(scope="module")
def eyes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's own folder, without a split."""
    folder = tmp_path_factory.mktemp("own") / "eyes"
    study = FundusStudy(patients=44, images_per_patient=1)
    fundus_phantoms(study).write_image_folder(folder, masks=False)
    table = (folder / "metadata.csv").read_text().splitlines()
    where = table[0].split(",").index("split")
    without = [",".join(v for i, v in enumerate(row.split(",")) if i != where) for row in table]
    (folder / "metadata.csv").write_text("\n".join(without) + "\n")
    return folder


@pytest.mark.parametrize("own", [False, True], ids=["phantoms", "own folder"])
def test_both_halves_are_captured_with_the_split_that_the_study_had(tmp_path: Path, eyes: Path, own: bool) -> None:
    config = ended(tmp_path / "run", **({"data": str(eyes)} if own else {}))
    out = explorable(tmp_path / "run")
    assert out == tmp_path / "run" / EXPLORER
    store, patients = ActivationStore.open(out / "activations"), study_patients(DR_SCREENING, config, SILENT)
    held = set(store.images["group"][store.images["split"] == "test"])
    assert held == set(patients.confirmation.patients)
    assert set(store.images["group"]) - held == set(patients.discovery.patients)
    # what was captured in the study is what is captured here
    before = ActivationStore.open(tmp_path / "run" / "activations" / "discovery")
    there = [store.images["id"].tolist().index(name) for name in before.images["id"]]
    np.testing.assert_allclose(store.read(SITE, np.array(there)), before.read(SITE), atol=1e-5)
    images = images_of(store)
    assert images.splits is not None
    assert images.splits.count("test") == len(held)
    asked = Run.open(out).stages["capture"]["of_study"]
    assert asked["target"] == "referable"
    assert asked["attribute"] == "lesion_area_mm2"
    assert (out / "report.html").is_file()
    assert explorable(tmp_path / "run") == out


def test_a_command_that_takes_a_run_says_where_a_study_has_one(tmp_path: Path) -> None:
    ended(tmp_path / "run")
    with pytest.raises(ConfigError, match=r"in two halves: mechinterp dashboard .* makes .*explorer"):
        _ = Run(tmp_path / "run").store_folder
    assert Run(explorable(tmp_path / "run")).store_folder.is_dir()
    with pytest.raises(ConfigError, match="has no activations: mechinterp capture"):
        _ = Run(tmp_path / "nothing").store_folder


def test_another_run_is_shown_as_it_is(tmp_path: Path) -> None:
    assert explorable(tmp_path) == tmp_path


def test_a_study_without_features_says_why(tmp_path: Path) -> None:
    ended(tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "saes")
    with pytest.raises(ConfigError, match=r"no features to show: its model was at chance .*report\.html"):
        explorable(tmp_path / "run")
    (tmp_path / "run" / "report.json").unlink()
    with pytest.raises(ConfigError, match="no report yet: mechinterp study dr-screening"):
        explorable(tmp_path / "run")


def test_images_of_other_patients_are_refused(tmp_path: Path, eyes: Path) -> None:
    mine = tmp_path / "eyes"
    shutil.copytree(eyes, mine)
    ended(tmp_path / "run", data=str(mine))
    table = (mine / "metadata.csv").read_text().splitlines()
    (mine / "metadata.csv").write_text("\n".join(table[:-3]) + "\n")
    with pytest.raises(HashMismatchError, match="other patients than the study confirmed on"):
        explorable(tmp_path / "run")
    assert not (tmp_path / "run" / EXPLORER / "activations").exists()
