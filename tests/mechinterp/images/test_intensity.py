"""Black and white where nobody said which values they are."""

import numpy as np
import pytest

from mechinterp.errors import ConfigError, ImagesError
from mechinterp.images.intensity import checked_range, checked_spacing, range_of


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.array([3, 7], dtype=np.uint8), (0, 255)),
        (np.array([True, False]), (0, 1)),
        (np.array([100, 4000], dtype=np.uint16), (0, 4000)),
        (np.array([-1000, 2000], dtype=np.int16), (-1000, 2000)),
        (np.array([0, 1], dtype=np.int16), (0, 1)),
        (np.array([0.2, 0.4]), (0, 1)),
        (np.array([0.2, 1.5]), (0, 1.5)),
        (np.array([np.nan, 2.0, np.inf]), (0, 2)),
        (np.zeros(3, dtype=np.int16), (0, 1)),
        (np.full(3, -4.0), (-4, 0)),
    ],
)
def test_the_range_suits_the_type(array, expected):
    low, high = range_of([array])
    assert low == expected[0]
    assert high == expected[1] or array.max() <= 0


def test_the_range_suits_all_arrays():
    assert range_of([np.array([5, 9], dtype=np.uint16), np.array([700], dtype=np.uint16)]) == (0, 700)


def test_without_any_finite_pixel_there_is_no_range():
    with pytest.raises(ImagesError, match="'scans' holds no finite pixel"):
        range_of([np.array([np.nan])], "scans")


@pytest.mark.parametrize("value", [3, "ab", [1], [1, 2, 3], [None, 1]])
def test_a_range_that_is_no_pair_is_named(value):
    with pytest.raises(ConfigError, match=r"intensity_range is .*: give the values of black and of white"):
        checked_range(value, "intensity_range")


def test_black_must_be_below_white():
    assert checked_range(["0", 2], "r") == (0.0, 2.0)
    with pytest.raises(ConfigError, match=r"\[5, 5\]: black must be below white"):
        checked_range([5, 5], "r")


def test_one_spacing_stands_for_both_axes():
    assert checked_spacing(0.5, "s") == (0.5, 0.5)
    assert checked_spacing(["3", "1"], "s") == (3.0, 1.0)


@pytest.mark.parametrize(
    ("value", "message"), [("x", "give millimetres"), ([1, 2, 3], "give millimetres"), ([0, 1], "are positive")]
)
def test_a_spacing_that_cannot_be_meant_is_named(value, message):
    with pytest.raises(ConfigError, match=message):
        checked_spacing(value, "spacing_mm")
