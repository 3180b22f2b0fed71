"""The study end to end, with a small model whose answer is known, on the real template."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from experiments.cli import entry

pytest.importorskip("nilearn")
MODEL = f"py:{Path(__file__).with_name('tent_model.py')}:build"
SMALL = ["--quick", "--step-mm", "4", "--k", "4", "--expansion", "2", "--epochs", "6"]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    out = tmp_path_factory.mktemp("study") / "run"
    code = entry.run(["study", "brain-mri", "--out", str(out), "--model", MODEL, *SMALL])
    assert code == 0
    return out


@pytest.fixture(scope="module")
def results(study):
    return json.loads((study / "results.json").read_text())


def test_it_answers_in_three_lines_made_of_its_numbers(results):
    assert len(results["answer"]) == 3
    positive = results["target"]["positive"]
    assert f"{len(positive)} of {results['images']['n']}" in results["answer"][0]
    assert results["target"]["class"] == "meningioma"


def test_the_bands_are_where_the_planted_tent_has_its_slopes(results):
    below, above = results["target"]["bands"]
    position = results["images"]["position"]
    assert max(position[i] for i in below["images"]) < 0 < min(position[i] for i in above["images"])


def test_the_experiment_ran_both_ways_with_every_ablation_and_matched_controls(results):
    experiment = results["experiment"]
    assert experiment["verdict"]["word"] in {"drives", "no small set does"}
    ways = [d for d in experiment["directions"] if d["kind"] == "sae" and d["ranked_by"] == "reference"]
    assert {(d["chosen_on"], d["tested_on"]) for d in ways} == {("lower", "upper"), ("upper", "lower")}
    for way in ways:
        assert {c["ablation"] for c in way["curves"]} == {"zero", "mean", "resample", "towards"}
    assert {"sae", "neurons", "random"} == set(experiment["unit_kinds"])


def test_every_claim_has_controls_and_a_verdict_that_its_reasons_explain(results):
    for claim in results["claims"]:
        assert claim["verdict"] in {"met", "not met", "inconclusive"}
        assert (claim["verdict"] == "met") == (not claim["reasons"])
        assert "n = 1" in claim["interval_note"] or claim["interval"] or not claim["controls"]


def test_effects_and_attributes_stand_at_every_living_feature(results):
    alive = [f for f in results["features"] if f["alive"]]
    assert alive
    names = {a["name"] for a in results["images"]["attributes"]}
    assert {"brain_area", "grey_fraction", "slice_position"} <= names
    for feature in alive:
        assert {a["attribute"] for a in feature["attributes"]} <= names
        assert set(feature["effects"]) == {"zero", "mean", "resample", "towards"}
        assert len(feature["values"]) == results["images"]["n"]


def test_probes_carry_units_error_and_the_reason_why_there_is_no_interval(results):
    area = next(p for p in results["probes"] if p["attribute"] == "brain_area")
    assert area["unit"] == "mm²"
    assert area["mae"] > 0
    assert area["interval"] is None
    assert "not estimable (n = 1)" in area["interval_note"]


def test_the_autoencoder_stands_beside_its_baselines(results):
    assert {"frozen-random SAE"} <= {c["name"] for c in results["sae"]["controls"]}
    assert results["sae"]["metrics"]["explained_variance"] <= 1
    assert results["sae"]["metrics"]["kl_identity"] == pytest.approx(0, abs=1e-6)


def test_overlays_are_placed_in_millimetres_on_the_slice(results):
    grid = results["grid"]
    placed = grid.get("shared") or grid["per_image"][0]
    height, width = results["images"]["size_mm"][0]
    assert grid["rows"] * placed["step_mm"][0] == pytest.approx(height, rel=1e-6)
    assert grid["columns"] * placed["step_mm"][1] == pytest.approx(width, rel=1e-6)
    assert results["images"]["orientation_labels"] == {"top": "A", "bottom": "P", "left": "L", "right": "R"}


def test_preparation_and_the_second_head_are_reported(results):
    rows = results["preparation"]
    assert rows[0]["name"] == "as in this study"
    assert len(rows) > 8
    assert all(0 <= row["same_answer"] <= 1 for row in rows)
    assert results["replication"]["text"]


def test_the_pages_lead_to_the_report(study):
    assert "report.html" in (study / "page" / "pages" / "stages.js").read_text()
    assert (study / "report.html").is_file()


def test_the_pages_are_there_and_name_no_address(study):
    page = study / "page"
    assert (page / "index.html").exists()
    shell = (page / "index.html").read_text()
    assert "http://" not in shell
    assert "https://" not in shell


def test_the_report_is_there_planned_before_the_run_and_not_met_strictly(study, capsys):
    report = json.loads((study / "report.json").read_text())
    assert report["plan"]["registered"]
    assert [part["element"] for part in report["elements"] if part["n_tests"]] == [
        "physical attribution",
        "model transparency",
    ]
    assert entry.run(["report", str(study), "--strict"]) == 1
    assert "0 of 3 needed elements are met" in capsys.readouterr().out
    assert "Research use only" in (study / "report.html").read_text()


def test_the_run_says_what_made_it(study):
    stages = json.loads((study / "run.json").read_text())["stages"]
    assert {"capture", "train-sae", "study"} <= set(stages)
    assert stages["study"]["weights_hash"]
    assert stages["study"]["config"]["k"] == 4


def test_given_again_it_takes_over_what_is_there_and_finds_the_same(study, results, capsys):
    assert entry.run(["study", "brain-mri", "--out", str(study), "--model", MODEL, *SMALL, "--json"]) == 0
    out, err = capsys.readouterr()
    assert "taken over" in err
    assert json.loads(out)["answer"] == results["answer"]
    again = json.loads((study / "results.json").read_text())
    assert again["experiment"] == results["experiment"]
    assert np.allclose(again["images"]["logits"], results["images"]["logits"], atol=1e-6)


def test_a_random_model_is_stamped_and_claims_nothing(tmp_path):
    out = tmp_path / "run"
    assert entry.run(["study", "brain-mri", "--out", str(out), "--model", MODEL, "--weights", "random", *SMALL]) == 0
    found = json.loads((out / "results.json").read_text())
    assert found["model"]["trained"] is False
    assert all(c["verdict"] == "not met" for c in found["claims"])
    assert all(line.startswith("UNTRAINED") for line in found["answer"])
    report = json.loads((out / "report.json").read_text())
    assert {part["verdict"]["word"] for part in report["elements"] if part["needed"]} == {"not met"}


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--model", "timm:vit_tiny_patch16_225", "--weights", "random"], "vit_tiny_patch16_224"),
        (["--model", MODEL, "--site", "features.9"], "features"),
        (["--model", MODEL, "--target", "meningeoma"], "'meningioma'"),
        (["--threshold", "2"], "threshold"),
    ],
)
def test_wrong_input_is_one_line_with_the_remedy(tmp_path, capsys, flags, said):
    assert entry.run(["study", "brain-mri", "--out", str(tmp_path / "run"), *flags]) == 2
    err = capsys.readouterr().err
    line = [x for x in err.splitlines() if x.startswith("mechinterp:")]
    assert len(line) == 1
    assert said in line[0]


def test_an_unknown_study_is_refused(tmp_path, capsys):
    assert entry.run(["study", "brain-mir", "--out", str(tmp_path)]) == 2
    assert "did you mean 'brain-mri'" in capsys.readouterr().err
