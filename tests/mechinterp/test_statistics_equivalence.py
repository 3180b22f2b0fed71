"""Nothing is claimed to be nothing without a margin, enough patients, and a test that holds its level."""

import numpy as np
import pytest
from scipy import stats

from mechinterp.errors import ConfigError, ShapeError
from mechinterp.statistics import equivalence_test, mean_interval


def test_the_p_value_is_the_larger_of_scipys_two_one_sided_tests():
    values = np.random.default_rng(0).normal(0.1, 1, 40)
    found = equivalence_test(values, margin=0.5)
    above = stats.ttest_1samp(values, -0.5, alternative="greater").pvalue
    below = stats.ttest_1samp(values, 0.5, alternative="less").pvalue
    assert found.p_value == pytest.approx(max(above, below))
    np.testing.assert_allclose(found.interval.ends, stats.ttest_1samp(values, 0).confidence_interval(0.95))


def test_a_small_mean_is_equivalent_a_large_one_beyond_and_a_noisy_one_neither():
    rng = np.random.default_rng(1)
    small = equivalence_test(rng.normal(0, 0.1, 30), margin=0.2)
    large = equivalence_test(rng.normal(1, 0.1, 30), margin=0.2)
    noisy = equivalence_test(rng.normal(0, 5, 30), margin=0.2)
    assert (small.equivalent, small.beyond) == (True, False)
    assert (large.equivalent, large.beyond) == (False, True)
    assert (noisy.equivalent, noisy.beyond) == (False, False)


def test_images_of_a_patient_count_once_and_missing_ones_not_at_all():
    rng = np.random.default_rng(2)
    patients = rng.normal(size=20)
    values = np.repeat(patients, 3)
    values[::3] = np.nan
    found = equivalence_test(values, np.repeat(np.arange(20), 3), margin=1.0)
    assert found.interval.n == 20
    assert found.mean == pytest.approx(patients.mean())
    assert mean_interval(patients).ends == pytest.approx(found.interval.ends)


def test_few_patients_or_parts_of_one_show_nothing():
    assert equivalence_test(np.zeros(9), margin=1.0).p_value is None
    assert not equivalence_test(np.zeros(9), margin=1.0).equivalent
    assert equivalence_test(np.zeros(50), margin=1.0, units_are_patients=False).interval.text == "not estimable (n = 1)"
    assert equivalence_test(np.full(5, np.nan), np.arange(5), margin=1.0).interval.n == 0


def test_patients_that_all_agree_leave_no_doubt():
    assert equivalence_test(np.zeros(12), margin=0.1).equivalent
    assert not equivalence_test(np.full(12, 0.2), margin=0.1).equivalent


@pytest.mark.parametrize("margin", [0.0, -1.0, float("nan")])
def test_a_margin_must_be_set(margin):
    with pytest.raises(ConfigError, match="say above 0 which mean still counts as nothing"):
        equivalence_test(np.zeros(12), margin=margin)


def test_every_value_needs_its_patient():
    with pytest.raises(ShapeError, match="3 groups for values of shape"):
        mean_interval(np.zeros(12), [1, 2, 3])


def test_a_mean_at_the_margin_is_called_equivalent_as_often_as_the_level_says():
    values = np.random.default_rng(3).normal(0.5, 1, size=(2000, 25))
    rate = np.mean([equivalence_test(v, margin=0.5).equivalent for v in values])
    assert abs(rate - 0.05) < 3 * np.sqrt(0.05 * 0.95 / 2000)
