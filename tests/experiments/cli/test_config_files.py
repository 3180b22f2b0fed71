"""``mechinterp init`` and ``run``: a config file that runs as it is written, and files that cannot be meant."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments.cli import entry
from experiments.cli.config_file import read_stages
from mechinterp.errors import ConfigError

MODEL = f"py:{Path(__file__).with_name('user_net.py')}:build"


def run(*argv):
    return entry.run([str(a) for a in argv])


@pytest.fixture
def scans(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "scans").mkdir()
    rows = ["file_name,label,group,area,depth"]
    for i in range(24):
        Image.fromarray(rng.integers(0, 255, (48, 48, 3)).astype(np.uint8)).save(tmp_path / "scans" / f"{i:02d}.png")
        rows.append(f"{i:02d}.png,{'ab'[i % 2]},p{i // 2},{rng.normal():.3f},{rng.normal():.3f}")
    (tmp_path / "scans" / "metadata.csv").write_text("\n".join(rows) + "\n")
    return tmp_path / "scans"


def test_what_init_writes_names_sites_and_attributes_and_runs_from_elsewhere(scans, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("init", "mine.toml", "--model", MODEL, "--images", "scans", "--weights", "random") == 0
    text = (tmp_path / "mine.toml").read_text()
    made = tomllib.loads(text)
    assert made["capture"]["site"] == ["stages.1", "stages.2"]
    assert "# or: stages.0" in text
    assert made["train-sae"]["site"] == "stages.2"
    assert made["train-sae"]["k"] == 4  # few beside the site's width of 24
    assert [p["attribute"] for p in made["probe"]] == ["area"]
    assert '# attribute = "depth"' in text
    # the file is edited to what this test has time for
    (tmp_path / "mine.toml").write_text(text[: text.index("[train-sae]")])
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert run("run", tmp_path / "mine.toml", "--dry-run") == 0
    assert "mechinterp capture --model" in capsys.readouterr().out
    assert not (tmp_path / "runs").exists()
    assert run("run", tmp_path / "mine.toml") == 0
    assert (tmp_path / "runs/mine/activations/manifest.json").exists()
    assert Path.cwd() == elsewhere


def test_init_says_what_the_images_lack_for_a_whole_report(scans, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("init", "a.toml", "--model", MODEL, "--images", "scans", "--weights", "random") == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "labels (a, b) are not the model's classes (healthy, <script>" in said
    assert "no column of a metadata.csv says which images the model was fitted to" in said
    assert "one patient's" not in said
    (scans / "metadata.csv").unlink()
    assert run("init", "b.toml", "--model", MODEL, "--images", "scans", "--weights", "random") == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "every image counts as a patient of its own" in said
    assert "no column `label` of a metadata.csv" in said


def test_the_attribute_asked_for_is_probed_first_and_a_misspelt_one_is_told(scans, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = ("--model", MODEL, "--images", "scans", "--weights", "random", "--attribute")
    assert run("init", "a.toml", *asked, "depth") == 0
    assert [p["attribute"] for p in tomllib.loads((tmp_path / "a.toml").read_text())["probe"]] == ["depth"]
    assert run("init", "b.toml", *asked, "dept") == 2
    assert "did you mean 'depth'" in capsys.readouterr().err
    assert not (tmp_path / "b.toml").exists()


def test_a_map_of_two_channels_is_not_what_init_decomposes(scans, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mapped.py").write_text(
        "from torch import nn\n\n\nclass Net(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n"
        "        self.stages = nn.Sequential(nn.Sequential(nn.Conv2d(3, 12, 3, 2, 1), nn.ReLU()),"
        " nn.Sequential(nn.Conv2d(12, 16, 3, 2, 1), nn.ReLU()))\n"
        "        self.lesions = nn.Conv2d(16, 2, 1)\n        self.head = nn.Linear(2, 2)\n\n"
        "    def forward(self, x):\n        return self.head(self.lesions(self.stages(x)).sigmoid().sum((2, 3)))\n\n\n"
        "def build():\n    return Net()\n\n\nbuild.input_size = (48, 48)\n"
    )
    assert run("init", "a.toml", "--model", "py:mapped.py:build", "--images", "scans", "--weights", "random") == 0
    made = tomllib.loads((tmp_path / "a.toml").read_text())
    assert made["train-sae"]["site"] == "stages.1"
    assert made["capture"]["site"] == ["stages.0", "stages.1"]


def test_without_model_and_images_init_leaves_names_to_be_replaced(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run("init") == 0
    said = capsys.readouterr().err
    assert "names no sites yet" in said
    assert "names no attributes yet" in said
    assert [s.command for s in read_stages(tmp_path / "study.toml")] == ["capture", "train-sae", "report", "dashboard"]
    assert run("init") == 2
    assert "is there already" in capsys.readouterr().err


def test_a_stage_that_fails_ends_the_run_with_its_exit_code(tmp_path, capsys):
    (tmp_path / "a.toml").write_text('[verify]\nargs = ["nothing"]\n\n[models]\n')
    assert run("run", tmp_path / "a.toml") == 2
    assert "stopped at 1 of 2, verify" in capsys.readouterr().err.replace("\n", " ")


def test_flags_come_from_keys_lists_and_truths(tmp_path):
    (tmp_path / "a.toml").write_text(
        '[capture]\nsite = ["x", "y"]\noutputs = true\nappend = false\nbatch-size = 4\n\n[[probe]]\nattribute = "a"\n\n[[probe]]\n'
        'attribute = "b"\n\n[report]\nargs = ["runs/a"]\n'
    )
    assert [s.words for s in read_stages(tmp_path / "a.toml")] == [
        ["capture", "--site", "x", "--site", "y", "--outputs", "--batch-size", "4"],
        ["probe", "--attribute", "a"],
        ["probe", "--attribute", "b"],
        ["report", "runs/a"],
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[captur]\n", "no command: did you mean 'capture'"),
        ("[run]\n", "no command"),
        ("capture = 3\n", r"must be a table, \[capture\]"),
        ("[capture]\nsite = {a = 1}\n", "'site' of"),
        ("[capture\n", "is no TOML"),
        ("", "names no command"),
    ],
)
def test_files_that_cannot_be_meant_are_refused(tmp_path, text, words):
    (tmp_path / "a.toml").write_text(text)
    with pytest.raises(ConfigError, match=words):
        read_stages(tmp_path / "a.toml")


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read .*no\.toml"):
        read_stages(tmp_path / "no.toml")


def test_init_says_how_images_are_fitted_and_goes_on_where_one_cannot_be_read(scans, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (scans / "metadata.csv").unlink()
    for picture in scans.rglob("*.png"):
        with Image.open(picture) as opened:
            opened.resize((96, 32)).save(picture)
    asked = ("--model", MODEL, "--images", "scans", "--weights", "random")
    assert run("init", "a.toml", *asked) == 0
    assert "of the input stay black; was the model trained so?" in capsys.readouterr().err
    assert 'fit = "pad"' in (tmp_path / "a.toml").read_text()
    first = min(scans.rglob("*.png"))
    first.write_bytes(first.read_bytes()[:80])
    assert run("init", "b.toml", *asked) == 0
    assert (tmp_path / "b.toml").exists()


def relabelled(scans, change):
    """Rewrite the table's rows: a list of cells by column name in, the same out."""
    table = scans / "metadata.csv"
    header, *rows = [line.split(",") for line in table.read_text().splitlines()]
    cells = change([dict(zip(header, row, strict=True)) for row in rows])
    table.write_text("\n".join([",".join(header), *(",".join(row[c] for c in header) for row in cells)]) + "\n")


def test_init_says_that_labels_are_missing_of_one_class_or_of_few_patients(scans, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = ("--model", MODEL, "--images", "scans", "--weights", "random")
    relabelled(
        scans,
        lambda rows: [
            {**r, "label": "" if i < 2 else "healthy", "group": f"p{i % 3}", "area": ""} for i, r in enumerate(rows)
        ],
    )
    assert run("init", "a.toml", *asked) == 0
    said = capsys.readouterr().err
    assert "2 of 24 images carry no label" in said
    assert "every image that has a label is 'healthy': with one class" in said
    assert "3 patients: under 10, no interval over patients is given" in said
    assert "no value in any row: area" in said
    assert [p["attribute"] for p in tomllib.loads((tmp_path / "a.toml").read_text())["probe"]] == ["depth"]


def test_labels_between_bars_are_findings_of_a_model_of_several(scans, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    relabelled(
        scans, lambda rows: [{**r, "label": "healthy|other" if i % 2 else "No Finding"} for i, r in enumerate(rows)]
    )
    asked = ("--images", "scans", "--weights", "random", "--model")
    assert run("init", "a.toml", *asked, f"{MODEL}?activation=sigmoid") == 0
    assert "are not the model's classes" not in capsys.readouterr().err
    assert run("init", "b.toml", *asked, MODEL) == 0
    assert "the labels (No Finding, healthy|other) are not the model's classes" in capsys.readouterr().err
