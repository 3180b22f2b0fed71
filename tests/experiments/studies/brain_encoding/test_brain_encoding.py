"""brain-encoding from the shell: planted right, and planted wrong in four ways. Claims are held against the simulated voxels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.cli import entry
from experiments.report import read_report
from experiments.report.report import Report

pytestmark = pytest.mark.slow
SMALL = ("--quick", "--subjects", "1", "--exemplars", "200", "--epochs", "3", "--n-random", "20")


def run(out: Path, *more: str) -> Report:
    assert entry.run(["study", "brain-encoding", "--out", str(out), *SMALL, *more, "--json"]) == 0
    return read_report(out)


@pytest.fixture(scope="module")
def planted_right(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return run(tmp_path_factory.mktemp("brain") / "run")


def claims(report: Report, element: str) -> dict[str, Any]:
    return {claim.test: claim for claim in report.evidence[element].claims}


def control(claim: Any, name: str) -> Any:
    return next(c for c in claim.controls if c.name == name)


def test_responses_to_new_stimuli_are_predicted_and_every_region_is_held_against_its_ceiling(
    planted_right: Report,
) -> None:
    check = planted_right.model_check
    assert check.state == "does its task"
    assert [claim.unit for claim in check.claims] == ["share of the noise ceiling"] * 3
    # no region can be predicted beyond its noise ceiling
    assert all(claim.interval[0] < 1 for claim in check.claims)


def test_receptive_fields_lie_where_the_simulated_voxels_have_them(planted_right: Report) -> None:
    claim = claims(planted_right, "localization")["receptive fields lie where they are"]
    assert claim.strength == "ground-truth-verified"
    fixation, misplaced = (control(claim, n).value for n in ("always fixation", "responses to other stimuli"))
    assert claim.value < min(fixation, misplaced)


def test_voxels_that_see_nothing_are_given_no_field(planted_right: Report) -> None:
    claim = claims(planted_right, "localization")["receptive fields lie where they are"]
    assert control(claim, "voxels of noise alone").passed


def test_predictions_follow_stimuli_that_are_rendered_again_as_the_voxels_do(planted_right: Report) -> None:
    found = claims(planted_right, "physical attribution")
    assert found
    for claim in found.values():
        assert claim.strength == "ground-truth-verified"
        assert 0 < claim.value < 2
        assert claim.value > control(claim, "responses to other stimuli").value


def test_the_plan_was_written_before_the_confirmation_stimuli_were_opened(planted_right: Report) -> None:
    record = planted_right.plan
    assert record.registered is not None
    assert record.opened is not None
    assert record.registered <= record.opened
    assert record.plan.discovery != record.plan.confirmation


def test_the_report_says_that_it_is_not_about_other_people(planted_right: Report) -> None:
    assert any("not for other people" in limit for limit in planted_right.limits)


@pytest.mark.parametrize("condition", ["random-network", "shuffled-responses", "noise-only"])
def test_where_nothing_is_predicted_nothing_is_claimed(
    condition: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = run(tmp_path / "run", "--condition", condition)
    assert report.model_check.state == "at chance"
    assert {report.verdicts[name].word for name in report.use_case.needs} == {"not met"}
    assert json.loads(capsys.readouterr().out)["strict"] == 1


def test_features_that_were_never_trained_carry_no_prediction(tmp_path: Path) -> None:
    report = run(tmp_path / "run", "--condition", "frozen-random-sae")
    assert report.verdicts["model transparency"].word != "met"
    assert report.strict() == 1


def test_a_users_own_recordings_are_reported_without_truth(tmp_path: Path, planted_right: Report) -> None:
    from experiments.studies.brain_encoding.config import BrainEncodingConfig
    from experiments.studies.brain_encoding.experiment import simulated_experiment
    from mechinterp.progress import SILENT

    known = simulated_experiment(BrainEncodingConfig(exemplars=120, subjects=1, voxels=15), SILENT)
    assert known.truth is not None
    folder = known.truth.phantoms.write_image_folder(tmp_path / "scans", masks=False)
    np.save(folder / "responses.npy", known.responses)
    rows = "".join(f"v{i},{region if region != 'noise' else 'elsewhere'}\n" for i, region in enumerate(known.region))
    (folder / "voxels.csv").write_text(f"voxel,region\n{rows}")
    report = run(tmp_path / "run", "--data", str(folder), "--extent-deg", "17")
    assert not report.use_case.truth_known
    assert report.model_check.state == "does its task"
    assert report.verdicts["physical attribution"].word == "not addressed"
    assert all(claim.strength != "ground-truth-verified" for e in report.elements for claim in e.claims)
