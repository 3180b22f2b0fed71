"""Scores of single features and of dictionaries, by hand and against the obvious loops."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mechinterp.errors import ConfigError, ImagesError, ShapeError
from mechinterp.feature_encoder import Directions, Neurons
from sparse_autoencoders.absorption import absorption
from sparse_autoencoders.autoencoder import SparseAutoencoder
from sparse_autoencoders.effective_size import effective_size
from sparse_autoencoders.feature_splitting import feature_splitting
from sparse_autoencoders.monosemanticity import chance_monosemanticity, monosemanticity
from sparse_autoencoders.purity import attribute_purity, chance_label_purity, label_purity, strongest_images
from sparse_autoencoders.spatial_coherence import SpatialCoherence


def test_as_many_features_as_are_used_alike():
    for n in (1, 3, 10):
        found = effective_size(np.r_[np.full(n, 0.2), np.zeros(5)])
        assert found.entropy == pytest.approx(n)
        assert found.participation == pytest.approx(n)
    uneven = effective_size(np.array([0.5, 0.25, 0.25]))
    assert uneven.entropy == pytest.approx(2**1.5)
    assert uneven.participation == pytest.approx(1 / 0.375)
    assert effective_size(np.zeros(3)).entropy == 0


@settings(max_examples=30, deadline=None)
@given(n=st.integers(2, 9), seed=st.integers(0, 1000), centre=st.booleans())
def test_monosemanticity_equals_the_sum_over_pairs(n, seed, centre):
    rng = np.random.default_rng(seed)
    values, embeddings = np.maximum(rng.normal(size=(n, 3)), 0), rng.normal(size=(n, 4)) + 1
    found = monosemanticity(values, embeddings, centre=centre)
    e = embeddings - embeddings.mean(0) if centre else embeddings
    e = e / np.linalg.norm(e, axis=1, keepdims=True)
    for feature in range(3):
        v = values[:, feature]
        a = (v - v.min()) / np.ptp(v) if np.ptp(v) > 0 else np.zeros(n)
        pairs = list(itertools.combinations(range(n), 2))
        weight = sum(a[i] * a[j] for i, j in pairs)
        if weight < 1e-9:
            continue
        assert found[feature] == pytest.approx(sum(a[i] * a[j] * e[i] @ e[j] for i, j in pairs) / weight, abs=1e-8)
    alike = [e[i] @ e[j] for i, j in itertools.combinations(range(n), 2)]
    assert chance_monosemanticity(embeddings, centre=centre) == pytest.approx(np.mean(alike), abs=1e-8)


def test_monosemanticity_by_hand():
    embeddings = np.array([[1.0, 0], [2, 0], [0, 3], [0, 1], [-1, 0]])
    values = np.array([[1, 1, 1, 5, 0], [1, 0, 0, 5, 0], [0, 1, 0, 5, 0], [0, 0, 0, 5, 0], [0, 0, 1, 5, 1.0]])
    pure, across, opposite, constant, single = monosemanticity(values, embeddings)
    assert (pure, across, opposite) == (1, 0, -1)
    assert np.isnan(constant)
    assert np.isnan(single)
    with pytest.raises(ShapeError, match="values of 5 images, embeddings of 2"):
        monosemanticity(values, embeddings[:2])


def test_purity_by_hand():
    values = np.array([[5, 0, 1.0], [4, 0, 2], [3, 0, 3], [2, 1, 4], [1, 2, 0]])
    chosen = strongest_images(values, 3)
    assert chosen.tolist() == [[0, 1, 2], [4, 3, -1], [3, 2, 1]]
    labels = ["a", "a", "b", "b", "b"]
    pure = label_purity(chosen, labels)
    assert pure[0] == pytest.approx(2 / 3)
    assert np.isnan(pure[1])  # active in two images only
    assert label_purity(chosen, ["a", None, "b", "b", "b"])[2] == 1
    size = np.array([1.0, 1, 1, 4, 5])[:, None]
    agree = attribute_purity(chosen, size)
    assert agree[0, 0] == 1
    assert np.isnan(agree[1, 0])
    assert agree[2, 0] == pytest.approx(1 - np.var([4, 1, 1], ddof=1) / np.var([1, 1, 1, 4, 5], ddof=1))
    assert np.isnan(attribute_purity(chosen, np.ones((5, 1)))).all()


def test_of_each_patient_one_image_counts():
    values = np.array([[5.0], [4], [3], [2], [1]])
    assert strongest_images(values, 3, ["p", "p", "q", "q", "r"]).tolist() == [[0, 2, 4]]
    assert strongest_images(values, 4, ["p", "p", "q", "q", "r"]).tolist() == [[0, 2, 4, -1]]


def test_random_features_have_the_purity_of_chance():
    labels = ["a"] * 50 + ["b"] * 50
    # of two images of two equal classes: the same label in half of the pairs (49 / 99), so (1 + 49 / 99) / 2
    assert chance_label_purity(labels, 2) == pytest.approx((1 + 49 / 99) / 2, abs=0.03)
    values = np.random.default_rng(0).random((200, 2000))
    drawn = attribute_purity(strongest_images(values, 5), np.random.default_rng(1).normal(size=(200, 1)))
    assert drawn.mean() == pytest.approx(0, abs=0.06)


def test_purity_mistakes_are_named():
    with pytest.raises(ConfigError, match="k is 1: purity wants 2 images"):
        strongest_images(np.ones((3, 1)), 1)
    with pytest.raises(ShapeError, match="2 groups for 3 images"):
        strongest_images(np.ones((3, 1)), 2, ["a", "b"])


def coherence(maps, prefix=0, parts=1):
    tokens = torch.as_tensor(maps, dtype=torch.float32).flatten(1, -2)
    tokens = torch.cat([torch.full((len(tokens), prefix, tokens.shape[2]), 9.0), tokens], dim=1)
    metric = SpatialCoherence(maps.shape[1:-1], prefix)
    for part in tokens.chunk(parts):
        metric.update(part)
    return metric.compute()


def test_a_chessboard_halves_and_a_constant():
    rows, columns = np.indices((4, 4))
    board, halves = (rows + columns) % 2, rows // 2
    maps = np.stack([board, halves, np.ones((4, 4)), 7 * halves + 3], axis=-1)[None]
    found = coherence(maps, prefix=1)
    assert found[0] == pytest.approx(-1)
    # of 24 pairs 20 agree and 4 do not, all cells half a unit from the mean
    assert found[1] == found[3] == pytest.approx(16 / 24)
    assert np.isnan(found[2])


@settings(max_examples=20, deadline=None)
@given(shape=st.sampled_from([(3, 4), (1, 5), (2, 3, 2)]), n=st.integers(1, 5), seed=st.integers(0, 100))
def test_coherence_equals_the_loop_over_pairs_however_images_are_cut(shape, n, seed):
    maps = np.random.default_rng(seed).random((n, *shape, 2))
    cells = list(itertools.product(*map(range, shape)))
    pairs = [
        (a, b) for a, b in itertools.combinations(cells, 2) if sum(abs(i - j) for i, j in zip(a, b, strict=True)) == 1
    ]
    for feature, found in enumerate(coherence(maps, parts=min(n, 2))):
        centred = [m[..., feature] - m[..., feature].mean() for m in maps]
        above = sum(c[a] * c[b] for c in centred for a, b in pairs)
        below = sum((c**2).sum() for c in centred)
        assert found == pytest.approx(len(cells) / len(pairs) * above / below, rel=1e-4, abs=1e-6)


def test_random_arrangements_have_the_coherence_of_chance():
    maps = np.random.default_rng(0).random((4000, 3, 3, 1))
    assert coherence(maps)[0] == pytest.approx(SpatialCoherence((3, 3)).chance, abs=0.01)


def test_coherence_mistakes_are_named():
    with pytest.raises(ShapeError, match="no two cells side by side"):
        SpatialCoherence((1, 1))
    with pytest.raises(ShapeError, match="codes of 5 tokens for a grid of 4 cells and 0 prefix tokens"):
        SpatialCoherence((2, 2)).update(torch.zeros(1, 5, 2))
    assert SpatialCoherence((2, 2)).compute().size == 0


def unit_rows(*rows):
    directions = torch.nn.functional.normalize(torch.tensor(rows, dtype=torch.float32), dim=1)
    return Directions("site", directions, torch.zeros(directions.shape[1]))


def test_one_feature_splits_one_stays_one_is_lost_and_one_is_new():
    small = unit_rows([1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0])
    large = unit_rows([1, 0.3, 0, 0], [1, -0.3, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1])
    (found,) = feature_splitting([large, small])
    assert found.children.tolist() == [2, 1, 0]
    assert (found.small, found.large) == (3, 4)
    assert (found.split, found.kept, found.lost, found.novel) == (1 / 3, 1 / 3, 1 / 3, 1 / 4)
    assert found.to_json()["split"] == found.split
    with pytest.raises(ConfigError, match=r"two different widths: these have \[3, 3\]"):
        feature_splitting([small, small])
    with pytest.raises(ShapeError, match=r"sites \[2, 4\] wide"):
        feature_splitting([small, Neurons("site", 2)])


def absorbing():
    """Feature 0 reads the concept (axis 0) unless the specific feature 1 (axes 0 and 1) is there; 2 is something else."""
    W_enc = torch.tensor([[1.0, 0, 0], [-9, 1, 0], [0, 0, 1]])
    W_dec = torch.tensor([[1.0, 0, 0], [0.6, 0.8, 0], [0, 0, 1]])
    return SparseAutoencoder("site", "standard", W_enc, torch.zeros(3), W_dec, torch.zeros(3))


def test_absorption_by_hand():
    concept, both, nothing = [1.0, 0, 0], [1.0, 1, 0], [0.0, 0, 1]
    x = torch.tensor([concept] * 6 + [both] * 2 + [nothing] * 8)
    there = torch.tensor([True] * 8 + [False] * 8)
    found = absorption(absorbing(), x, there, torch.tensor([2.0, 0, 0]))
    assert found.concept_features == (0,)
    assert (found.tokens, found.silent, found.full, found.partial) == (8, 0.25, 0.25, 0.25)
    assert found.absorbers == (1,)
    told = absorption(absorbing(), x, there, torch.tensor([1.0, 0, 0]), features=[0, 1])
    assert (told.silent, told.full, told.partial, told.absorbers) == (0, 0, 0, ())
    assert absorption(absorbing(), x, there).concept_features == (0,)
    assert found.to_json()["full"] == 0.25


def test_raw_neurons_absorb_nothing():
    x = torch.tensor([[1.0, 0, 0], [1, 1, 0], [0, 0, 1], [0, 1, 0]])
    found = absorption(Neurons("site", 3), x, torch.tensor([True, True, False, False]), torch.tensor([1.0, 0, 0]))
    assert (found.concept_features, found.silent, found.partial) == ((0,), 0, 0)


def test_absorption_mistakes_are_named():
    x, there = torch.eye(3), torch.tensor([True, False, False])
    with pytest.raises(ShapeError, match="3 tokens 3 wide, 2 marks"):
        absorption(absorbing(), x, there[:2])
    with pytest.raises(ImagesError, match="3 of 3 tokens have the concept"):
        absorption(absorbing(), x, torch.ones(3, dtype=torch.bool))
    with pytest.raises(ConfigError, match="direction is zero"):
        absorption(absorbing(), x, there, torch.zeros(3))
    with pytest.raises(ConfigError, match=r"features \[7\]"):
        absorption(absorbing(), x, there, features=[7])
