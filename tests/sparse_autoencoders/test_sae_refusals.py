"""What an SAE refuses, in one line and with nothing lost: a store that is not its own, broken values, a full disk."""

import errno
from dataclasses import replace

import pytest
import torch
from memory_store import MemoryStore, sparse_combinations

from mechinterp import files
from mechinterp.errors import ConfigError, DiskError, HashMismatchError, ImagesError, ShapeError
from sparse_autoencoders.autoencoder import SparseAutoencoder
from sparse_autoencoders.features import summarise_features
from sparse_autoencoders.gallery import choose_examples
from sparse_autoencoders.metrics import evaluate_by_token_type, evaluate_sae
from sparse_autoencoders.training import train_saes

SETTINGS = {"k": 3, "expansion": 2, "epochs": 2, "batch_size": 128}


@pytest.fixture(scope="module")
def acts():
    return sparse_combinations(30, 20)[0]


@pytest.fixture(scope="module")
def sae(acts):
    return train_saes(MemoryStore(acts), **SETTINGS)[0]


def read_by(name):
    calls = {
        "evaluate": lambda sae, store, **more: evaluate_sae(sae, store, **more),
        "summarise": lambda sae, store, **more: summarise_features(sae, store, **more),
        "gallery": lambda sae, store, **more: choose_examples(sae, store, **more),
        "by type": lambda sae, store, **more: evaluate_by_token_type(sae, store, {}, [0], **more),
    }
    return calls[name]


@pytest.mark.parametrize("reader", ["evaluate", "summarise", "gallery", "by type"])
def test_activations_of_other_weights_or_preparation_are_refused_unless_told_to(sae, acts, reader):
    read = read_by(reader)
    others = {
        "model weights": MemoryStore(acts, weights="v" * 64),
        "preparation": MemoryStore(acts, preparation={"size": 9}),
    }
    for what, store in others.items():
        with pytest.raises(HashMismatchError, match=f"trained on other {what}") as refused:
            read(sae, store)
        assert "\n" not in str(refused.value)
        read(sae, store, allow_mismatch=True)
    read(sae, MemoryStore(acts))


@pytest.mark.parametrize("reader", ["evaluate", "summarise", "gallery", "by type"])
def test_a_store_of_another_width_is_refused_always(sae, acts, reader):
    with pytest.raises(ShapeError, match="12 wide in this store, the sae reads 16"):
        read_by(reader)(sae, MemoryStore(acts[..., :12]), allow_mismatch=True)


def test_nan_names_the_image(acts, tmp_path):
    broken = acts.clone()
    broken[7, 3, 2] = torch.nan
    with pytest.raises(ImagesError, match="NaN or infinite for image 'image-7'"):
        train_saes(MemoryStore(broken), out=tmp_path / "saes", **SETTINGS)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_k_above_the_width_is_refused_in_training_and_loading(acts, sae):
    with pytest.raises(ConfigError, match="k is 40, above the 32 features"):
        train_saes(MemoryStore(acts), **{**SETTINGS, "k": 40})
    with pytest.raises(ConfigError, match="k is 40: a TopK SAE of 32 features wants 1 to 32"):
        replace(sae, k=40)


def test_a_full_disk_is_one_line_and_what_stood_there_stays(sae, tmp_path, monkeypatch):
    folder = sae.save(tmp_path / "sae")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full(_descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    other = replace(sae, b_dec=sae.b_dec + 1)
    with pytest.raises(DiskError) as refused:
        other.save(folder)
    assert "\n" not in str(refused.value)
    monkeypatch.undo()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert SparseAutoencoder.load(folder).weights_hash == sae.weights_hash
