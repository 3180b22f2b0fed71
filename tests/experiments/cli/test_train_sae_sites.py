"""Transcoders and crosscoders from the command line: trained, measured, and refused in one line where nothing could be meant."""

import json

import pytest

from experiments.cli import entry
from sparse_autoencoders.joint_format import load_trained

MODEL = "timm:vit_tiny_patch16_224?depth=2&embed_dim=32&num_heads=2"


def run(*argv):
    return entry.run([str(a) for a in argv])


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("joint")
    scans, store = folder / "scans", folder / "a" / "activations"
    assert run("phantoms", "fundus", "--patients", 8, "--size-px", 48, "--no-masks", "--out", scans) == 0
    sites = [part for site in ("blocks.1.norm2", "blocks.1.hook_mlp_out") for part in ("--site", site)]
    assert run("capture", "--model", MODEL, "--weights", "random", "--images", scans, *sites, "--out", store) == 0
    return store


SHORT = ("--k", 4, "--expansion", 2, "--epochs", 2, "--batch-size", 64)


def test_a_transcoder_is_trained_and_measured_beside_the_best_linear_map(store, tmp_path, capsys):
    out = tmp_path / "run" / "transcoders"
    sites = ("--site", "blocks.1.norm2", "--to-site", "blocks.1.hook_mlp_out")
    assert run("train-sae", "--activations", store, *sites, "--skip", *SHORT, "--out", out, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["site"] == "blocks.1.norm2 to blocks.1.hook_mlp_out"
    assert load_trained(said["saes"][0]).to_site == "blocks.1.hook_mlp_out"
    assert (out / "training.html").is_file()
    assert run("evaluate-sae", out / "seed-0", "--activations", store, "--json") == 0
    metrics = json.loads(capsys.readouterr().out)["metrics"]
    assert set(metrics) == {"transcoder", "best linear map"}
    assert metrics["transcoder"]["l0"] == pytest.approx(4)
    assert metrics["best linear map"]["explained_variance"] > 0.5


def test_a_crosscoder_is_trained_and_measured_at_every_site(store, tmp_path, capsys):
    out = tmp_path / "run" / "crosscoders"
    sites = ("--sites", "blocks.1.norm2, blocks.1.hook_mlp_out")
    assert run("train-sae", "--activations", store, *sites, *SHORT, "--seeds", "0,1", "--out", out, "--json") == 0
    assert len(json.loads(capsys.readouterr().out)["saes"]) == 2
    assert run("evaluate-sae", out / "seed-1", "--activations", store) == 0
    shown = capsys.readouterr().out
    assert "blocks.1.norm2" in shown
    assert "explained variance" in shown


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (("--sites", "a,b", "--site", "a"), "takes neither --site nor --to-site"),
        (("--to-site", "blocks.1.hook_mlp_out"), "name what is read with --site"),
        (("--site", "blocks.1.norm2", "--skip"), "name the site that is written with --to-site"),
        (("--sites", "blocks.1.norm2"), "wants two sites or more"),
        (("--site", "blocks.1.norm2", "--to-site", "blocks.1.mlp_out"), "hook_mlp_out"),
    ],
)
def test_what_cannot_be_meant_is_one_line(store, tmp_path, capsys, argv, expected):
    assert run("train-sae", "--activations", store, *argv, *SHORT, "--out", tmp_path / "run" / "saes") == 2
    assert expected in " ".join(capsys.readouterr().err.split())
