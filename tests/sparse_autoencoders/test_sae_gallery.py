"""Examples against the obvious choice made from all codes at once."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_store import MemoryStore
from torch import nn

from mechinterp.errors import ConfigError, ImagesError, ShapeError
from mechinterp.feature_encoder import Directions, Neurons
from mechinterp.images.image_set import ImageSet
from mechinterp.models.vision_model import InputContract, VisionModel
from mechinterp.objectives import logit_difference
from mechinterp.sites import Site
from sparse_autoencoders import gallery as module
from sparse_autoencoders.gallery import choose_examples, metric_gradients

NEURONS = Neurons("site", 4)


def store_of(n=12, tokens=5, width=4, seed=0):
    return MemoryStore((torch.randn(n, tokens, width, generator=torch.Generator().manual_seed(seed)) - 0.8).relu())


@settings(max_examples=20, deadline=None)
@given(n=st.integers(1, 12), top=st.integers(1, 6), seed=st.integers(0, 50))
def test_strongest_and_most_relevant_equal_the_obvious_choice(n, top, seed):
    store = store_of(n, seed=seed)
    z = store.acts.numpy()
    gradient = torch.randn(n, 5, 4, generator=torch.Generator().manual_seed(seed + 1))
    found = choose_examples(NEURONS, store, top=top, gradients=lambda i: gradient[torch.from_numpy(i)])
    relevance = (z * gradient.numpy()).sum(1)
    for feature in range(4):
        order = np.argsort(-z[..., feature].max(1), kind="stable")
        strongest = [(int(i), int(z[i, :, feature].argmax()), float(z[i, :, feature].max())) for i in order]
        assert found.activation.of(feature) == [row for row in strongest if row[2] > 0][:top]
        most = np.argsort(-relevance[:, feature], kind="stable")
        assert [i for i, _, _ in found.relevance.of(feature)] == [i for i in most if relevance[i, feature] > 0][:top]
    assert found.active_images.tolist() == (z != 0).any(1).sum(0).tolist()


def test_random_examples_are_active_and_come_from_every_quantile():
    acts = torch.zeros(80, 1, 1)
    acts[:40, 0, 0] = torch.arange(1, 41).float()
    found = choose_examples(Neurons("site", 1), MemoryStore(acts), quantiles=4, per_quantile=2)
    values = found.random.values[0]
    assert list(values) == sorted(values)
    assert [int((v - 1) // 10) for v in values] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert np.allclose(found.random.quantile[0], (values - 1) / 39)
    assert (acts[found.random.images[0], 0, 0].numpy() == values).all()


def test_random_examples_are_drawn_alike_from_many():
    acts = torch.rand(3000, 1, 1, generator=torch.Generator().manual_seed(0)) + 0.01
    found = choose_examples(Neurons("site", 1), MemoryStore(acts), quantiles=8, per_quantile=8, seed=3)
    assert len(set(found.random.images[0].tolist())) == 64
    assert found.random.values[0].mean() == pytest.approx(0.51, abs=0.15)
    other = choose_examples(Neurons("site", 1), MemoryStore(acts), quantiles=8, per_quantile=8, seed=4)
    assert set(found.random.images[0]) != set(other.random.images[0])


def test_neither_blocks_nor_order_of_blocks_matter(monkeypatch):
    store = store_of(40)
    whole = choose_examples(NEURONS, store, top=3)
    blocks = module.image_blocks
    monkeypatch.setattr(module, "image_blocks", lambda *a, **k: blocks(*a, **k, values=1))
    split = choose_examples(NEURONS, store, top=3)
    for kind in ("activation", "random"):
        for name in ("images", "tokens", "values", "quantile"):
            one, two = getattr(getattr(whole, kind), name), getattr(getattr(split, kind), name)
            assert np.array_equal(one, two, equal_nan=True), (kind, name)


def test_a_silent_feature_has_no_examples_and_few_active_images_leave_gaps():
    store = store_of(6)
    store.acts[..., 2] = 0
    store.acts[1:, :, 3] = 0
    store.acts[0, 4, 3] = 2
    found = choose_examples(NEURONS, store, top=2, images=[5, 0])
    assert found.activation.of(2) == found.random.of(2) == []
    assert found.activation.of(3) == [(0, 4, 2.0)]
    assert found.random.images[3].tolist() == [0] + [-1] * 7
    assert found.relevance is None
    assert set(found.activation.images.flatten().tolist()) <= {-1, 0, 5}
    assert np.array_equal(found.maps(NEURONS, store, 3, [0]), store.acts[[0], :, 3].numpy())


class Net(nn.Module):
    """Logits: the mean of channel 0, twice that of channel 1, and that of channel 2."""

    def __init__(self):
        super().__init__()
        self.body = nn.Identity()

    def forward(self, x):
        return self.body(x).mean((2, 3)) * torch.tensor([1.0, 2.0, 1.0])


def test_gradients_of_a_metric_by_hand():
    sites = {"body": Site("body", "body", "output", "map", 3, 4)}
    contract = InputContract(2, 2, 3, mean=(0.0,) * 3, std=(1.0,) * 3)
    model = VisionModel(Net().eval(), "py:three", contract, ("a", "b", "c"), "logits", sites)
    pixels = np.random.default_rng(0).random((3, 2, 2, 3)).astype(np.float32)
    images = ImageSet.from_arrays(pixels, intensity_range=(0.0, 1.0))
    gradients = metric_gradients(model, images, "body", logit_difference("a", "b"))
    found = gradients(np.array([2, 0]))
    assert torch.allclose(found, torch.tensor([0.25, -0.5, 0]).expand(2, 4, 3))
    store = MemoryStore(torch.rand(3, 4, 3), site="body")
    shown = choose_examples(Neurons("body", 3), store, gradients=gradients)
    assert [i for i, _, _ in shown.relevance.of(0)] == np.argsort(-store.acts[..., 0].mean(1).numpy()).tolist()
    assert shown.relevance.of(1) == shown.relevance.of(2) == []  # down everywhere, and no effect


def test_mistakes_are_named():
    store = store_of(3)
    with pytest.raises(ImagesError, match="no image to choose examples from"):
        choose_examples(NEURONS, store, [])
    with pytest.raises(ConfigError, match="0 strongest"):
        choose_examples(NEURONS, store, top=0)
    with pytest.raises(ShapeError, match="gradients of shape"):
        choose_examples(NEURONS, store, gradients=lambda i: torch.zeros(1))


def test_codes_that_may_be_negative_count_as_active_too():
    found = choose_examples(Directions("site", -torch.eye(4), torch.zeros(4)), store_of(), top=1)
    assert (found.active_images > 0).all()
