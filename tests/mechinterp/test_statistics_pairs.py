"""AUROC, mutual information, p-values and intervals of all pairs at once equal the loop over pairs of scipy and sklearn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import mutual_info_score, roc_auc_score

from mechinterp.errors import ConfigError, ShapeError
from mechinterp.statistics import (
    auroc,
    entropy_bits,
    mutual_information,
    spearman,
    spearman_intervals,
    spearman_p_values,
)
from mechinterp.statistics.information import quantile_bins
from mechinterp.statistics.rank_intervals import _weighted_spearman


def data(seed, n=60, features=5, attributes=4, ties=False, missing=True):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n, features)), rng.normal(size=(n, attributes))
    x[:, 0] = np.maximum(x[:, 0] - 0.7, 0)  # as an SAE's feature: zero on most images
    if ties:
        x, y = np.round(x), np.round(y)
    y[:, -1] = rng.integers(0, 2, n)
    if missing:
        y[rng.random(n) < 0.2, 1] = np.nan
        y[rng.random(n) < 0.2, -1] = np.nan
    return x, y


@settings(max_examples=15)
@given(seed=st.integers(0, 10**6), ties=st.booleans())
def test_rank_correlations_and_their_p_values_equal_scipy_pair_by_pair(seed, ties):
    x, y = data(seed, ties=ties)
    rho = spearman(x, y)
    p = spearman_p_values(rho, (~np.isnan(y)).sum(0)[None])
    for j in range(y.shape[1]):
        known = ~np.isnan(y[:, j])
        for i in range(x.shape[1]):
            expected = stats.spearmanr(x[known, i], y[known, j])
            np.testing.assert_allclose((rho[i, j], p[i, j]), expected, atol=1e-9)


@settings(max_examples=15)
@given(seed=st.integers(0, 10**6), ties=st.booleans())
def test_aurocs_and_their_p_values_equal_sklearn_and_scipy_ties_included(seed, ties):
    x, y = data(seed, ties=ties)
    areas, p = auroc(x, y)
    known = ~np.isnan(y[:, -1])
    truth = y[known, -1]
    for i in range(x.shape[1]):
        assert areas[i, -1] == pytest.approx(roc_auc_score(truth, x[known, i]), abs=1e-12)
        ones, zeros = x[known, i][truth == 1], x[known, i][truth == 0]
        expected = stats.mannwhitneyu(ones, zeros, use_continuity=False, method="asymptotic")
        # of a feature that is the same everywhere scipy's is 0 / 0, and says nothing against chance
        wanted = 1.0 if np.ptp(x[known, i]) == 0 else expected.pvalue
        assert p[i, -1] == pytest.approx(wanted, abs=1e-12)
    assert np.isnan(areas[:, :-1]).all() or ties


def test_an_auroc_needs_both_classes_and_a_feature_that_varies():
    x = np.array([[1.0, 5.0], [2.0, 5.0], [3.0, 5.0]])
    areas, p = auroc(x, np.array([[0.0, 1.0, 0.3], [0.0, 1.0, 0.2], [1.0, 1.0, 0.1]]))
    np.testing.assert_array_equal(areas, [[1.0, np.nan, np.nan], [0.5, np.nan, np.nan]])
    assert p[1, 0] == 1
    with pytest.raises(ShapeError):
        auroc(x, np.zeros((2, 1)))


@settings(max_examples=15)
@given(seed=st.integers(0, 10**6), bins=st.integers(2, 9), ties=st.booleans())
def test_mutual_information_equals_sklearns_over_the_same_bins(seed, bins, ties):
    x, y = data(seed, ties=ties)
    found = mutual_information(x, y, bins, correct=False)
    for j in range(y.shape[1]):
        known = ~np.isnan(y[:, j])
        values = y[known, j]
        binned = values if len(np.unique(values)) <= bins else quantile_bins(values[None], bins)[0]
        for i in range(x.shape[1]):
            expected = mutual_info_score(quantile_bins(x[known, i][None], bins)[0], binned) / np.log(2)
            assert found[i, j] == pytest.approx(expected, abs=1e-9)


def test_bins_hold_as_many_values_each_and_equal_values_share_one():
    np.testing.assert_array_equal(quantile_bins(np.arange(8.0)[None], 4), [[0, 0, 1, 1, 2, 2, 3, 3]])
    zeros = quantile_bins(np.array([[0.0, 0, 0, 0, 0, 0, 1, 2]]), 4)[0]
    assert len(set(zeros[:6])) == 1
    assert list(zeros[6:]) == [3, 3]


def test_information_is_known_by_hand_and_close_to_zero_without_a_relation():
    x = np.arange(64.0)[:, None]
    two = np.repeat([0.0, 1.0], 32)[:, None]
    assert mutual_information(x, two, 8, correct=False)[0, 0] == pytest.approx(1.0)
    assert mutual_information(x, x**3, 8, correct=False)[0, 0] == pytest.approx(3.0)
    assert entropy_bits(two[:, 0]) == pytest.approx(1.0)
    assert entropy_bits(x[:, 0]) == pytest.approx(3.0)
    assert np.isnan(entropy_bits(np.array([np.nan])))
    rng = np.random.default_rng(0)
    nothing = mutual_information(rng.normal(size=(300, 400)), rng.normal(size=(300, 3)))
    assert abs(nothing.mean()) < 0.01
    raw = mutual_information(rng.normal(size=(300, 400)), rng.normal(size=(300, 3)), correct=False)
    assert raw.mean() > 0.1
    with pytest.raises(ConfigError, match="bins is 1"):
        mutual_information(x, x, 1)


def test_a_feature_with_missing_values_has_no_answer():
    x, y = data(0)
    x[3, 2] = np.nan
    for found in (mutual_information(x, y), *auroc(x, y), spearman(x, y)):
        assert np.isnan(found[2]).all()


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6), ties=st.booleans())
def test_a_patient_with_weight_three_is_one_that_stands_three_times(seed, ties):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(2, 25))
    if ties:
        x, y = np.round(x), np.round(y)
    drawn = rng.integers(0, 25, size=(6, 25))
    weights = np.stack([np.bincount(d, minlength=25) for d in drawn])
    found = _weighted_spearman(x, y, weights)
    for d, rho in zip(drawn, found, strict=True):
        assert rho == pytest.approx(stats.spearmanr(x[d], y[d]).statistic, abs=1e-9)


def test_intervals_of_correlations_hold_the_truth_and_are_refused_over_few_patients():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 3))
    y = 0.8 * x + 0.6 * rng.normal(size=(60, 3))
    y[:55, 2] = np.nan
    first, second, few = spearman_intervals(x, y, n_boot=400)
    truth = 6 / np.pi * np.arcsin(0.4)
    for interval in (first, second):
        low, high = interval.ends
        assert low < truth < high
        assert 0.1 < high - low < 0.4
    assert few.text == "not estimable (n = 5)"
    assert spearman_intervals(x, y, units_are_patients=False)[0].text == "not estimable (n = 1)"
    constant = spearman_intervals(np.r_[np.zeros(14), 1.0][:, None], rng.normal(size=(15, 1)), n_boot=200)[0]
    assert "of 200 resamples of 15 patients do not vary" in constant.text
    assert spearman_intervals(x[:20, :1], y[:20, :1], n_boot=200)[0].warning.startswith("fewer than 30")
    with pytest.raises(ShapeError, match="give patient × pair for both"):
        spearman_intervals(x, y[:, :2])
    with pytest.raises(ConfigError, match="at least 100 draws"):
        spearman_intervals(x, y, n_boot=50)


def test_from_many_patients_on_the_standard_error_gives_what_the_draws_would(monkeypatch):
    rng = np.random.default_rng(3)
    x = rng.normal(size=(600, 2))
    y = np.stack([x[:, 0] + rng.normal(size=600), np.maximum(x[:, 1], 0) + rng.normal(size=600)], 1)
    by_error = spearman_intervals(x, y)
    monkeypatch.setattr("mechinterp.statistics.rank_intervals._MANY", 10**9)
    for one, other in zip(by_error, spearman_intervals(x, y, n_boot=2000), strict=True):
        np.testing.assert_allclose(one.ends, other.ends, atol=0.012)


@pytest.mark.slow
def test_many_pairs_at_once_equal_the_loop_over_scipy_to_a_millionth():
    rng = np.random.default_rng(11)
    n = 1000
    x = rng.normal(size=(n, 60)).astype(np.float32)
    x[:, ::2] = np.maximum(x[:, ::2] - 0.8, 0)  # ties, as SAE features have
    y = np.concatenate([np.round(rng.normal(size=(n, 6)), 1), rng.integers(0, 2, (n, 4))], 1)
    y[:, 0] += x[:, 1]
    rho = spearman(x, y)
    p = spearman_p_values(rho, n)
    areas, p_areas = auroc(x, y)
    for i in range(x.shape[1]):
        for j in range(y.shape[1]):
            expected = stats.spearmanr(x[:, i], y[:, j])
            assert rho[i, j] == pytest.approx(expected.statistic, abs=1e-6)
            assert p[i, j] == pytest.approx(expected.pvalue, abs=1e-6)
            if j >= 6:
                ones, zeros = x[y[:, j] == 1, i], x[y[:, j] == 0, i]
                u = stats.mannwhitneyu(ones, zeros, use_continuity=False, method="asymptotic")
                assert areas[i, j] == pytest.approx(u.statistic / (len(ones) * len(zeros)), abs=1e-6)
                assert p_areas[i, j] == pytest.approx(u.pvalue, abs=1e-6)
