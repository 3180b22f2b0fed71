"""Spearman's rho, false-discovery rate and effective size: by hand, against scipy, and by what must not matter."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import mechinterp.statistics as statistics
from mechinterp.errors import ConfigError, ShapeError
from mechinterp.statistics import (
    autocorrelation,
    average_ranks,
    benjamini_hochberg,
    effective_sample_size,
    spearman,
)


def test_every_public_name_is_found_where_it_is_said_to_be():
    for name in statistics.__all__:
        assert getattr(statistics, name).__name__ == name
    assert set(statistics.__all__) <= set(dir(statistics))
    with pytest.raises(AttributeError, match="speerman"):
        statistics.speerman  # noqa: B018


@settings(deadline=None, max_examples=50)
@given(rows=st.integers(0, 6), columns=st.integers(1, 20), levels=st.integers(1, 8), seed=st.integers(0, 99))
def test_average_ranks_equal_scipys_with_any_ties(rows, columns, levels, seed):
    x = np.random.default_rng(seed).integers(0, levels, size=(rows, columns))
    expected = stats.rankdata(x, axis=1) if rows else np.empty((0, columns))
    np.testing.assert_array_equal(average_ranks(x), expected)


@settings(deadline=None, max_examples=30)
@given(n=st.integers(3, 30), levels=st.integers(2, 50), missing=st.floats(0, 0.4), seed=st.integers(0, 99))
def test_spearman_equals_scipy_pair_by_pair_with_ties_and_missing_values(n, levels, missing, seed):
    rng = np.random.default_rng(seed)
    features = rng.integers(0, levels, size=(n, 4)).astype(float)
    attributes = rng.integers(0, levels, size=(n, 3)).astype(float)
    attributes[rng.random(attributes.shape) < missing] = np.nan
    found = spearman(features, attributes)
    for i in range(4):
        for j in range(3):
            kept = ~np.isnan(attributes[:, j])
            f, a = features[kept, i], attributes[kept, j]
            if kept.sum() < 2 or np.ptp(f) == 0 or np.ptp(a) == 0:
                assert np.isnan(found[i, j])
            else:
                assert found[i, j] == pytest.approx(stats.spearmanr(f, a).statistic, abs=1e-12)


def test_a_monotone_curve_changes_no_rank_correlation():
    rng = np.random.default_rng(0)
    features, attributes = rng.normal(size=(40, 5)), rng.normal(size=(40, 2))
    np.testing.assert_allclose(spearman(np.exp(features), attributes**3), spearman(features, attributes), atol=1e-14)


def test_the_features_are_ranked_in_blocks_without_changing_the_answer(monkeypatch):
    rng = np.random.default_rng(1)
    features, attributes = rng.normal(size=(20, 37)), rng.normal(size=(20, 2))
    whole = spearman(features, attributes)
    monkeypatch.setattr("mechinterp.statistics.rank._BLOCK", 100)
    np.testing.assert_allclose(spearman(features, attributes), whole, atol=1e-14)


def test_a_feature_with_a_missing_value_has_no_correlation_and_spoils_no_other():
    features = np.array([[1.0, 1], [2, 2], [np.nan, 3], [4, 4]])
    found = spearman(features, np.arange(4.0)[:, None])
    assert np.isnan(found[0, 0])
    assert found[1, 0] == pytest.approx(1)


def test_images_that_do_not_match_are_named_with_both_counts():
    with pytest.raises(ShapeError, match="features of 3 images, attributes of 4"):
        spearman(np.zeros((3, 2)), np.zeros((4, 2)))
    with pytest.raises(ShapeError, match=r"attributes have shape \(3,\)"):
        spearman(np.zeros((3, 2)), np.zeros(3))


@settings(deadline=None)
@given(p=st.lists(st.floats(0, 1), min_size=1, max_size=40))
def test_benjamini_hochberg_equals_scipys(p):
    np.testing.assert_allclose(benjamini_hochberg(np.array(p)), stats.false_discovery_control(p), atol=1e-15)


def test_benjamini_hochberg_by_hand_and_tests_not_made_stay_out():
    found = benjamini_hochberg(np.array([[0.01, np.nan], [0.04, 0.03]]))
    np.testing.assert_allclose(found, [[0.03, np.nan], [0.04, 0.04]])
    with pytest.raises(ConfigError, match=r"a p-value is 1\.5"):
        benjamini_hochberg(np.array([1.5]))


def test_autocorrelation_equals_the_obvious_sum():
    x = np.random.default_rng(0).normal(size=50).cumsum()
    c = x - x.mean()
    obvious = [sum(c[i] * c[i + k] for i in range(50 - k)) / sum(c * c) for k in range(50)]
    np.testing.assert_allclose(autocorrelation(x), obvious, atol=1e-12)


def ar1(a, n, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    for t in range(1, n):
        x[t] = a * x[t - 1] + np.sqrt(1 - a * a) * x[t]
    return x


def test_the_effective_size_of_a_long_autoregression_is_the_textbook_one():
    n, a = 200_000, 0.83
    x, y = ar1(a, n, 0), ar1(a, n, 1)
    assert effective_sample_size(x) / n == pytest.approx((1 - a) / (1 + a), rel=0.1)
    assert effective_sample_size(x, y) / n == pytest.approx((1 - a * a) / (1 + a * a), rel=0.1)


def test_independent_values_count_in_full_and_a_constant_has_no_answer():
    x = np.random.default_rng(0).normal(size=5000)
    assert effective_sample_size(x) > 0.9 * len(x)
    assert np.isnan(effective_sample_size(np.full(9, 0.1)))
    with pytest.raises(ShapeError, match="9 and 8 positions"):
        effective_sample_size(np.arange(9.0), np.arange(8.0))
    with pytest.raises(ShapeError, match="one value per position"):
        effective_sample_size(np.zeros((2, 2)))
