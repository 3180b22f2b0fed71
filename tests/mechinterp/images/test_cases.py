"""Parts become wholes: worked out by hand, and against the obvious loop."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechinterp.errors import ConfigError, ShapeError
from mechinterp.images import ImageSet
from mechinterp.images.cases import aggregate, per_case, per_patient


def images(groups, cases):
    return ImageSet(tuple(map(str, range(len(groups)))), lambda i: np.zeros((2, 2)), groups=groups, cases=cases)


def test_means_and_maxima_by_hand():
    values = np.array([[1.0, 10], [3, 0], [5, np.nan], [7, 7]])
    mean = aggregate(values, ["b", "a", "b", None])
    assert mean.keys == ("b", "a")
    np.testing.assert_array_equal(mean.values, [[3, 10], [3, 0]])
    np.testing.assert_array_equal(mean.counts, [2, 1])
    np.testing.assert_array_equal(aggregate(values, ["b", "a", "b", None], "max").values, [[5, 10], [3, 0]])


def test_every_examination_of_a_patient_weighs_the_same():
    ours = images(("p", "p", "p", "q"), ("one", "one", "two", None))
    values = np.array([0.0, 2.0, 11.0, 5.0])
    assert per_case(values, ours).keys == ("one", "two", "image 3")
    np.testing.assert_array_equal(per_case(values, ours).values, [1, 11, 5])
    patients = per_patient(values, ours)
    assert patients.keys == ("p", "q")
    np.testing.assert_array_equal(patients.values, [6, 5])  # not 13 / 3
    np.testing.assert_array_equal(patients.counts, [3, 1])
    np.testing.assert_array_equal(per_patient(values, ours, "max", within_cases="mean").values, [11, 5])
    np.testing.assert_array_equal(per_patient(values, images(("p", None, "p", "q"), None)).values, [5.5, 5])


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.floats(-9, 9) | st.just(np.nan)), min_size=1, max_size=20),
    st.booleans(),
)
def test_it_equals_the_obvious_loop(parts, largest):
    keys, values = [k for k, _ in parts], np.array([v for _, v in parts])
    found = aggregate(values, keys, "max" if largest else "mean")
    for key, value in zip(found.keys, found.values, strict=True):
        mine = [v for k, v in parts if k == key and not np.isnan(v)]
        expected = np.nan if not mine else max(mine) if largest else sum(mine) / len(mine)
        np.testing.assert_allclose(value, expected, atol=1e-9)


def test_what_cannot_be_combined_says_why():
    with pytest.raises(ConfigError, match="how is 'median': "):
        aggregate(np.zeros(2), ["a", "b"], "median")
    with pytest.raises(ShapeError, match=r"2 keys for values of shape \(3,\)"):
        aggregate(np.zeros(3), ["a", "b"])
    with pytest.raises(ConfigError, match="no part belongs to a case or patient"):
        aggregate(np.zeros(2), [None, None])
    with pytest.raises(ConfigError, match="'images' names no patients"):
        per_patient(np.zeros(2), images((None, None), None).subset([0]).__class__(("a", "b"), lambda i: np.zeros(2)))
    with pytest.raises(ConfigError, match="case 'one' of 'images' belongs to two patients"):
        per_patient(np.zeros(2), images(("p", "q"), ("one", "one")))
