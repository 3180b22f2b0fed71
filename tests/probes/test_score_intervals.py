"""Which interval a score gets: the jackknife's for R², an inverted test's for AUROC, the bootstrap's for all others."""

import numpy as np
import pytest

from mechinterp.statistics.bootstrap import bootstrap_groups
from mechinterp.statistics.separation_intervals import auroc_interval
from probes.score_intervals import METHODS, reading_interval, score_interval
from probes.scores import METRICS, Reading


def mean_of(values):
    return lambda images: float(values[images].mean())


@pytest.mark.parametrize("kind", METRICS)
def test_the_kind_of_the_attribute_chooses_the_method(kind):
    rng = np.random.default_rng(0)
    values, groups = rng.exponential(size=60), np.repeat(np.arange(20), 3)
    found = score_interval(mean_of(values), groups, kind, 200, seed=4)
    assert found == bootstrap_groups(mean_of(values), groups, 200, 4, method=METHODS[kind])


def test_an_r_squared_of_means_over_patients_has_students_interval():
    rng = np.random.default_rng(1)
    values, groups = rng.normal(size=36), np.repeat(np.arange(12), 3)
    patients = values.reshape(12, 3).mean(1)
    half = 2.2009852 * patients.std(ddof=1) / np.sqrt(12)  # Student's t with 11 degrees of freedom
    found = score_interval(mean_of(values), groups, "continuous")
    assert found.ends == pytest.approx((values.mean() - half, values.mean() + half))


def test_one_subject_has_no_interval():
    found = score_interval(mean_of(np.arange(30.0)), np.arange(30), "binary", units_are_patients=False)
    assert found.text == "not estimable (n = 1)"


def test_an_auroc_has_the_interval_of_an_inverted_test_and_other_readings_that_of_their_kind():
    rng, groups = np.random.default_rng(2), np.repeat(np.arange(12), 3)
    truth = (groups < 5).astype(float)[:, None]
    predicted = rng.normal(size=(36, 1)) + truth
    binary = Reading("binary", truth, predicted, np.full_like(truth, 0.4))
    assert reading_interval(binary, groups) == auroc_interval(predicted[:, 0], truth[:, 0], groups)
    assert reading_interval(binary, groups, units_are_patients=False).text == "not estimable (n = 1)"
    line = Reading("continuous", predicted + rng.normal(size=(36, 1)), predicted, np.zeros((36, 1)))
    assert reading_interval(line, groups) == score_interval(line.score_of, groups, "continuous")
