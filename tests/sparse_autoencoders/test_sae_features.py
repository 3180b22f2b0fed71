"""The streamed summary against the obvious one, made from all codes at once."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_store import MemoryStore

from mechinterp.errors import ConfigError, ImagesError
from mechinterp.feature_encoder import Directions, Neurons
from sparse_autoencoders import features as module
from sparse_autoencoders.features import summarise_features


def store_of(n=7, tokens=5, width=4, seed=0):
    return MemoryStore((torch.randn(n, tokens, width, generator=torch.Generator().manual_seed(seed)) - 0.8).relu())


@settings(max_examples=25, deadline=None)
@given(n=st.integers(1, 8), tokens=st.integers(1, 6), top=st.integers(1, 10), seed=st.integers(0, 50))
def test_equals_the_obvious_summary(n, tokens, top, seed):
    store = store_of(n, tokens, 4, seed)
    z = store.acts.numpy()
    found = summarise_features(Neurons("site", 4), store, top=top, bins=6)
    assert np.array_equal(found.maximum, z.max(1))
    assert np.allclose(found.mean, z.mean(1))
    assert np.allclose(found.active, (z != 0).mean(1))
    assert np.allclose(found.density, (z != 0).mean((0, 1)))
    assert found.histogram.sum(1).tolist() == (z != 0).sum((0, 1)).tolist()
    for feature in range(4):
        images = found.top_images[feature][found.top_images[feature] >= 0]
        expected = sorted((v for v in z[..., feature].max(1) if v > 0), reverse=True)[:top]
        assert np.allclose(z[images, :, feature].max(1), expected)
        assert np.allclose(found.top_values[feature, : len(images)], expected)
        assert np.array_equal(found.top_maps[feature, : len(images)], z[images, :, feature])
        assert not found.top_maps[feature, len(images) :].any()
        counts, _ = np.histogram(z[..., feature][z[..., feature] != 0], bins=found.edges[feature].astype(np.float64))
        assert np.abs(counts - found.histogram[feature]).sum() <= 2  # a value on an edge may fall on either side


def test_the_size_of_the_blocks_does_not_matter(monkeypatch):
    whole = summarise_features(Neurons("site", 4), store_of())
    blocks = module.image_blocks
    monkeypatch.setattr(module, "image_blocks", lambda *a, **k: blocks(*a, **k, values=1))
    split = summarise_features(Neurons("site", 4), store_of())
    for name in ("maximum", "mean", "active", "density", "histogram", "top_images", "top_maps"):
        assert np.allclose(getattr(whole, name), getattr(split, name)), name


def test_images_are_named_by_their_position_in_the_store():
    store = store_of()
    found = summarise_features(Neurons("site", 4), store, images=[5, 2], top=2)
    assert found.images.tolist() == [5, 2]
    assert set(found.top_images.flatten().tolist()) <= {5, 2, -1}
    assert np.array_equal(found.maximum[0], store.acts[5].amax(0).numpy())


def test_features_with_negative_codes_have_a_range_below_zero():
    encoder = Directions("site", -torch.eye(4), torch.zeros(4))
    found = summarise_features(encoder, store_of(), bins=5)
    assert (found.edges[:, 0] < 0).all()
    assert found.histogram.sum() == round((found.density * 35).sum())


def test_a_feature_that_never_fires_is_not_among_the_living():
    store = store_of()
    store.acts[..., 2] = 0
    found = summarise_features(Neurons("site", 4), store)
    assert found.living.tolist() == [0, 1, 3]
    assert (found.top_images[2] == -1).all()
    assert found.width == 4


def test_values_per_image_are_chosen_by_name():
    found = summarise_features(Neurons("site", 4), store_of())
    assert found.pooled("mean") is found.mean
    with pytest.raises(ConfigError, match="no pooling 'median'"):
        found.pooled("median")
    with pytest.raises(ImagesError, match="no image to summarise"):
        summarise_features(Neurons("site", 4), store_of(), images=[])
