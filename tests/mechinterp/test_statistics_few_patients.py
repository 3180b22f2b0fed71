"""Rank correlations of few patients: the score interval against its defining equation, and how often it covers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechinterp.errors import ConfigError, ShapeError
from mechinterp.statistics.few_patients import rank_correlation_intervals, score_interval
from mechinterp.statistics.rank import spearman
from mechinterp.statistics.rank_intervals import spearman_intervals


@given(rho=st.floats(-0.999, 0.999), n=st.integers(10, 29), level=st.sampled_from([0.9, 0.95, 0.999]))
def test_each_end_is_the_correlation_whose_own_scatter_just_reaches_what_was_seen(rho, n, level):
    low, high = score_interval(rho, n, level)
    quantile = {0.9: 1.6448536, 0.95: 1.9599640, 0.999: 3.2905267}[level]
    assert -1 < low < rho < high < 1
    for end in (low, high):
        scatter = np.sqrt((1 + end**2 / 2) / (n - 3))
        assert abs(np.arctanh(end) - np.arctanh(rho)) == pytest.approx(quantile * scatter, rel=1e-6)


def test_the_interval_around_zero_is_fishers_a_little_wider():
    low, high = score_interval(0.0, 12)
    assert low == -high
    # z = 1.96 sqrt((1 + rho^2 / 2) / 9) by hand: 0.653 at first, 0.707 once rho = 0.609 is put in
    assert high == pytest.approx(0.610, abs=0.002)


def test_a_perfect_correlation_has_an_interval_that_ends_at_it():
    low, high = score_interval(1.0, 15)
    assert low > 0.99
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
    assert few.ends == score_interval(float(spearman(x[:12, 1:2], y[:12, 1:2])[0, 0]), 12)
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
        score_interval(0.5, 3)
