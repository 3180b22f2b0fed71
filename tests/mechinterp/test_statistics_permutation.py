"""Permuting whole units: exact in small cases, and at its level on what fools naive tests."""

from itertools import permutations

import numpy as np
import pytest
from scipy import stats
from scipy.ndimage import gaussian_filter1d

from mechinterp.errors import ConfigError, ShapeError
from mechinterp.statistics import max_statistic_test, plan_shifts, spearman, unit_means, unit_permutations


def smooth(rng, series, n, length):
    pad = int(4 * length) + 1
    return gaussian_filter1d(rng.normal(size=(n + 2 * pad, series)), length, axis=0)[pad : pad + n]


def highest_allowed(runs, level=0.05):
    """The share of findings that a test at its level exceeds in one of a thousand repetitions."""
    return stats.binom.ppf(0.999, runs, level) / runs


def test_few_units_are_permuted_in_every_way_once_and_many_at_random_with_the_identity_first():
    all_of_four = unit_permutations(4, 1000)
    assert {tuple(row) for row in all_of_four} == set(permutations(range(4)))
    assert len(all_of_four) == 24
    drawn = unit_permutations(30, 200, seed=1)
    assert drawn.shape == (201, 30)
    np.testing.assert_array_equal(drawn[0], np.arange(30))
    np.testing.assert_array_equal(np.sort(drawn, axis=1), np.tile(np.arange(30), (201, 1)))
    np.testing.assert_array_equal(drawn, unit_permutations(30, 200, seed=1))
    assert not np.array_equal(drawn, unit_permutations(30, 200, seed=2))


def test_unit_means_ignore_missing_values_and_keep_the_order_of_appearance():
    values = np.array([[1.0, np.nan], [5, 2], [3, np.nan], [7, 4]])
    np.testing.assert_array_equal(unit_means(values, ["b", "a", "b", "a"]), [[2, np.nan], [6, 3]])


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("family", ["pairs", "features"])
def test_p_values_of_few_patients_equal_the_obvious_enumeration(family, missing):
    rng = np.random.default_rng(0)
    features, attributes = rng.normal(size=(6, 3)), rng.normal(size=(6, 2))
    tested = np.array([[True, True], [True, False], [True, True]])
    if missing:
        attributes[2] = np.nan
    result = max_statistic_test(features, attributes, tested=tested, family=family)
    kept = np.flatnonzero(~np.isnan(attributes[:, 0]))
    null = np.array(
        [np.abs(spearman(features[kept], attributes[kept][list(o)])) * tested for o in permutations(range(len(kept)))]
    )
    highest = null.max((1, 2))[:, None, None] if family == "pairs" else null.max(1)[:, None]
    expected = np.where(tested, (highest >= np.abs(result.rho) - 1e-9).mean(0), np.nan)
    np.testing.assert_allclose(result.p_corrected, expected, atol=1e-12)
    np.testing.assert_allclose(result.rho, spearman(features, attributes), atol=1e-12)


def test_patients_are_what_is_permuted_not_their_images():
    rng = np.random.default_rng(1)
    features, attributes = rng.normal(size=(30, 4)), rng.normal(size=(30, 1))
    groups = np.repeat(np.arange(30), 20)
    by_patient = max_statistic_test(features, attributes)
    by_image = max_statistic_test(features[groups], attributes[groups], groups=groups)
    assert by_image.n_units == 30
    np.testing.assert_allclose(by_image.p_corrected, by_patient.p_corrected)


def test_a_real_relation_among_many_features_is_found_and_the_others_are_not():
    rng = np.random.default_rng(2)
    features, attributes = rng.normal(size=(80, 200)), rng.normal(size=(80, 2))
    features[:, 7] += 2 * attributes[:, 1]
    attributes[3, 1] = np.nan
    result = max_statistic_test(features, attributes)
    np.testing.assert_array_equal(np.argwhere(result.findings), [[7, 1]])
    assert result.text.startswith("1 of 400 pairs significant at 0.05")
    assert result.to_json()["can_be_significant"]


def test_too_few_units_say_so_and_report_no_finding():
    x = np.arange(4.0)[:, None]
    result = max_statistic_test(x, x)
    assert result.rho[0, 0] == pytest.approx(1)
    assert not max_statistic_test(x[:3], x[:3]).findings.any()
    assert max_statistic_test(x[:3], x[:3]).text.startswith("cannot be significant with 3 units (smallest p 0.17")
    two_classes = np.array([0.0, 0, 0, 1])[:, None]
    assert max_statistic_test(x, two_classes).smallest_p == pytest.approx(1 / 4)
    slices = max_statistic_test(np.arange(40.0)[:, None], np.arange(40.0)[:, None] ** 2, order=np.arange(40))
    assert slices.text.startswith("cannot be significant with 40 units")
    assert not slices.findings.any()


def test_what_does_not_vary_has_no_p_value_and_spoils_no_other():
    rng = np.random.default_rng(3)
    features, attributes = rng.normal(size=(60, 3)), rng.normal(size=(60, 2))
    features[:, 0] += 5 * attributes[:, 0]
    features[:, 1], attributes[:, 1] = 4, 2
    features[25, 2] = np.nan
    for order in (None, np.arange(60)):
        result = max_statistic_test(features, attributes, order=order)
        assert np.isnan(result.p_corrected[1:]).all()
        assert np.isnan(result.p_corrected[:, 1]).all()
        assert result.findings[0, 0]


def test_an_empty_column_is_no_test():
    result = max_statistic_test(np.arange(9.0)[:, None], np.full((9, 1), np.nan))
    assert np.isnan(result.p_corrected).all()
    assert not result.can_be_significant


def test_shifts_compare_the_window_with_the_attribute_read_elsewhere():
    plan = plan_shifts(np.arange(86))
    assert plan.max_shift == 19
    np.testing.assert_array_equal(plan.window, np.arange(19, 67))
    np.testing.assert_array_equal(plan.images[0], np.arange(48))
    np.testing.assert_array_equal(plan.images[19], plan.window)
    assert plan.smallest_p == 0.05
    assert [plan_shifts(np.arange(n), bound="approximate").max_shift for n in (40, 86)] == [10, 20]
    assert plan_shifts(np.arange(11)).max_shift == 0
    assert plan_shifts(np.arange(400)).max_shift == 99
    assert plan_shifts(np.arange(400)).smallest_p == pytest.approx(0.01)


def test_a_middle_block_is_tested_in_full_and_never_shifts_its_features():
    order = np.arange(86)
    within = (order >= 20) & (order < 66)
    rng = np.random.default_rng(4)
    features, attributes = rng.normal(size=(86, 5)), rng.normal(size=(86, 2))
    result = max_statistic_test(features, attributes, order=order, within=within)
    assert (result.n_units, result.n_compared) == (46, 46)
    features[~within] = 99.0
    other = max_statistic_test(features, attributes, order=order, within=within)
    np.testing.assert_array_equal(other.p_corrected, result.p_corrected)


def test_positions_may_be_spaced_shuffled_and_have_gaps():
    order = np.delete(np.arange(10, 182, 2), [30])
    plan = plan_shifts(order, max_shift=10)
    assert 30 - 10 not in plan.window  # its image ten slices on is missing
    assert (np.abs(np.diff(order[plan.images], axis=0)) == 2).all()
    shuffled = np.random.default_rng(0).permutation(len(order))
    again = plan_shifts(order[shuffled], max_shift=10)
    np.testing.assert_array_equal(order[shuffled][again.images], order[plan.images])


def test_shifted_p_values_equal_the_obvious_loop_with_missing_values_too():
    rng = np.random.default_rng(5)
    features, attributes = smooth(rng, 6, 60, 2), smooth(rng, 2, 60, 2)
    for hole in (False, True):
        if hole:
            attributes[[4, 33], 0] = np.nan
        result = max_statistic_test(features, attributes, order=np.arange(60), max_shift=19)
        highest = [np.nanmax(np.abs(spearman(features[19:41], attributes[19 + k : 41 + k]))) for k in range(-19, 20)]
        rho = np.abs(spearman(features[19:41], attributes[19:41]))
        expected = np.minimum(1, (np.array(highest)[:, None, None] >= rho - 1e-9).sum(0) / 20)
        np.testing.assert_allclose(result.p_corrected, expected)


def test_a_feature_that_tracks_a_rough_curve_along_one_volume_is_found():
    rng = np.random.default_rng(6)
    features, attribute = smooth(rng, 300, 86, 2), smooth(rng, 1, 86, 1)
    features[:, 11] = attribute[:, 0] * 3 + 0.02 * features[:, 11]
    result = max_statistic_test(features, attribute, order=np.arange(86))
    np.testing.assert_array_equal(np.argwhere(result.findings), [[11, 0]])


def attribute_kinds(rng, n):
    t = np.linspace(-1, 1, n)
    yield from (smooth(rng, 1, n, length) for length in (1, 4, 16, 64))
    yield (rng.normal() * t + rng.normal() * t**2)[:, None]
    yield np.exp(-((t - rng.uniform(-0.5, 0.5)) ** 2) * rng.uniform(1, 9))[:, None]
    yield (rng.normal() * t)[:, None] + 0.3 * smooth(rng, 1, n, 0.5)
    yield np.sin(2 * np.pi * np.arange(n) / rng.uniform(8, 2 * n) + rng.uniform(0, 7))[:, None]


def share_of_runs_with_a_finding(runs, features, n, **settings):
    rng = np.random.default_rng(n)
    found = np.zeros(8)
    for _ in range(runs):
        lengths = np.resize([1, 2, 4, 8, 16, 32], features // 6)
        f = np.concatenate([smooth(rng, 6, n, length) for length in lengths], axis=1)
        for kind, attribute in enumerate(attribute_kinds(rng, n)):
            found[kind] += max_statistic_test(f, attribute, order=np.arange(n), **settings).findings.any()
    return found / runs


def test_smooth_curves_unrelated_to_anything_are_findings_in_at_most_one_run_of_twenty():
    assert (share_of_runs_with_a_finding(60, 60, 86) <= highest_allowed(60)).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n", "settings"),
    [
        (86, {}),
        (40, {"bound": "approximate"}),
        (86, {"within": (np.arange(86) >= 20) & (np.arange(86) < 66)}),
    ],
)
def test_the_level_holds_over_a_thousand_runs_for_every_length_of_correlation(n, settings):
    assert (share_of_runs_with_a_finding(1000, 120, n, **settings) <= highest_allowed(1000)).all()


def test_patients_with_correlated_images_and_features_keep_the_level():
    rng = np.random.default_rng(8)
    groups = np.repeat(np.arange(20), 5)
    found = 0
    for seed in range(200):
        shared = rng.normal(size=(20, 3)) @ rng.normal(size=(3, 50))
        features = shared[groups] + 0.3 * rng.normal(size=(100, 50))
        attribute = rng.normal(size=(20, 1))[groups]
        found += max_statistic_test(features, attribute, groups=groups, n_permutations=99, seed=seed).findings.any()
    assert found / 200 <= highest_allowed(200)


def test_inputs_that_do_not_fit_are_named():
    x = np.random.default_rng(0).normal(size=(12, 2))
    with pytest.raises(ConfigError, match="groups and order are both given"):
        max_statistic_test(x, x, groups=np.arange(12), order=np.arange(12))
    with pytest.raises(ShapeError, match="groups has 3 values for 12 images"):
        max_statistic_test(x, x, groups=[1, 2, 3])
    with pytest.raises(ShapeError, match=r"tested has shape \(1, 2\)"):
        max_statistic_test(x, x, tested=np.ones((1, 2), dtype=bool))
    with pytest.raises(ConfigError, match="2 images to test"):
        max_statistic_test(x, x, within=np.arange(12) < 2)
    with pytest.raises(ConfigError, match="a position stands twice"):
        max_statistic_test(x, x, order=np.zeros(12))
    with pytest.raises(ConfigError, match="one whole number"):
        plan_shifts(np.array([0.5, 1]))
    with pytest.raises(ConfigError, match="max_shift is 6: with 12 positions"):
        plan_shifts(np.arange(12), max_shift=6)
    with pytest.raises(ShapeError, match="order has 12 images"):
        plan_shifts(np.arange(12), np.ones(3, dtype=bool))
