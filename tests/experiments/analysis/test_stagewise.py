"""A run is analysed anew when what its numbers come from has changed, and only then."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from experiments.analysis import stagewise


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
