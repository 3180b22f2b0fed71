"""Which of a run's images a command looks at."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.analysis.chosen_images import patients_of_rows, rows_of_split, spread
from mechinterp.errors import ConfigError


class Images(SimpleNamespace):
    def __len__(self):
        return 5


def test_the_images_of_a_split_or_all_of_them():
    images = Images(splits=("train", "test", "train", None, "test"))
    assert rows_of_split(images, None).tolist() == [0, 1, 2, 3, 4]
    assert rows_of_split(images, "test").tolist() == [1, 4]


@pytest.mark.parametrize(("splits", "known"), [(("train",) * 5, "train"), (None, "none")])
def test_a_split_that_is_not_there_is_refused_with_those_that_are(splits, known):
    with pytest.raises(ConfigError, match=f"no image is of the split 'tset': the run's splits are {known}"):
        rows_of_split(Images(splits=splits), "tset")


def test_so_many_images_are_spread_over_them():
    chosen = spread(np.arange(100, 200), 3)
    stretches = (range(100, 133), range(133, 166), range(166, 200))
    assert all(i in stretch for i, stretch in zip(chosen, stretches, strict=True))
    assert spread(np.arange(4), 9).tolist() == [0, 1, 2, 3]
    assert spread(np.arange(100, 200), 3).tolist() == chosen.tolist()


@given(st.integers(1, 500), st.integers(1, 500))
def test_none_is_drawn_twice_and_their_order_is_kept(n, most):
    chosen = spread(np.arange(n), most)
    assert len(chosen) == min(n, most)
    assert (np.diff(chosen) > 0).all()


@pytest.mark.parametrize("period", [2, 3, 4])
def test_images_that_take_turns_are_all_met(period):
    turns = spread(np.arange(200 * period), 200) % period
    assert np.bincount(turns, minlength=period).min() > 200 / period * 0.7


@pytest.mark.parametrize("most", [0, -2])
def test_no_image_at_all_is_refused_by_the_flag_that_asks_for_it(most):
    with pytest.raises(ConfigError, match=f"--cases is {most}: look at 1 image at least"):
        spread(np.arange(4), most, "--cases")


def test_where_nobody_named_patients_each_image_is_its_own():
    rows = np.array([3, 1])
    assert patients_of_rows(Images(groups=None), rows).tolist() == [3, 1]
    assert patients_of_rows(Images(groups=tuple("aabbc"), ids=tuple("vwxyz")), rows).tolist() == ["b", "a"]


def test_images_without_a_patient_are_not_one_patient():
    images = Images(groups=("a", None, None, "b", "b"), ids=tuple("vwxyz"))
    assert patients_of_rows(images, np.arange(5)).tolist() == ["a", "image w", "image x", "b", "b"]
