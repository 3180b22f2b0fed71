"""Rank correlations of few patients: the inverted test against samples of its own, and how often it covers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechinterp.errors import ConfigError, ShapeError
from mechinterp.statistics.few_patients import interval_by_inversion, rank_correlation_intervals
from mechinterp.statistics.rank import spearman
from mechinterp.statistics.rank_intervals import spearman_intervals


def test_each_end_is_the_correlation_whose_samples_just_reach_what_was_seen():
    # other samples than the interval's own: 2.5 % of those of either end lie beyond
    random, n, seen = np.random.default_rng(99), 14, 0.6
    for end, side in zip(interval_by_inversion(seen, n), (1, -1), strict=True):
        r = 2 * np.sin(np.pi * end / 6)
        x, noise = random.normal(size=(2, n, 40_000))
        y = r * x + np.sqrt(1 - r * r) * noise
        ranks = [np.argsort(np.argsort(v, axis=0), axis=0) - (n - 1) / 2 for v in (x, y)]
        rho = (ranks[0] * ranks[1]).sum(0) / (n * (n * n - 1) / 12)
        assert np.mean(side * rho > side * seen) == pytest.approx(0.025, abs=0.006)


@given(rho=st.floats(-1, 1), n=st.sampled_from([10, 12]), level=st.sampled_from([0.9, 0.95, 0.99]))
def test_the_interval_holds_what_was_seen_and_turns_with_its_sign(rho, n, level):
    low, high = interval_by_inversion(rho, n, level)
    assert -1 <= low <= rho <= high <= 1
    assert high - low > (0.01 if abs(rho) < 0.99 else 0)
    assert interval_by_inversion(-rho, n, level) == pytest.approx((-high, -low))


def test_a_perfect_order_leaves_out_the_correlations_that_hardly_ever_give_one():
    # of samples from the low end 5 % reach it, those that equal it counting half: one in ten is in perfect order
    low, high = interval_by_inversion(1.0, 12, 0.9)
    assert high == 1
    r = 2 * np.sin(np.pi * low / 6)
    x, noise = np.random.default_rng(7).normal(size=(2, 12, 100_000))
    ordered = np.argsort(x, axis=0) == np.argsort(r * x + np.sqrt(1 - r * r) * noise, axis=0)
    assert ordered.all(0).mean() == pytest.approx(0.1, abs=0.02)


def test_more_is_covered_at_a_higher_level_and_less_with_more_patients():
    low, high = interval_by_inversion(0.5, 12)
    assert interval_by_inversion(0.5, 12, 0.99)[0] < low < interval_by_inversion(0.5, 25)[0]
    assert interval_by_inversion(0.5, 25)[1] < high < interval_by_inversion(0.5, 12, 0.99)[1]


def test_the_interval_around_zero_is_about_fishers():
    low, high = interval_by_inversion(0.0, 12)
    assert low == pytest.approx(-high)
    # critical value of Spearman's rho for n = 12, two-sided 5 %: 0.587
    assert high == pytest.approx(0.59, abs=0.04)


def test_a_perfect_correlation_has_an_interval_that_ends_at_it():
    low, high = interval_by_inversion(1.0, 15)
    assert 0.97 < low < 1
    assert high == pytest.approx(1.0)


def test_the_number_of_patients_decides_how_the_interval_is_made():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 4)), rng.normal(size=(40, 4))
    y[12:, 1] = np.nan
    y[9:, 2] = np.nan
    x[4:12, 3], x[12:, 3] = 0.0, np.nan
    x[:1, 3] = 0.0
    many, few, none, alike = rank_correlation_intervals(x, y, n_boot=200, seed=3)
    assert many == spearman_intervals(x[:, :1], y[:, :1], n_boot=200, seed=3)[0]
    assert few.ends == interval_by_inversion(float(spearman(x[:12, 1:2], y[:12, 1:2])[0, 0]), 12)
    assert few.n == 12
    assert few.warning.startswith("fewer than 30")
    assert none.text == "not estimable (n = 9)"
    assert alike.text == "not estimable (3 of 12 patients differ from the commonest value)"
    assert rank_correlation_intervals(x, y, units_are_patients=False)[0].text == "not estimable (n = 1)"


@pytest.mark.parametrize(("strength", "zeros"), [(0.0, False), (0.8, False), (0.0, True)])
def test_it_covers_at_its_nominal_rate_with_12_patients(strength, zeros):
    rng, runs = np.random.default_rng(5), 600
    y = rng.normal(size=(12, runs))
    x = strength * y + np.sqrt(1 - strength**2) * rng.normal(size=y.shape)
    x = np.maximum(x - 0.5, 0) if zeros else x
    truth = 6 / np.pi * np.arcsin(strength / 2)
    ends = [i.ends for i in rank_correlation_intervals(x, y) if i.ends is not None]
    covered = np.mean([low <= truth <= high for low, high in ends])
    # 3 standard errors of a rate of 0.95 over 300 runs
    assert covered == pytest.approx(0.95, abs=0.038)


def test_users_mistakes_are_named():
    with pytest.raises(ShapeError, match="give patient × pair for both"):
        rank_correlation_intervals(np.zeros((12, 2)), np.zeros((12, 3)))
    with pytest.raises(ConfigError, match="n is 3"):
        interval_by_inversion(0.5, 3)
