"""The operating point and what deferral spares, by hand and against the slow way."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from experiments.studies.phantom.actions import spared, threshold_of


def errors_at(margins: np.ndarray, positive: np.ndarray, threshold: float) -> int:
    return int(((margins > threshold) != positive).sum())


def test_a_threshold_lies_midway_between_the_two_classes_where_they_are_apart() -> None:
    margins, positive = np.array([3.0, -1.0, 1.0, -2.0]), np.array([True, False, True, False])
    assert threshold_of(margins, positive) == 0.0


@given(st.lists(st.tuples(st.integers(-50, 50), st.booleans()), min_size=1, max_size=30, unique_by=lambda t: t[0]))
def test_no_other_threshold_makes_fewer_errors(rows: list[tuple[int, bool]]) -> None:
    margins, positive = np.array([float(m) for m, _ in rows]), np.array([p for _, p in rows])
    ends = np.concatenate([[margins.min() - 1], margins, [margins.max() + 1]])
    least = min(errors_at(margins, positive, t) for t in ends)
    assert errors_at(margins, positive, threshold_of(margins, positive)) == least


def test_deferral_spares_all_errors_where_the_least_sure_are_the_wrong_ones() -> None:
    margins = np.array([0.1, -0.1, 5.0, 5.0, 5.0, -5.0, -5.0, -5.0, -5.0, -5.0])
    positive = np.array([False, True, True, True, True, False, False, False, False, False])
    assert spared(margins, positive, 0.0, share=0.2) == 1.0 - 0.2


def test_deferral_spares_nothing_beyond_chance_where_the_surest_are_the_wrong_ones() -> None:
    margins = np.array([9.0, -9.0, 1.0, 1.0, 1.0, -1.0, -1.0, -1.0, -1.0, -1.0])
    positive = np.array([False, True, True, True, True, False, False, False, False, False])
    assert spared(margins, positive, 0.0, share=0.2) == -0.2


def test_without_an_error_there_is_nothing_to_spare() -> None:
    assert np.isnan(spared(np.array([1.0, -1.0]), np.array([True, False]), 0.0))
