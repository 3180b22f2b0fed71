"""From images through a capture on disk to an SAE, spliced back into the model; and that imports stay light."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from mechinterp.capturing import capture
from mechinterp.errors import HashMismatchError
from mechinterp.images.arrays import from_arrays
from mechinterp.images.preparation import Preparation
from mechinterp.models.vision_model import InputContract, VisionModel
from mechinterp.sites import Site
from sparse_autoencoders import (
    control_encoders,
    evaluate_sae,
    loss_recovered,
    metrics_table,
    summarise_features,
    train_saes,
)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 12, 3, padding=1), nn.Linear(12, 3)

    def forward(self, x):
        return self.head(self.conv(x).relu().amax((2, 3)))


def net(seed=0):
    torch.manual_seed(seed)
    contract = InputContract(8, 8, 1, mean=(0.0,), std=(1.0,))
    sites = {"conv": Site("conv", "conv", "output", "map", 12, 64)}
    return VisionModel(Net().eval(), f"py:net{seed}", contract, ("a", "b", "c"), "logits", sites)


@pytest.fixture(scope="module")
def images():
    pixels = np.random.default_rng(0).random((24, 8, 8), dtype=np.float32)
    return from_arrays(pixels, splits=["train"] * 18 + ["test"] * 6, intensity_range=(0, 1))


@pytest.fixture(scope="module")
def store(images, tmp_path_factory):
    return capture(net(), images, ["conv"], out=tmp_path_factory.mktemp("store") / "acts")


def test_the_whole_path(images, store, tmp_path):
    sae = train_saes(store, k=4, expansion=2, epochs=15, batch_size=128, lr=3e-3, out=tmp_path)[0]
    table = metrics_table({"SAE": sae, **control_encoders(store, k=4, width=24)}, store)
    assert table.loc["SAE", "explained_variance"] > table.loc["frozen-random SAE", "explained_variance"]
    assert table.loc["SAE", "l0"] == 4
    summary = summarise_features(sae, store, top=3)
    assert summary.top_maps.shape == (24, 3, 64)
    model = net()
    x = model.prepare([images[i] for i in range(18, 24)])
    mean = store.statistics("conv", np.arange(18)).mean
    spliced = loss_recovered(model, sae, x.split(3), mean.float())
    assert spliced.reconstruction.kl < spliced.zero.kl
    assert spliced.identity.kl == pytest.approx(0, abs=1e-9)


def test_activations_of_another_model_or_preparation_are_refused(images, store, tmp_path):
    sae = train_saes(store, k=4, expansion=2, steps=2)[0]
    other_model = capture(net(1), images, ["conv"], out=tmp_path / "other")
    with pytest.raises(HashMismatchError, match="other model weights"):
        evaluate_sae(sae, other_model)
    darker = capture(net(), images, ["conv"], out=tmp_path / "darker", preparation=Preparation(gain=0.8))
    with pytest.raises(HashMismatchError, match="other preparation"):
        summarise_features(sae, darker)
    assert evaluate_sae(sae, darker, allow_mismatch=True).images == 6


def test_the_same_store_and_seed_give_the_same_bits_in_another_process(store):
    code = (
        "import sys, torch; torch.set_num_threads(1);"
        "from mechinterp.store import ActivationStore; from sparse_autoencoders import train_saes;"
        "print(train_saes(ActivationStore.open(sys.argv[1]), k=4, expansion=2, steps=5)[0].weights_hash)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(store.folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == train_saes(store, k=4, expansion=2, steps=5)[0].weights_hash


def test_the_package_imports_neither_saelens_nor_plotly():
    code = (
        "import sys; from sparse_autoencoders import *;"
        "import sparse_autoencoders.training, sparse_autoencoders.figures;"
        "assert not {'sae_lens', 'transformer_lens', 'plotly', 'sklearn'} & set(sys.modules), sys.modules.keys()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
