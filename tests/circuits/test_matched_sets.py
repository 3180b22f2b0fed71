import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from circuits.matched_sets import matched_controls, matched_sets, norm_gram, set_norm
from mechinterp.errors import ConfigError


def a_gram(features=40, seed=0, spread=1.0):
    generator = torch.Generator().manual_seed(seed)
    change = torch.randn(features, 60, generator=generator) * torch.exp(
        spread * torch.randn(features, 1, generator=generator)
    )
    directions = torch.randn(features, 16, generator=generator)
    return change, directions, norm_gram(change, directions, 5)


@settings(max_examples=20, deadline=None)
@given(members=st.sets(st.integers(0, 39), min_size=1, max_size=12), seed=st.integers(0, 99))
def test_the_gram_gives_the_norm_of_the_activations_change(members, seed):
    change, directions, gram = a_gram(seed=seed)
    chosen = sorted(members)
    made = change[chosen].T @ directions[chosen]  # (5 images of 12 tokens, width)
    plain = made.reshape(5, 12, 16).square().sum((1, 2)).mean().sqrt()
    assert set_norm(gram, np.asarray(chosen)) == pytest.approx(float(plain), rel=1e-4)


@settings(max_examples=20, deadline=None)
@given(size=st.integers(1, 20), seed=st.integers(0, 99))
def test_sets_have_the_size_distinct_members_and_the_norm(size, seed):
    _, _, gram = a_gram(seed=seed, spread=0.3)
    target = set_norm(gram, np.random.default_rng(seed).choice(40, size, replace=False))
    found = matched_sets(gram, size, target, n_sets=30, seed=seed)
    assert found.sets.shape == (30, size)
    assert all(len(set(row)) == size for row in found.sets.tolist())
    assert found.norms == pytest.approx([set_norm(gram, row) for row in found.sets])
    assert found.within(0.05) == 1


def test_sets_within_the_tolerance_are_equally_likely():
    # unit features without overlap: every pair has the norm, so all 10 pairs of 5 must come up alike
    found = matched_sets(np.eye(5), 2, np.sqrt(2), n_sets=4000, seed=3)
    _, counts = np.unique(np.sort(found.sets, axis=1), axis=0, return_counts=True)
    assert len(counts) == 10
    assert ((counts - 400) ** 2 / 400).sum() < 27.9  # chi-squared, 9 degrees of freedom, 0.1 %


def test_sets_that_start_far_off_reach_the_norm():
    gram = np.diag(np.concatenate([np.full(50, 1e-4), np.full(50, 100.0)]))
    heavy = matched_sets(gram, 10, np.sqrt(1000), n_sets=50)
    light = matched_sets(gram, 10, np.sqrt(1e-3), n_sets=50)
    assert heavy.sets.min() >= 50
    assert light.sets.max() < 50


def test_the_same_seed_gives_the_same_sets_and_another_gives_others():
    _, _, gram = a_gram()
    first, same, other = (matched_sets(gram, 5, 8.0, seed=s).sets for s in (1, 1, 2))
    assert (first == same).all()
    assert (first != other).any()


def test_all_features_are_one_set():
    found = matched_sets(np.eye(4), 4, 2.0, n_sets=3)
    assert found.distinct == 1
    assert found.norms == pytest.approx([2, 2, 2])


@pytest.mark.parametrize("size", [0, 6])
def test_a_size_that_cannot_be_is_named(size):
    with pytest.raises(ConfigError, match=f"a set of {size} cannot be drawn from 5 features"):
        matched_sets(np.eye(5), size, 1.0)


def test_controls_of_an_ordinary_set_are_as_they_are():
    _, _, gram = a_gram(spread=0.2)
    found = matched_controls(gram, np.arange(6))
    assert (found.scales == 1).all()
    assert found.distinct > 100


def test_a_set_that_stands_out_gets_others_scaled_to_its_norm():
    gram = np.diag([400.0, 400.0, *np.linspace(0.5, 2, 60), *np.zeros(20)])
    found = matched_controls(gram, np.asarray([0, 1]))
    assert not np.isin(found.sets, [0, 1]).any()
    assert found.sets.max() < 62  # silent features are of no use, however they are scaled
    assert found.norms == pytest.approx(np.sqrt(800))
    assert found.scales * np.asarray([set_norm(gram, row) for row in found.sets]) == pytest.approx(np.sqrt(800))
    assert found.distinct >= 100


def test_of_the_others_the_nearest_in_norm_are_taken():
    gram = np.diag([400.0, *np.full(120, 300.0), *np.full(120, 1.0)])
    found = matched_controls(gram, np.asarray([0]), n_sets=50)
    assert found.sets.max() <= 120
    assert found.scales == pytest.approx(np.sqrt(400 / 300))


def test_nothing_removed_needs_no_match():
    found = matched_controls(np.zeros((8, 8)), np.asarray([2, 3]))
    assert found.norms.max() == 0
    assert found.target == 0


def test_a_random_choice_gets_uniform_p_values():
    """The statistic is any function of the set, here a sum of weights; the choice knows nothing of it."""
    rng = np.random.default_rng(0)
    p = []
    for trial in range(150):
        _, _, gram = a_gram(features=40, seed=trial, spread=0.5)
        weights = rng.normal(size=40)
        chosen = rng.choice(40, 4, replace=False)
        found = matched_controls(gram, chosen, n_sets=99, seed=trial)
        p.append((1 + (weights[found.sets].sum(1) >= weights[chosen].sum()).sum()) / 100)
    p = np.sort(p)
    assert np.abs(p - (np.arange(150) + 0.5) / 150).max() < 0.133  # Kolmogorov–Smirnov, 1 %
    assert (p <= 0.05).mean() < 0.11  # binomial, 99.9 %
