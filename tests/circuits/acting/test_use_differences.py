"""Use in two environments: values by hand, a slow twin, the level under the null, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from circuits.acting.use_differences import PatientMeans
from mechinterp.errors import ConfigError, LeakageError, ShapeError


def drawn(seed=0, patients=40, features=4, images=2):
    random = np.random.default_rng(seed)
    groups = np.repeat(np.arange(patients), images)
    labels = (groups % 2).astype(bool)
    second = (groups // 2 % 2).astype(bool)
    return random.normal(size=(len(groups), features)), second, labels, groups


def slow_statistic(effects, second, labels, groups):
    difference, variance = np.zeros(effects.shape[1]), np.zeros(effects.shape[1])
    for c in (False, True):
        for e, sign in ((False, 1), (True, -1)):
            means = [
                effects[(groups == g) & (labels == c)].mean(0)
                for g in np.unique(groups)
                if ((groups == g) & (labels == c)).any() and second[groups == g][0] == e
            ]
            difference += sign * np.mean(means, axis=0) / 2
            variance += np.var(means, axis=0, ddof=1) / len(means) / 4
    return difference, difference / np.sqrt(variance)


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 1000), st.integers(1, 3))
def test_the_statistic_equals_the_obvious_loop(seed, images):
    given_ = drawn(seed, images=images)
    result = PatientMeans.of(*given_).test(19)
    difference, studentised = slow_statistic(*given_)
    np.testing.assert_allclose(result.difference, difference, atol=1e-12)
    np.testing.assert_allclose(result.statistic, studentised, atol=1e-9)


def test_a_feature_used_in_one_environment_only_is_found_and_no_other():
    effects, second, labels, groups = drawn(1, features=30)
    effects[~second, 7] -= 2.0
    result = PatientMeans.of(effects, second, labels, groups).test(999)
    assert np.flatnonzero(result.p <= 0.05).tolist() == [7]
    assert result.difference[7] == pytest.approx(-2, abs=0.6)
    assert result.p.min() >= 1 / 1000


def test_other_shares_of_ill_patients_are_no_difference_in_use():
    # the effect depends on the class alone; environments differ in how many are ill
    groups = np.arange(200)
    second = groups >= 100
    labels = np.where(second, groups % 5 == 0, groups % 5 != 0)
    effects = labels[:, None] * -3.0 + np.random.default_rng(0).normal(size=(200, 1))
    result = PatientMeans.of(effects, second, labels, groups).test(499)
    assert abs(result.difference[0]) < 0.5
    assert result.p[0] > 0.05


def test_a_feature_that_does_nothing_has_p_1():
    effects, second, labels, groups = drawn()
    effects[:, 2] = 0.0
    assert PatientMeans.of(effects, second, labels, groups).test(99).p[2] == 1.0


def test_permutations_keep_patients_in_their_strata():
    means = PatientMeans.of(*drawn())
    assigned = means.permuted(50, np.random.default_rng(0))
    assert (assigned[0] == means.second).all()
    for stratum in np.unique(means.stratum):
        of = means.stratum == stratum
        assert (assigned[:, of].sum(1) == means.second[of].sum()).all()


def test_random_divisions_alarm_about_as_often_as_the_level_says():
    alarms = PatientMeans.of(*drawn(5, patients=60, features=8)).placebo_alarms(100, n_permutations=99)
    assert alarms <= 10


def test_what_cannot_be_tested_is_refused():
    effects, second, labels, groups = drawn()
    with pytest.raises(LeakageError, match=r"1 patient\(s\) have images in both environments"):
        PatientMeans.of(effects, np.r_[~second[:1], second[1:]], labels, groups)
    with pytest.raises(ShapeError, match="one each"):
        PatientMeans.of(effects, second[:-1], labels, groups)
    with pytest.raises(ConfigError, match="the second environment has 0"):
        PatientMeans.of(effects, np.zeros_like(second), labels, groups)
