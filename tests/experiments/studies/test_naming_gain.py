"""What names are worth, by hand and beside the obvious loop."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from experiments.studies.naming_gain import precision_gain


def gain(says: list[list[float]], there: list[list[float]], images: list[int] | None = None) -> float:
    chosen = None if images is None else np.array(images)
    return precision_gain(np.array(says, dtype=float).T, np.array(there, dtype=float).T, chosen)


def test_a_name_that_is_always_right_gains_what_the_base_rate_leaves() -> None:
    assert gain([[1, 1, 0, 0]], [[1, 1, 0, 0]]) == pytest.approx(0.5)


def test_a_name_said_of_every_image_gains_nothing() -> None:
    assert gain([[1, 1, 1, 1]], [[1, 0, 0, 0]]) == pytest.approx(0.0)


def test_a_name_that_is_always_wrong_loses_the_base_rate() -> None:
    assert gain([[0, 0, 1, 1]], [[1, 1, 0, 0]]) == pytest.approx(-0.5)


def test_the_gain_is_the_mean_over_names() -> None:
    # 1 - 1/2 and 1/2 - 1/4
    assert gain([[1, 1, 0, 0], [1, 1, 0, 0]], [[1, 1, 0, 0], [1, 0, 0, 0]]) == pytest.approx(0.375)


def test_images_of_which_nobody_knows_do_not_count() -> None:
    # of the three known images one has it, and the name is said of that one
    assert gain([[1, 1, 0, 0]], [[1, np.nan, 0, 0]]) == pytest.approx(1 - 1 / 3)


def test_a_silent_name_gains_nothing_and_is_neither_left_out_nor_called_wrong() -> None:
    right, silent = [1, 1, 0, 0], [0, 0, 0, 0]
    assert gain([right, silent], [[1, 1, 0, 0], [1, 1, 1, 0]]) == pytest.approx(0.25)
    # the same name, on images of which it says nothing
    assert gain([[0, 0, 1, 1]], [[1, 0, 1, 0]], images=[0, 1]) == 0.0


def test_without_a_name_or_without_anybody_who_knows_there_is_no_gain() -> None:
    assert np.isnan(precision_gain(np.zeros((4, 0)), np.zeros((4, 0))))
    assert np.isnan(gain([[1, 1]], [[np.nan, np.nan]]))


def looped(says: np.ndarray, there: np.ndarray) -> float:
    gains = []
    for said, truth in zip(says.T, there.T, strict=True):
        known = [(s, t) for s, t in zip(said, truth, strict=True) if not np.isnan(t)]
        if not known:
            continue
        base = sum(t for _, t in known) / len(known)
        hits = [t for s, t in known if s]
        gains.append(sum(hits) / len(hits) - base if hits else 0.0)
    return sum(gains) / len(gains) if gains else float("nan")


@given(st.data())
def test_it_equals_the_obvious_loop(data: st.DataObject) -> None:
    shape = data.draw(st.tuples(st.integers(1, 6), st.integers(0, 4)))
    says = data.draw(hnp.arrays(np.float64, shape, elements=st.sampled_from([0.0, 1.0])))
    there = data.draw(hnp.arrays(np.float64, shape, elements=st.sampled_from([0.0, 1.0, np.nan])))
    images = data.draw(hnp.arrays(np.int64, st.integers(1, 8), elements=st.integers(0, shape[0] - 1)))
    assert precision_gain(says, there, images) == pytest.approx(looped(says[images], there[images]), nan_ok=True)
