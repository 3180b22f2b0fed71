"""Which interval a score gets: the jackknife's for R², the bootstrap's for all others, patients drawn whole."""

import numpy as np
import pytest

from mechinterp.statistics.bootstrap import bootstrap_groups
from probes.score_intervals import METHODS, score_interval
from probes.scores import METRICS


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
