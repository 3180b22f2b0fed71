"""From a folder of images and a user's own network to pages, stage by stage, as the README says."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from experiments.cli import entry

MODEL = f"py:{Path(__file__).with_name('user_net.py')}:build"


def run(*argv):
    return entry.run([str(a) for a in argv])


def said(capsys):
    """Return the one line of an error."""
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("mechinterp:")]
    assert len(lines) == 1
    return lines[0]


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "scans"
    assert run("phantoms", "fundus", "--patients", 12, "--size-px", 48, "--no-masks", "--out", folder) == 0
    return folder


@pytest.fixture(scope="module")
def made(scans, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "a"
    store, saes = folder / "activations", folder / "saes"
    assert run("capture", "--model", MODEL, "--images", scans, "--site", "stages.2", "--outputs", "--out", store) == 0
    assert run("train-sae", "--activations", store, "--k", 4, "--expansion", 2, "--epochs", 2, "--out", saes) == 0
    return folder


def test_a_store_verifies_and_a_flipped_bit_is_found(made, tmp_path, capsys, scans):
    assert run("verify", made / "activations", "--json") == 0
    assert json.loads(capsys.readouterr().out)["damaged"] == []
    other = tmp_path / "b" / "activations"
    assert run("capture", "--model", MODEL, "--images", scans, "--site", "stages.1", "--out", other) == 0
    victim = next(other.rglob("*.safetensors"))
    data = bytearray(victim.read_bytes())
    data[-1] ^= 1
    victim.write_bytes(data)
    capsys.readouterr()
    assert run("verify", other) == 1
    assert victim.name in capsys.readouterr().out


def test_evaluation_stands_beside_its_baselines(made, capsys):
    assert run("evaluate-sae", made / "saes" / "seed-0", "--activations", made / "activations", "--json") == 0
    metrics = json.loads(capsys.readouterr().out)["metrics"]
    assert {"sae", "frozen-random SAE"} <= set(metrics)
    assert run("evaluate-sae", made / "saes" / "seed-0", "--activations", made / "activations") == 0
    assert "explained variance" in capsys.readouterr().out


def test_a_probe_reports_error_in_units(made, capsys):
    assert run("probe", "--activations", made / "activations", "--attribute", "pigmentation", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["sites"]["stages.2"]["mae"] > 0
    assert run("probe", "--activations", made / "activations", "--attribute", "disc_area_mm2") == 0
    assert "mm²" in capsys.readouterr().out


def test_attributes_of_every_feature_are_written(made, capsys):
    sae = made / "saes" / "seed-0"
    assert run("attributes", sae, "--activations", made / "activations", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["text"]
    assert found["whole"]["survivors"] == len(found["survivors"])
    assert json.loads((sae / "attributes.json").read_text())["supervised"]["kind"] == "mean difference"
    assert "Features and attributes" in (sae / "attributes.html").read_text()
    assert run("attributes", sae, "--activations", made / "activations", "--pooling", "max") == 0
    printed = capsys.readouterr().out
    assert "95 % interval" in printed
    assert "false-discovery rate" in printed
    assert run("attributes", sae, "--activations", made / "activations", "--pooling", "middle") == 2
    assert "pooling is 'middle'" in capsys.readouterr().err


def test_the_dashboard_analyses_the_run_once_and_exports_pages_that_escape_a_class_name(made, tmp_path, capsys):
    assert run("dashboard", made, "--export", tmp_path / "page", "--json") == 0
    assert Path(json.loads(capsys.readouterr().out)["page"]).exists()
    results = json.loads((made / "results.json").read_text())
    assert results["model"]["class_names"][1] == "<script>alert(1)</script>"
    # a batch-top-k autoencoder keeps no k: its controls have as many active features as it has in the mean
    active = round(results["sae"]["metrics"]["l0"])
    assert active < 12
    assert f"PCA, first {active}" in [control["name"] for control in results["sae"]["controls"]]
    for file in (tmp_path / "page").rglob("*.js"):
        if file.name != "plotly.min.js":
            assert "<script>alert(1)" not in file.read_text()
    before = (made / "results.json").stat().st_mtime_ns
    assert run("dashboard", made, "--export", tmp_path / "again") == 0
    assert (made / "results.json").stat().st_mtime_ns == before


def test_sites_of_a_users_network(capsys):
    assert run("sites", MODEL, "--json") == 0
    assert [s["name"] for s in json.loads(capsys.readouterr().out)["sites"]] == [
        "stages.0",
        "stages.1",
        "stages.2",
        "hook_pooled",
    ]
    assert run("sites", MODEL, "--all", "--search", "body") == 0
    assert "body.2" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["capture", "--model", "resnet18", "--images", "{scans}", "--site", "x", "--out", "{out}"], "timm:"),
        (["capture", "--model", MODEL + "x", "--images", "{scans}", "--site", "x", "--out", "{out}"], "build"),
        (["capture", "--model", MODEL, "--images", "{scans}", "--site", "stages.9", "--out", "{out}"], "stages."),
        (["capture", "--model", MODEL, "--images", "{scans}x", "--site", "stages.1", "--out", "{out}"], "scans"),
        (
            [
                "capture",
                "--model",
                MODEL,
                "--images",
                "{scans}",
                "--site",
                "stages.1",
                "--split",
                "dev",
                "--out",
                "{out}",
            ],
            "dev",
        ),
        (
            [
                "capture",
                "--model",
                MODEL,
                "--images",
                "{scans}",
                "--site",
                "stages.1",
                "--dtype",
                "int8",
                "--out",
                "{out}",
            ],
            "int8",
        ),
        (["capture", "--model", "timm:resnet18", "--images", "{scans}", "--site", "x", "--out", "{out}"], "--weights"),
        (["probe", "--activations", "{made}/activations", "--attribute", "pigmentatoin"], "'pigmentation'"),
        (["probe", "--activations", "{made}/nothing", "--attribute", "pigmentation"], "capture"),
        (["train-sae", "--activations", "{made}/activations", "--k", "4000", "--out", "{out}"], "k is 4000"),
        (["train-sae", "--activations", "{made}/activations", "--seeds", "a", "--out", "{out}"], "--seeds"),
        (["evaluate-sae", "{made}/saes/seed-9", "--activations", "{made}/activations"], "seed-9"),
        (["dashboard", "{scans}"], "run.json"),
        (["phantoms", "fundos", "--out", "{out}"], "fundus"),
        (["train-reference", "vitt", "--out", "{out}"], "vit"),
    ],
)
def test_wrong_input_is_one_line_that_names_it(scans, made, tmp_path, capsys, argv, expected):
    capsys.readouterr()
    assert run(*[a.format(scans=scans, made=made, out=tmp_path / "o" / "activations") for a in argv]) == 2
    assert expected in said(capsys)


def test_a_run_without_an_autoencoder_says_which_command_is_missing(scans, tmp_path, capsys):
    store = tmp_path / "c" / "activations"
    assert (
        run("capture", "--model", MODEL, "--images", scans, "--site", "stages.0", "--split", "test", "--out", store)
        == 0
    )
    capsys.readouterr()
    assert run("dashboard", tmp_path / "c", "--export", tmp_path / "page") == 2
    assert "train-sae" in said(capsys)


def test_stages_run_from_python_become_a_run_where_their_store_stands(made, tmp_path):
    folder = tmp_path / "python"
    shutil.copytree(made, folder)
    (folder / "run.json").unlink()
    assert run("dashboard", folder, "--export", tmp_path / "page") == 0
    assert (tmp_path / "page" / "index.html").exists()


@pytest.mark.slow
def test_what_is_measured_from_masks_reaches_the_report_and_the_first_probe_is_its_subject(tmp_path, capsys):
    """A folder with masks and no column of its own: init offers the masks' areas, and the report reads their probe."""
    scans, runs = tmp_path / "scans", tmp_path / "runs"
    assert run("phantoms", "fundus", "--patients", 24, "--size-px", 48, "--out", scans) == 0
    table = scans / "metadata.csv"
    rows = [line.split(",") for line in table.read_text().splitlines()]
    kept = [i for i, name in enumerate(rows[0]) if name in {"file_name", "label", "patient_id", "group", "split"}]
    table.write_text("\n".join(",".join(row[i] for i in kept) for row in rows) + "\n")
    (scans / "dataset.yaml").write_text("spacing_mm: [0.2, 0.2]\n")
    config = tmp_path / "study.toml"
    asked = ("--model", MODEL, "--images", scans, "--attribute")
    assert run("init", config, *asked, "vessels_aera") == 2
    assert "did you mean 'vessels_area'" in said(capsys)
    assert run("init", config, *asked, "vessels_area") == 0
    assert 'attribute = "vessels_area"\nmeasure = true' in config.read_text()
    store = runs / "activations"
    assert run("capture", "--model", MODEL, "--images", scans, "--site", "stages.2", "--outputs", "--out", store) == 0
    assert run("train-sae", "--activations", store, "--k", 4, "--epochs", 2, "--out", runs / "saes") == 0
    for name in ("vessels_area", "disc_area", "vessels_area"):
        assert run("probe", "--activations", store, "--attribute", name, "--measure", "--shuffles", 20) == 0
    capsys.readouterr()
    assert run("report", runs, "--json") == 0
    assert "planned and not run" not in capsys.readouterr().out
    results = json.loads((runs / "results.json").read_text())
    assert results["primary_attribute"] == "vessels_area"  # asked for first, though second in the alphabet
    assert [p["attribute"] for p in results["probes"]] == ["vessels_area", "disc_area"]
    probed = json.loads((runs / "probes" / "vessels_area.json").read_text())["stages.2"]
    assert results["probes"][0]["score"] == pytest.approx(probed["score"])
