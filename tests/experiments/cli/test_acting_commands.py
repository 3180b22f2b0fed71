"""``mechinterp shortcuts`` and ``mechinterp edit`` on a user's own network, and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from experiments.cli import entry

MODEL = f"py:{Path(__file__).with_name('user_net.py')}:build"


def run(*argv):
    return entry.run([str(a) for a in argv])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("acting")
    scans, store = folder / "scans", folder / "a" / "activations"
    phantoms = ("--patients", 80, "--images-per-patient", 1, "--size-px", 48, "--no-masks", "--shortcut", "camera_tag")
    assert run("phantoms", "fundus", *phantoms, "--shortcut-train", 0, "--validation-share", 0.4, "--out", scans) == 0
    assert run("capture", "--model", MODEL, "--images", scans, "--site", "stages.2", "--out", store) == 0
    return folder / "a"


def test_shortcuts_are_searched_between_two_values_of_an_attribute(made, capsys):
    capsys.readouterr()
    settings = ("--environment", "laterality", "--target", 1, "--label", "referable", "--site", "stages.2")
    assert run("shortcuts", made, *settings, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert sorted(said["environments"]) == ["laterality 0", "laterality 1"]
    assert said["ranked"][0]["rank"] == 1
    for name in said["files"].values():
        assert Path(name).stat().st_size > 0
    assert "shortcuts" in json.loads((made / "run.json").read_text())["stages"]


def test_an_edit_is_billed_on_the_test_images(made, capsys):
    capsys.readouterr()
    settings = (
        "--shortcut",
        "camera_tag",
        "--target",
        1,
        "--label",
        "referable",
        "--site",
        "stages.2",
        "--features",
        "0,1",
    )
    assert run("edit", made, *settings, "--random", 2, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["method"] == "ablate"
    assert said["images"] == 20
    assert "camera_tag" not in {c["attribute"] for c in said["collateral"]}
    assert Path(said["files"]["edit.html"]).stat().st_size > 0


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            ("shortcuts", "--environment", "scaner", "--target", "1", "--site", "stages.2"),
            "is no attribute of the images",
        ),
        (("shortcuts", "--environment", "laterality", "--target", "1"), "has no autoencoders"),
        (("shortcuts", "--environment", "laterality", "--target", "1", "--method", "guess"), "--method is 'guess'"),
        (("edit", "--shortcut", "camera_tag", "--target", "1", "--site", "stages.2"), "no image is labelled"),
        (("edit", "--shortcut", "camera_tag", "--target", "1", "--method", "guess"), "--method is 'guess'"),
        (("edit", "--shortcut", "camera_tag", "--target", "1", "--features", "a"), "--features is 'a'"),
    ],
)
def test_what_cannot_be_meant_is_said_in_one_line(made, capsys, argv, message):
    assert run(argv[0], made, *argv[1:]) == 2
    assert message in capsys.readouterr().err
