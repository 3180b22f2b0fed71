"""``mechinterp localize`` on phantoms that a user's own network has not learned."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from experiments.cli import entry
from experiments.cli.commands.localize import _whose
from mechinterp.errors import ConfigError

MODEL = f"py:{Path(__file__).with_name('user_net.py')}:build"
QUICK = (
    "--most-images", 4, "--faithful-images", 2, "--random-images", 2, "--stages", 1, "--boot", 100, "--steps", 2
)  # fmt: skip


def run(*argv):
    return entry.run([str(a) for a in argv])


@pytest.fixture(scope="module")
def eyes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("eyes")
    assert run("phantoms", "fundus", "--patients", 16, "--images-per-patient", 1, "--size-px", 48, "--out", folder) == 0
    return folder


def test_the_table_is_printed_and_written(eyes, tmp_path, capsys):
    given = ("--metric", "0", "--mask", "haemorrhages", "--mask", "exudates", "--method", "gradient", "--out", tmp_path)
    assert run("localize", "--model", MODEL, "--images", eyes, *given, *QUICK, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert [r["method"] for r in said["rows"]] == ["gradient", "edges", "centre", "random"]
    assert said["claims"][0]["verdict"] in {"inconclusive", "not met"}
    assert json.loads((tmp_path / "localization.json").read_text())["best"] == "gradient"
    page = (tmp_path / "localization.html").read_text()
    assert "<title>Where logit of" in page
    assert "Research use only" in page


def test_mistakes_are_one_line(eyes, tmp_path, capsys):
    given = ("--model", MODEL, "--images", eyes, "--metric", "0", "--out", tmp_path)
    assert run("localize", *given, "--mask", "haemorrhage", *QUICK) == 2
    assert "no image has a mask 'haemorrhage': did you mean 'haemorrhages'" in capsys.readouterr().err
    assert run("localize", *given, "--mask", "exudates", "--method", "cam", *QUICK) == 2
    assert "there is no method 'cam'" in capsys.readouterr().err
    assert run("localize", *given, "--mask", "exudates", "--discovery", "dev") == 2
    assert "has no split 'dev'" in capsys.readouterr().err


def test_a_folder_of_two_splits_needs_no_flag_and_images_are_fitted_as_the_model_was_trained(
    eyes, tmp_path, capsys, monkeypatch
):
    from circuits import localization

    scans = tmp_path / "scans"
    shutil.copytree(eyes, scans)
    table = scans / "metadata.csv"
    table.write_text(table.read_text().replace("validation", "train"))
    asked = {}

    def table_of(model, discovery, confirmation, metric, **given):
        asked.update(given, splits=(set(discovery.splits), set(confirmation.splits)))
        raise ConfigError("far enough")

    monkeypatch.setattr(localization, "localization_table", table_of)
    given = ("--metric", "0", "--mask", "exudates", "--out", tmp_path, "--fit", "stretch")
    assert run("localize", "--model", MODEL, "--images", scans, *given) == 2
    assert asked["splits"] == ({"train"}, {"test"})
    assert asked["preparation"].fit == "stretch"


def test_the_shell_does_not_count_patients_that_nobody_named():
    assert _whose(SimpleNamespace(patients=3)) == "of 3 patients"
    assert _whose(SimpleNamespace(patients=0)) == "that name no patients"
