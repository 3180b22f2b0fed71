"""Where ``train-sae`` writes: nothing that another training made is overwritten. And what ``evaluate-sae`` says of training images."""

import json

import numpy as np
import pytest

from experiments.cli import entry


def run(*argv):
    return entry.run([str(a) for a in argv])


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    import mechinterp as mi

    folder = tmp_path_factory.mktemp("folders")
    (folder / "net.py").write_text(
        "import torch\n"
        "def build():\n"
        "    torch.manual_seed(0)\n"
        "    return torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.Conv2d(8, 6, 1), torch.nn.AdaptiveAvgPool2d(1),\n"
        "        torch.nn.Flatten(), torch.nn.Linear(6, 2))\n"
    )
    model = mi.load_model(f"py:{folder / 'net.py'}:build", input_size=16)
    arrays = np.random.default_rng(0).random((12, 16, 16)).astype(np.float32)
    images = mi.ImageSet.from_arrays(arrays, splits=["train"] * 8 + ["test"] * 4)
    mi.capture(model, images, ["0", "1"], out=folder / "a" / "activations")
    return folder / "a" / "activations"


SHORT = ("--k", 2, "--expansion", 2, "--steps", 4)


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (("--k", 3), "(k 2, here 3)"),
        (("--lr", 0.01, "--seeds", "1,0"), "(lr 0.001, here 0.01)"),
        (("--site", "1"), "(of 0, here 1)"),
        (("--split", "test"), "(of other training images)"),
        (("--sites", "0,1"), "(of 0, here 0 and 1)"),
    ],
)
def test_what_another_training_made_is_not_overwritten(store, tmp_path, capsys, argv, expected):
    out = tmp_path / "run" / "saes"
    site = () if "--sites" in argv else ("--site", "0")
    assert run("train-sae", "--activations", store, "--site", "0", *SHORT, "--out", out) == 0
    before = {path: path.read_bytes() for path in (out / "seed-0").iterdir()}
    capsys.readouterr()
    assert run("train-sae", "--activations", store, *site, *SHORT, *argv, "--out", out) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert f"seed-0 holds what another training made {expected}: train into another --out, or remove it" in error
    assert {path: path.read_bytes() for path in (out / "seed-0").iterdir()} == before
    assert not (out / "seed-1").exists()


def test_the_same_training_may_be_made_again_and_another_seed_beside_it(store, tmp_path):
    out = tmp_path / "run" / "saes"
    command = ("train-sae", "--activations", store, "--site", "0", *SHORT, "--out", out)
    assert run(*command) == 0
    weights = (out / "seed-0" / "sae_weights.safetensors").read_bytes()
    assert run(*command, "--seeds", "0,1", "--checkpoint-minutes", 1) == 0
    assert (out / "seed-0" / "sae_weights.safetensors").read_bytes() == weights
    assert (out / "seed-1").is_dir()


def test_images_that_it_was_trained_on_are_said_on_the_table_the_page_and_in_json(store, tmp_path, capsys):
    out = tmp_path / "run" / "saes"
    assert run("train-sae", "--activations", store, "--site", "0", *SHORT, "--split", "test", "--out", out) == 0
    capsys.readouterr()
    assert run("evaluate-sae", out / "seed-0", "--activations", store) == 0
    shown = capsys.readouterr().out
    assert "CAUTION: seed-0 was trained on 4 of these 4 images: they are not held out" in shown
    assert "1,024" in shown  # rows, in full
    assert run("compare-saes", out, "--activations", store, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["caution"] == "seed-0 was trained on 4 of these 4 images: they are not held out"
    assert f"CAUTION: {said['caution']}." in (out / "pareto.html").read_text()
    assert run("evaluate-sae", out / "seed-0", "--activations", store, "--split", "train", "--json") == 0
    assert json.loads(capsys.readouterr().out)["caution"] is None
