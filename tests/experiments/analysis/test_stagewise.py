"""A run is analysed anew when what its numbers come from has changed, and only then."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from experiments.analysis import stagewise
from experiments.analysis.stagewise import answer_counts
from experiments.cli import entry
from mechinterp.errors import HashMismatchError
from mechinterp.store.reader import ActivationStore

MODEL = f"py:{Path(__file__).parents[1] / 'cli' / 'user_net.py'}:build"


@pytest.fixture
def analysed(tmp_path, monkeypatch):
    """A run with a store, an autoencoder and a table of its images; and how often it was analysed."""
    images = tmp_path / "scans"
    for folder in ("run/activations", "run/saes/seed-0", "scans"):
        (tmp_path / folder).mkdir(parents=True)
    (images / "metadata.csv").write_text("file_name,area_mm2\na.png,1\n")
    source = {"kind": "folder", "path": str(images)}
    (tmp_path / "run/activations/manifest.json").write_text(json.dumps({"images": {"source": source}}))
    (tmp_path / "run/saes/seed-0/cfg.json").write_text('{"k": 4}')
    (tmp_path / "run/saes/seed-0/sae_weights.safetensors").write_bytes(b"first")
    seen = []
    monkeypatch.setattr(stagewise, "_page_texts", lambda *_: {})
    monkeypatch.setattr(
        stagewise, "_explored", lambda *_: seen.append(1) or SimpleNamespace(results=lambda: {"n": len(seen)})
    )
    stagewise.ensure_results(tmp_path / "run")
    assert len(seen) == 1
    return tmp_path, seen


def test_a_run_that_did_not_change_keeps_its_results(analysed):
    folder, seen = analysed
    stagewise.ensure_results(folder / "run")
    assert len(seen) == 1


def test_an_autoencoder_trained_anew_with_the_same_settings_is_analysed_anew(analysed):
    folder, seen = analysed
    (folder / "run/saes/seed-0/sae_weights.safetensors").write_bytes(b"second")
    stagewise.ensure_results(folder / "run")
    assert len(seen) == 2
    assert json.loads((folder / "run/results.json").read_text())["n"] == 2


@pytest.mark.parametrize("name", ["metadata.csv", "dataset.yaml"])
def test_attributes_that_were_corrected_are_analysed_anew(analysed, name):
    folder, seen = analysed
    (folder / "scans" / name).write_text("file_name,area_mm2\na.png,2\n")
    stagewise.ensure_results(folder / "run")
    assert len(seen) == 2


def test_a_run_looked_at_where_its_images_are_not_keeps_its_results(analysed):
    folder, seen = analysed
    (folder / "scans").rename(folder / "elsewhere")
    stagewise.ensure_results(folder / "run")
    assert len(seen) == 1


@pytest.fixture
def captured(tmp_path):
    """A store of the test images of a folder, and the folder."""
    scans, rng = tmp_path / "scans", np.random.default_rng(0)
    scans.mkdir()
    for i in range(6):
        Image.fromarray(rng.integers(0, 255, (48, 48, 3), dtype=np.uint8)).save(scans / f"{i}.png")
    write_table(scans)
    argv = ["capture", "--model", MODEL, "--images", scans, "--site", "stages.2", "--split", "test", "--no-check"]
    assert entry.run([*map(str, argv), "--out", str(tmp_path / "run" / "activations")]) == 0
    return scans, ActivationStore.open(tmp_path / "run" / "activations")


def write_table(scans, **changed):
    rows = ["file_name,label,group,split,spacing_row_mm,spacing_column_mm"]
    for i in range(6):
        row = {"label": "a", "group": f"p{i}", "split": "test" if i > 2 else "train", "row": 0.5, "column": 0.25}
        row |= changed if i == 4 else {}
        rows.append(f"{i}.png,{row['label']},{row['group']},{row['split']},{row['row']},{row['column']}")
    (scans / "metadata.csv").write_text("\n".join(rows) + "\n")


def test_the_images_of_a_split_are_found_again(captured):
    scans, store = captured
    found = stagewise.images_of(store)
    assert found.ids == ("3.png", "4.png", "5.png")
    assert stagewise.images_of(store, scans).ids == found.ids


def test_a_label_that_was_corrected_is_taken(captured):
    scans, store = captured
    write_table(scans, label="b")
    assert stagewise.images_of(store).labels == ("a", "b", "a")


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"group": "p5"}, "image '4.png' has another group than when .* was captured: capture again"),
        ({"group": ""}, "image '4.png' has another group"),
        ({"split": "validation"}, r"another split than when .* \('validation', was 'test'\)"),
        ({"row": 0.6}, "another spacing, or other values shown as black and white, than when"),
    ],
)
def test_what_would_make_other_numbers_of_the_same_activations_is_refused(captured, changed, words):
    scans, store = captured
    write_table(scans, **changed)
    with pytest.raises(HashMismatchError, match=words):
        stagewise.images_of(store, scans)


def test_answers_are_counted_once_an_image_or_for_each_finding_of_its_own():
    p = np.array([[0.9, 0.8], [0.6, 0.7], [0.1, 0.2]], np.float32)
    assert answer_counts(p, several=False).tolist() == [1, 2]
    assert answer_counts(p, several=True).tolist() == [2, 2]
    assert answer_counts(p[:, :1], several=True).tolist() == [2]
    assert answer_counts(p[:, :1] / 4, several=True).tolist() == [0]
