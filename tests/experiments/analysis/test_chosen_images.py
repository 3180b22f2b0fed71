"""Which of a run's images a command looks at."""

from types import SimpleNamespace

import numpy as np
import pytest

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
    assert spread(np.arange(100, 200), 3).tolist() == [100, 149, 199]
    assert spread(np.arange(4), 9).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("most", [0, -2])
def test_no_image_at_all_is_refused_by_the_flag_that_asks_for_it(most):
    with pytest.raises(ConfigError, match=f"--cases is {most}: look at 1 image at least"):
        spread(np.arange(4), most, "--cases")


def test_where_nobody_named_patients_each_image_is_its_own():
    rows = np.array([3, 1])
    assert patients_of_rows(Images(groups=None), rows).tolist() == [3, 1]
    assert patients_of_rows(Images(groups=tuple("aabbc")), rows).tolist() == ["b", "a"]
