"""Two processes started by ``accelerate launch`` take the steps that one takes."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from experiments.cli import entry
from sparse_autoencoders import SparseAutoencoder

ARCHITECTURES = ("topk", "batchtopk", "matryoshka")
MODEL = "timm:vit_tiny_patch16_224?depth=1&embed_dim=16&num_heads=2"
# what flag of accelerate 1.x starts several processes without a GPU is --multi_gpu; --cpu wants mpirun for that
LAUNCH = ("-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1",
          "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0")  # fmt: skip


def captured(images):
    store = images.parent / "activations"
    capture = ["--images", str(images), "--site", "blocks.0.hook_resid_post", "--out", str(store)]
    assert entry.run(["capture", "--model", MODEL, "--weights", "random", *capture]) == 0
    return store


@pytest.fixture
def noise(tmp_path):
    """Tokens of which no two are alike, so that hardly a selection hangs on what rounding decides."""
    images, random = tmp_path / "noise", np.random.default_rng(0)
    images.mkdir()
    for i in range(24):
        Image.fromarray(random.integers(0, 256, (48, 48, 3), dtype=np.uint8)).save(images / f"{i:02}.png")
    return captured(images)


@pytest.fixture
def phantoms(tmp_path):
    """Tokens many of which are alike: features start at them, and fall silent."""
    images = tmp_path / "phantoms"
    made = ["phantoms", "fundus", "--patients", "8", "--size-px", "48", "--no-masks", "--out", str(images)]
    assert entry.run(made) == 0
    return captured(images)


def trained_both_ways(store, out, capsys, steps, *more):
    """Train by one process and by two; return for each autoencoder of the first its folder and that of the second."""
    pytest.importorskip("accelerate")
    train = ["train-sae", "--activations", str(store), "--k", "4", "--expansion", "3", "--steps", str(steps), "--batch-size", "256",
             "--dead-after", "0.1", "--sweep", f"arch={','.join(ARCHITECTURES)}", *more]  # fmt: skip
    one, two = out / "one", out / "two"
    assert entry.run([*train, "--out", str(one)]) == 0
    folders = [Path(line) for line in capsys.readouterr().out.splitlines()]
    console_script = ["--no_python", sys.executable, "-c", "from experiments.cli.entry import main; main()"]
    command = [sys.executable, *LAUNCH, *console_script, *train, "--out", str(two)]
    made = subprocess.run(
        command, capture_output=True, text=True, timeout=900, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False
    )
    assert made.returncode == 0, made.stderr[-2000:]
    others = [two / folder.relative_to(one) for folder in folders]
    assert made.stdout.splitlines() == [str(folder) for folder in others]
    assert (two / "training.html").is_file()
    return dict(zip(folders, others, strict=True))


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one(noise, tmp_path, capsys):
    capsys.readouterr()
    made = trained_both_ways(noise, tmp_path, capsys, 12, "--wake", "0")
    assert len(made) == len(ARCHITECTURES)
    for one, two in made.items():
        of_one, of_two = (load_file(folder / "sae_weights.safetensors") for folder in (one, two))
        for name, tensor in of_one.items():
            scale = float(tensor.abs().max().clamp_min(1))
            np.testing.assert_allclose(of_two[name], tensor, atol=1e-5 * scale, err_msg=f"{one} {name}")
        assert not torch.equal(of_one["W_enc"], of_two["W_enc"]), "the same bits: was it one process twice?"


@pytest.mark.slow
def test_two_processes_wake_features_and_explain_as_much_as_one(phantoms, tmp_path, capsys):
    capsys.readouterr()
    woken = 0
    for one, two in trained_both_ways(phantoms, tmp_path, capsys, 40, "--wake", "0.3").items():
        of_one, of_two = (SparseAutoencoder.load(folder).provenance for folder in (one, two))
        explained = [of["metrics"]["train"]["explained_variance"] for of in (of_one, of_two)]
        assert explained[0] == pytest.approx(explained[1], abs=1e-3)
        assert of_one["woken"] == pytest.approx(of_two["woken"], abs=2)
        woken += of_two["woken"]
    assert woken > 0
