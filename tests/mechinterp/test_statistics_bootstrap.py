"""Intervals over patients: when they are refused, and that they resample whole patients."""

import numpy as np
import pytest
from scipy import stats

from mechinterp.errors import ConfigError
from mechinterp.statistics import Interval, bootstrap_groups


def mean_of(values):
    return lambda images: float(np.mean(values[images]))


def test_fewer_than_ten_patients_are_refused_and_fewer_than_thirty_warned_about():
    values = np.random.default_rng(0).normal(size=40)
    few = bootstrap_groups(mean_of(values), np.arange(40) % 9)
    assert not few.estimable
    assert few.text == "not estimable (n = 9)"
    assert few.ends is None
    some = bootstrap_groups(mean_of(values), np.arange(40) % 12)
    assert some.estimable
    assert some.warning == "fewer than 30 patients: the interval is rough"
    assert "(12 patients; fewer than 30" in some.text
    many = bootstrap_groups(mean_of(values), np.arange(40))
    assert many.warning == ""
    assert many.text.startswith("95 % interval ")
    assert many.to_json()["n"] == 40


def test_parts_of_one_subject_are_one_patient_however_many_there_are():
    interval = bootstrap_groups(mean_of(np.arange(86.0)), np.arange(86), units_are_patients=False)
    assert interval.text == "not estimable (n = 1)"
    assert interval == Interval.not_estimable(1)


def test_images_of_a_patient_are_drawn_together():
    groups = np.repeat(np.arange(15), 3)
    seen = []
    bootstrap_groups(lambda images: seen.append(images) or 0.0, groups, n_boot=100, method="percentile")
    for images in seen:
        counts = np.bincount(images, minlength=45).reshape(15, 3)
        assert (counts == counts[:, :1]).all()
        assert len(images) == 45


@pytest.mark.parametrize("method", ["percentile", "bca", "jackknife"])
def test_the_interval_of_a_mean_is_that_of_the_normal_approximation(method):
    values = np.random.default_rng(1).normal(size=400)
    interval = bootstrap_groups(mean_of(values), np.arange(400), method=method)
    half = 1.96 * values.std() / 20
    np.testing.assert_allclose(interval.ends, [values.mean() - half, values.mean() + half], atol=0.15 * half)


def test_correlated_images_of_a_patient_widen_the_interval():
    rng = np.random.default_rng(2)
    patients = rng.normal(size=60)
    values, groups = np.repeat(patients, 10), np.repeat(np.arange(60), 10)
    by_patient = bootstrap_groups(mean_of(values), groups, n_boot=500)
    by_image = bootstrap_groups(mean_of(values), np.arange(600), n_boot=500)
    width = np.ptp(by_patient.ends) / np.ptp(by_image.ends)
    assert width == pytest.approx(np.sqrt(10), rel=0.2)


def test_the_nominal_cover_is_reached_with_correlated_images():
    rng = np.random.default_rng(3)
    groups = np.repeat(np.arange(40), 5)
    covered = 0
    for run in range(200):
        values = np.repeat(rng.normal(size=40), 5) + rng.normal(size=200) + 1
        low, high = bootstrap_groups(mean_of(values), groups, n_boot=200, seed=run).ends
        covered += low <= 1 <= high
    assert 0.88 <= covered / 200 <= 0.99


def test_bca_leans_the_way_a_skewed_statistic_does():
    values = np.random.default_rng(4).exponential(size=50)
    variance = lambda images: float(np.var(values[images]))  # noqa: E731
    plain, corrected = (bootstrap_groups(variance, np.arange(50), method=m) for m in ("percentile", "bca"))
    assert corrected.high > plain.high


def test_a_statistic_that_mostly_has_no_value_gets_no_interval():
    interval = bootstrap_groups(lambda images: float("nan") if images[0] < 20 else 1.0, np.arange(40), n_boot=200)
    assert not interval.estimable
    assert "resamples of 40 patients have no value" in interval.text


def test_settings_that_cannot_be_meant_are_named():
    with pytest.raises(ConfigError, match="level is 95"):
        bootstrap_groups(mean_of(np.zeros(20)), np.arange(20), level=95)
    with pytest.raises(ConfigError, match="n_boot is 5"):
        bootstrap_groups(mean_of(np.zeros(20)), np.arange(20), n_boot=5)


def test_tails_are_widened_so_that_ten_patients_cover_a_normal_mean():
    # without it a percentile interval over 10 patients covers 0.89 of the time
    rng = np.random.default_rng(5)
    covered = []
    for run in range(300):
        interval = bootstrap_groups(
            mean_of(rng.normal(size=10)), np.arange(10), n_boot=200, seed=run, method="percentile"
        )
        covered.append(interval.ends[0] <= 0 <= interval.ends[1])
    assert np.mean(covered) > 0.95 - 3 * np.sqrt(0.95 * 0.05 / 300)


def test_the_jackknife_of_a_mean_is_students_t_and_refuses_what_it_cannot_leave_out():
    values = np.random.default_rng(6).normal(size=14)
    interval = bootstrap_groups(mean_of(values), np.arange(14), method="jackknife")
    np.testing.assert_allclose(interval.ends, stats.ttest_1samp(values, 0).confidence_interval(0.95))
    assert interval.warning.startswith("fewer than 30")
    needs_first = bootstrap_groups(
        lambda images: 1.0 if 0 in images else float("nan"), np.arange(14), method="jackknife"
    )
    assert needs_first.text == "not estimable (1 of 14 patients cannot be left out)"
