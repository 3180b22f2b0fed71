"""``mechinterp phantoms KIND`` from the shell."""

import json

import numpy as np
import pytest

from experiments.cli import entry
from mechinterp.images.opening import open_images
from mechinterp.phantoms.datasets import KINDS


def run(*argv):
    return entry.run([str(a) for a in argv])


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_kind_writes_a_folder_that_opens_as_images(kind, tmp_path, capsys):
    out = tmp_path / kind
    assert run("phantoms", kind, "--n", 8, "--size", 64, "--seed", 3, "--contact-sheet", "--out", out, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["images"] == 8
    assert said["patients"] == 4
    assert (out / "contact-sheet.png").is_file()
    assert {p.name for p in (out / "masks").iterdir()} == set(KINDS[kind].structures)
    images = open_images(out)
    assert len(images) == 8
    assert set(images.labels) <= set(KINDS[kind].class_names)
    assert images[0].pixels.shape[0] == 64


def test_a_shortcut_and_a_setting_of_the_kind_reach_the_images(tmp_path):
    assert (
        run(
            "phantoms", "chest", "--patients", 40, "--images-per-patient", 1, "--size", 64, "--set", "extent_mm=420",
            "--shortcut", "portable_tag", "--shortcut-train", 1, "--shortcut-test", -1, "--no-masks", "--out", tmp_path / "x",
        )
        == 0
    )  # fmt: skip
    images = open_images(tmp_path / "x")
    assert images[0].spacing_mm == pytest.approx((420 / 64, 420 / 64))
    tag, label = images.attributes.column("portable_tag"), np.array(images.labels) == "abnormal"
    test = np.array(images.splits) == "test"
    assert (tag[~test] == label[~test]).all()
    assert (tag[test] != label[test]).all()


@pytest.mark.parametrize(
    ("argv", "word"),
    [
        (["phantoms", "mammogramm", "--out", "x"], "did you mean 'mammogram'"),
        (["phantoms", "chest", "--shortcut", "ruler_mark", "--out", "x"], "no mark 'ruler_mark'"),
        (["phantoms", "chest", "--contrast-correlation", "0.5", "--out", "x"], "no setting 'contrast_correlation'"),
        (["phantoms", "chest", "--set", "extent", "--out", "x"], "give NAME=NUMBER"),
        (["phantoms", "chest", "--n", "8", "--patients", "4", "--out", "x"], "give one"),
        (["phantoms", "stimuli", "--size", "8", "--out", "x"], "at least 48 pixels"),
    ],
)
def test_mistakes_are_named_in_one_line(argv, word, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(*argv) == 2
    error = capsys.readouterr().err
    assert word in error
    assert len([line for line in error.splitlines() if line.startswith("mechinterp:")]) == 1
