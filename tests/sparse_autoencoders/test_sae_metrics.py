"""Metrics known by hand on a few tokens, and equal whatever the block size."""

import math

import numpy as np
import pytest
import torch
from memory_store import MemoryStore

from mechinterp.errors import HashMismatchError, ImagesError
from mechinterp.feature_encoder import Directions, Neurons
from sparse_autoencoders import metrics as module
from sparse_autoencoders.autoencoder import SparseAutoencoder
from sparse_autoencoders.metrics import evaluate_sae, held_out_images, training_images


def first_only(d_in=3):
    """Keeps the first unit where it is positive, reconstructs nothing else."""
    W = torch.eye(d_in)[:, :2]
    return SparseAutoencoder("site", "standard", W, torch.tensor([0.0, -100.0]), W.T, torch.zeros(d_in))


def test_every_number_by_hand():
    acts = torch.tensor([[[2.0, 0, 0], [0, 0, 0]], [[3.0, 4, 0], [-1, 0, 0]]])
    found = evaluate_sae(first_only(), MemoryStore(acts))
    # tokens 2, 0, (3, 4), -1; reconstructed 2, 0, 3, 0: error 0 + 0 + 16 + 1
    mean = torch.tensor([1.0, 1, 0])
    assert found.explained_variance == pytest.approx(1 - 17 / (acts - mean).square().sum().item())
    assert found.l0 == 0.5
    assert found.density.tolist() == [0.5, 0]
    assert found.dead == 0.5
    assert found.dense == 0.5
    # cosines 1 and 3/5, and 0 with a reconstruction of zero; the token that is zero has none
    assert found.cosine == pytest.approx((1 + 0.6 + 0) / 3)
    # squared norms 4 + 0 + 25 + 1, error 17; norms 2/2, 3/5, 0/1
    assert found.norm_explained == pytest.approx(1 - 17 / 30)
    assert found.norm_ratio == pytest.approx((1 + 0.6 + 0) / 3)
    assert found.effective_features == pytest.approx(1)
    assert found.rare == 0
    assert (found.rows, found.images) == (4, 2)
    assert "density" not in found.to_json()


def test_neurons_explain_everything_and_a_projection_onto_nothing_nothing():
    store = MemoryStore(torch.randn(5, 4, 3, generator=torch.Generator().manual_seed(0)))
    assert evaluate_sae(Neurons("site", 3), store).explained_variance == 1
    mean = store.acts.flatten(0, 1).mean(0)
    nothing = Directions("site", torch.zeros(1, 3), mean)
    assert evaluate_sae(nothing, store).explained_variance == pytest.approx(0, abs=1e-6)
    assert math.isnan(evaluate_sae(nothing, MemoryStore(torch.zeros(1, 1, 3))).cosine)


def test_a_feature_that_fires_less_than_once_in_a_thousand_tokens_is_rare_and_not_dead():
    acts = torch.full((2, 1001, 3), -1.0)
    acts[0, 5, 0] = 1
    found = evaluate_sae(first_only(), MemoryStore(acts))
    assert (found.rare, found.dead) == (0.5, 0.5)
    acts[0, 5:7, 0] = acts[1, 3, 0] = 1
    assert evaluate_sae(first_only(), MemoryStore(acts)).rare == 0


def test_the_size_of_the_blocks_does_not_matter(monkeypatch):
    store = MemoryStore(torch.randn(11, 4, 3, generator=torch.Generator().manual_seed(0)))
    whole = evaluate_sae(first_only(), store)
    one_by_one = module.row_blocks
    monkeypatch.setattr(module, "row_blocks", lambda *a, **k: one_by_one(*a, **k, values=1))
    split = evaluate_sae(first_only(), store)
    assert split.explained_variance == pytest.approx(whole.explained_variance)
    assert np.array_equal(split.density, whole.density)


@pytest.mark.parametrize(
    ("splits", "held_out", "training"),
    [
        (["train", "validation", "test", None], [2], [0]),
        (["train", "validation", "validation", None], [1, 2], [0]),
        ([None] * 4, [0, 1, 2, 3], [0, 1, 2, 3]),
    ],
)
def test_which_images_are_for_what(splits, held_out, training):
    store = MemoryStore(torch.zeros(4, 1, 3), splits=splits)
    assert held_out_images(store).tolist() == held_out
    assert training_images(store).tolist() == training


def test_splits_without_a_training_split_and_no_image_are_errors():
    store = MemoryStore(torch.zeros(2, 1, 3), splits=["test", "test"])
    with pytest.raises(ImagesError, match="train"):
        training_images(store)
    with pytest.raises(ImagesError, match="no image to measure on"):
        evaluate_sae(first_only(), store, [])


def test_an_sae_of_another_model_is_refused_unless_asked_for():
    from dataclasses import replace

    sae = replace(first_only(), provenance={"model": {"weights_hash": "other"}})
    store = MemoryStore(torch.randn(2, 2, 3))
    with pytest.raises(HashMismatchError, match="other model weights"):
        evaluate_sae(sae, store)
    evaluate_sae(sae, store, allow_mismatch=True)
