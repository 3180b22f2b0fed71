"""dr-screening from the shell: planted right, and a network that was never trained. Claims are held against the phantoms."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from experiments.cli import entry
from experiments.report import read_report
from experiments.report.report import Report
from experiments.studies.phantom.study import UNEXPLORED

pytestmark = pytest.mark.slow
SMALL = ("--quick", "--patients", "60", "--epochs", "3", "--n-random", "20")


def run(out: Path, *more: str) -> Report:
    assert entry.run(["study", "dr-screening", "--out", str(out), *SMALL, *more, "--json"]) == 0
    return read_report(out)


@pytest.fixture(scope="module")
def planted_right(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """One run for all processes that the tests are dealt to."""
    here = tmp_path_factory.getbasetemp()
    shared = (here.parent if "PYTEST_XDIST_WORKER" in os.environ else here) / "dr-planted-right"
    with FileLock(f"{shared}.lock"):
        return read_report(shared) if (shared / "report.json").is_file() else run(shared)


def claims(report: Report, element: str) -> dict[str, Any]:
    return {claim.test: claim for claim in report.evidence[element].claims}


def test_a_good_model_does_its_task_and_follows_the_lesions_that_the_phantom_was_given(planted_right: Report) -> None:
    assert planted_right.model_check.state == "does its task"
    found = claims(planted_right, "physical attribution")
    for lesion in ("exudate", "haemorrhage"):
        claim = found[f"the answer follows {lesion} area"]
        assert claim.strength == "ground-truth-verified"
        # more lesion makes a phantom referable by rule, so both slopes are upwards
        assert claim.numbers["steered slope"] > 0
        assert claim.numbers["true slope"] > 0


def test_the_plan_was_written_before_the_confirmation_patients_were_opened(planted_right: Report) -> None:
    record = planted_right.plan
    assert record.registered is not None
    assert record.opened is not None
    assert record.registered <= record.opened
    assert record.plan.discovery != record.plan.confirmation


def test_marks_that_the_model_never_saw_do_not_move_it(planted_right: Report) -> None:
    control = next(
        c for c in claims(planted_right, "physical attribution")["the answer follows exudate area"].controls
        if c.name == "burnt-in marks"
    )  # fmt: skip
    assert control.passed


def test_relevance_lies_on_the_lesions_that_were_rendered(planted_right: Report) -> None:
    claim = claims(planted_right, "localization")["relevance maps find the lesions"]
    assert claim.strength == "ground-truth-verified"
    assert claim.value > 0


def test_names_are_tested_on_others_and_shown_beside_those_of_a_frozen_random_autoencoder(
    planted_right: Report,
) -> None:
    claim = claims(planted_right, "visual recognizability")["a feature's name tells its images from others"]
    assert {c.name for c in claim.controls} == {
        "names from shuffled attributes", "names of a frozen-random autoencoder's features"
    }  # fmt: skip
    assert "visual recognizability" not in planted_right.use_case.needs


def test_a_model_that_never_learnt_a_mark_is_not_accused_and_no_edit_is_made(planted_right: Report) -> None:
    found = claims(planted_right, "actionability")
    search = found["no feature serves a burnt-in mark"]
    assert search.numbers["features whose use differs"] == 0
    at_random, *others = search.controls
    assert all(control.passed for control in others)
    # a test that holds its level raises too many alarms in one study of forty, on this seed on some processors; ten in a hundred it does
    # once in ten million
    assert search.numbers["alarms"] < 10
    assert search.verdict == ("met" if at_random.passed else "not met")
    assert "an edit takes the mark's weight away" not in found
    assert "an edit takes the mark's weight away" not in {t.name for t in planted_right.plan.plan.tests}


def test_a_model_that_learnt_the_camera_tag_is_found_out_and_mended(tmp_path: Path) -> None:
    report = run(tmp_path / "run", "--condition", "shortcut", "--patients", "100")
    assert report.verdicts["physical attribution"].word == "not met"
    assert report.strict() == 1
    assert report.model_check.state == "does its task"
    claim = claims(report, "physical attribution")["the answer follows exudate area"]
    marks = next(c for c in claim.controls if c.name == "burnt-in marks")
    assert marks.passed is False
    assert "camera tag" in marks.detail
    acted = claims(report, "actionability")
    search = acted["no feature serves a burnt-in mark"]
    assert search.verdict == "not met"
    # the features that were found carry most of what the tag does, by the same photographs without it
    assert search.numbers["share of the mark's effect"] > 0.5
    edit = acted["an edit takes the mark's weight away"]
    assert edit.value >= 0.5
    assert edit.numbers["clean accuracy after"] > edit.numbers["clean accuracy before"] - 0.01


def test_features_that_were_never_trained_carry_no_answer(tmp_path: Path) -> None:
    report = run(tmp_path / "run", "--condition", "frozen-random-sae", "--patients", "40")
    assert report.verdicts["model transparency"].word == "not met"
    assert report.strict() == 1
    # what sees nothing of the answer cannot say that no feature serves a mark
    search = claims(report, "actionability")["no feature serves a burnt-in mark"]
    blind = next(c for c in search.controls if c.name == "the features see what moves the answer")
    assert blind.passed is False
    assert search.verdict == "not met"


def test_shuffled_labels_leave_nothing_to_interpret(tmp_path: Path) -> None:
    report = run(tmp_path / "run", "--condition", "shuffled-labels")
    assert {report.verdicts[name].word for name in report.use_case.needs} <= {"not met", "not addressed"}
    assert report.strict() == 1


def test_a_random_network_is_not_interpreted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = run(tmp_path / "run", "--condition", "random-network")
    assert {report.verdicts[name].word for name in report.use_case.needs} <= {"not met", "not addressed"}
    assert report.verdicts["physical attribution"].word == "not met"
    assert UNEXPLORED in report.limits
    assert report.strict() == 1
    said = json.loads(capsys.readouterr().out)
    assert said["strict"] == 1
