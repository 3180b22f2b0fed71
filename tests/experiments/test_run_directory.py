"""A run's file says what belongs together."""

from __future__ import annotations

import pytest

from experiments.run_directory import Run
from mechinterp.errors import ConfigError
from mechinterp.files import read_json


def test_a_stage_is_recorded_with_time_and_versions_when_it_ends_well(tmp_path):
    run = Run.create(tmp_path / "run")
    with run.stage("capture", model="m") as record:
        record["activations"] = "activations"
    stage = Run.open(tmp_path / "run").stages["capture"]
    assert stage["model"] == "m"
    assert stage["activations"] == "activations"
    assert stage["seconds"] >= 0
    assert "torch" in stage["versions"]


def test_a_stage_that_fails_leaves_no_record(tmp_path):
    run = Run.create(tmp_path)
    with pytest.raises(RuntimeError), run.stage("capture"):
        raise RuntimeError
    assert run.stages == {}


def test_creating_again_keeps_what_is_there(tmp_path):
    with Run.create(tmp_path).stage("capture"):
        pass
    assert "capture" in Run.create(tmp_path).stages


def test_a_folder_without_run_json_names_the_commands_that_make_one(tmp_path):
    with pytest.raises(ConfigError, match=r"no run.json.*mechinterp study"):
        Run.open(tmp_path)


def test_paths_inside_are_relative(tmp_path):
    run = Run.create(tmp_path / "a")
    assert run.relative(tmp_path / "a" / "saes" / "x") == "saes/x"
    assert run.relative(tmp_path / "b") == (tmp_path / "b").resolve().as_posix()
    assert read_json(run.path)["format_version"] == 1
