"""The interval of an AUROC over patients: its ends against their equation, what it does not depend on, what it refuses."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import multivariate_normal, norm

from mechinterp.errors import ConfigError, ShapeError
from mechinterp.statistics.separation import auroc
from mechinterp.statistics.separation_intervals import auroc_interval


def clustered(seed, patients=14, images=3, apart=1.5, ill=5, shared=0.7):
    random = np.random.default_rng(seed)
    groups = np.repeat(np.arange(patients), images)
    truth = (groups < ill).astype(float)
    own = np.sqrt(shared) * random.normal(size=patients)[groups]
    return own + np.sqrt(1 - shared) * random.normal(size=len(groups)) + apart * truth, truth, groups


def area_of(scores, truth):
    return float(auroc(scores[:, None], truth[:, None])[0][0, 0])


def pairwise_variance(scores, truth, groups):
    """Obuchowski's variance by looking at every pair of images."""
    ones, zeros = np.flatnonzero(truth == 1), np.flatnonzero(truth == 0)
    won = (scores[ones][:, None] > scores[zeros]) + 0.5 * (scores[ones][:, None] == scores[zeros])
    area, total = won.mean(), 0.0
    first = {g: (won.mean(1) - area)[groups[ones] == g].sum() / len(ones) for g in set(groups)}
    second = {g: (won.mean(0) - area)[groups[zeros] == g].sum() / len(zeros) for g in set(groups)}
    for part, where in ((first, ones), (second, zeros)):
        n = len(set(groups[where]))
        total += n / (n - 1) * sum(v**2 for v in part.values())
    n = len(set(groups))
    return total + 2 * n / (n - 1) * sum(first[g] * second[g] for g in first)


def model_variance(true, m, n):
    """The binormal model's variance, the chance of lying beyond two as an integral over two dimensions."""
    a = norm.ppf(true)
    beyond_two = multivariate_normal([0, 0], [[1, 0.5], [0.5, 1]]).cdf([a, a])
    return (true * (1 - true) + (m + n - 2) * (beyond_two - true**2)) / (m * n)


def test_both_ends_solve_their_equation_with_one_image_a_patient():
    scores, truth, groups = clustered(1, patients=24, images=1, ill=9)
    area, own = area_of(scores, truth), pairwise_variance(scores, truth, groups)
    design = (22 * own / model_variance(area, 9, 15) + 20) / 42
    for end in auroc_interval(scores, truth, groups).ends:
        assert abs(end - area) == pytest.approx(1.959964 * np.sqrt(design * model_variance(end, 9, 15)), rel=1e-5)


def test_images_that_are_copies_count_once():
    scores, truth, groups = clustered(2, images=1)
    once = auroc_interval(scores, truth, groups).ends
    thrice = auroc_interval(np.repeat(scores, 3), np.repeat(truth, 3), np.repeat(groups, 3)).ends
    assert thrice == pytest.approx(once, abs=1e-6)


def test_patients_with_images_of_both_classes_have_a_narrower_interval_than_as_many_with_one():
    random = np.random.default_rng(3)
    truth = np.tile([0.0, 1.0], 20)
    own = random.normal(size=20).repeat(2)
    scores = own + 0.3 * random.normal(size=40) + 0.8 * truth
    paired = auroc_interval(scores, truth, np.repeat(np.arange(20), 2))
    apart = auroc_interval(scores, truth, np.arange(40))
    assert paired.high - paired.low < apart.high - apart.low


@given(seed=st.integers(0, 10_000), apart=st.floats(0, 6))
def test_the_interval_holds_the_area_turns_with_the_classes_and_sees_only_order(seed, apart):
    scores, truth, groups = clustered(seed, apart=apart)
    low, high = auroc_interval(scores, truth, groups).ends
    assert 0 <= low <= area_of(scores, truth) <= high <= 1
    assert auroc_interval(np.exp(scores), truth, groups).ends == pytest.approx((low, high))
    assert auroc_interval(scores, 1 - truth, groups).ends == pytest.approx((1 - high, 1 - low), abs=1e-6)


def test_classes_that_are_apart_do_not_get_a_width_of_nothing():
    scores, truth, groups = clustered(4, apart=50)
    found = auroc_interval(scores, truth, groups)
    assert found.high == 1.0
    assert 0.6 < found.low < 0.95
    assert auroc_interval(-scores, truth, groups).ends == pytest.approx((0.0, 1 - found.low))


def test_a_constant_score_is_at_chance():
    _, truth, groups = clustered(5)
    low, high = auroc_interval(np.zeros(len(truth)), truth, groups).ends
    assert low < 0.5 < high
    assert low + high == pytest.approx(1)


@pytest.mark.parametrize("apart", [0.9, 2.2])
def test_it_covers_at_its_nominal_rate_with_14_patients(apart):
    truth = norm.cdf(apart / np.sqrt(2))
    ends = [auroc_interval(*clustered((6, seed), apart=apart)).ends for seed in range(500)]
    assert np.mean([low <= truth <= high for low, high in ends]) == pytest.approx(0.95, abs=0.03)


def test_what_rests_on_single_patients_is_refused():
    few = auroc_interval(*clustered(7, patients=12, ill=3))
    assert few.text == "not estimable (3 of 12 patients have images of one of the classes)"
    assert auroc_interval(*clustered(7, patients=9)).text == "not estimable (n = 9)"
    assert auroc_interval(*clustered(7), units_are_patients=False).text == "not estimable (n = 1)"
    assert auroc_interval(*clustered(7)).warning.startswith("fewer than 30 patients")


def test_users_mistakes_are_named():
    scores, truth, groups = clustered(8)
    with pytest.raises(ShapeError, match="a group, per image"):
        auroc_interval(scores[1:], truth, groups)
    with pytest.raises(ConfigError, match="values besides 0 and 1"):
        auroc_interval(scores, 2 * truth, groups)
