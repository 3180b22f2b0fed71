"""Two processes started by ``accelerate launch`` train the weights that one trains."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from experiments.cli import entry
from sparse_autoencoders import SparseAutoencoder

MODEL = "timm:vit_tiny_patch16_224?depth=1&embed_dim=16&num_heads=2"
# what flag of accelerate 1.x starts several processes without a GPU is --multi_gpu; --cpu wants mpirun for that
LAUNCH = ("-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1",
          "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0")  # fmt: skip


@pytest.mark.slow
def test_two_processes_train_the_weights_of_one(tmp_path, capsys):
    pytest.importorskip("accelerate")
    scans, store = tmp_path / "scans", tmp_path / "a" / "activations"
    assert (
        entry.run(["phantoms", "fundus", "--patients", "8", "--size-px", "48", "--no-masks", "--out", str(scans)]) == 0
    )
    capture = ["--images", str(scans), "--site", "blocks.0.hook_resid_post", "--out", str(store)]
    assert entry.run(["capture", "--model", MODEL, "--weights", "random", *capture]) == 0
    train = ["train-sae", "--activations", str(store), "--k", "4", "--expansion", "3", "--steps", "40", "--batch-size", "256",
             "--dead-after", "0.1", "--sweep", "arch=topk,batchtopk,matryoshka", "--sweep", "wake=0,0.3"]  # fmt: skip
    one, two = tmp_path / "one" / "saes", tmp_path / "two" / "saes"
    assert entry.run([*train, "--out", str(one)]) == 0
    capsys.readouterr()
    console_script = ["--no_python", sys.executable, "-c", "from experiments.cli.entry import main; main()"]
    command = [sys.executable, *LAUNCH, *console_script, *train, "--out", str(two)]
    made = subprocess.run(
        command, capture_output=True, text=True, timeout=900, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False
    )
    assert made.returncode == 0, made.stderr[-2000:]
    names = [f"arch-{arch}_wake-{wake}" for arch in ("topk", "batchtopk", "matryoshka") for wake in ("0.0", "0.3")]
    assert made.stdout.splitlines() == [str(two / name / "seed-0") for name in names]
    assert (two / "training.html").is_file()
    for sae in names:
        of_one, of_two = (load_file(folder / sae / "seed-0" / "sae_weights.safetensors") for folder in (one, two))
        for name, tensor in of_one.items():
            scale = float(tensor.abs().max().clamp_min(1))
            np.testing.assert_allclose(of_two[name], tensor, atol=1e-5 * scale, err_msg=f"{sae} {name}")
        assert not torch.equal(of_one["W_enc"], of_two["W_enc"]), "the same bits: was it one process twice?"
    woken = {sae: SparseAutoencoder.load(two / sae / "seed-0").provenance["woken"] for sae in names}
    assert woken["arch-batchtopk_wake-0.3"] > woken["arch-batchtopk_wake-0.0"] == 0
