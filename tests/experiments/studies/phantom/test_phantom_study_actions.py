"""The operating point and what deferral spares, by hand and against the slow way."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.studies.phantom.actions import confirm, fewest_errors, planned, spared, threshold_of
from experiments.studies.phantom.config import PhantomStudyConfig


def errors_at(margins: np.ndarray, positive: np.ndarray, threshold: float) -> int:
    return int(((margins > threshold) != positive).sum())


def test_a_threshold_lies_midway_between_the_two_classes_where_they_are_apart() -> None:
    margins, positive = np.array([3.0, -1.0, 1.0, -2.0]), np.array([True, False, True, False])
    assert fewest_errors(margins, positive) == 0.0
    assert threshold_of(margins, positive) == pytest.approx(0.0, abs=0.5)


@given(st.lists(st.tuples(st.integers(-50, 50), st.booleans()), min_size=1, max_size=30, unique_by=lambda t: t[0]))
def test_no_other_threshold_makes_fewer_errors(rows: list[tuple[int, bool]]) -> None:
    margins, positive = np.array([float(m) for m, _ in rows]), np.array([p for _, p in rows])
    ends = np.concatenate([[margins.min() - 1], margins, [margins.max() + 1]])
    least = min(errors_at(margins, positive, t) for t in ends)
    assert errors_at(margins, positive, fewest_errors(margins, positive)) == least


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


class Answers:
    """A store as far as deferral asks: one answer an image."""

    def __init__(self, margins: np.ndarray) -> None:
        self.answers = margins


def side(positive: np.ndarray, name: str) -> SimpleNamespace:
    return SimpleNamespace(
        positive=positive, groups=np.array([f"{name}{i}" for i in range(len(positive))], dtype=object),
        patients=tuple(f"{name}{i}" for i in range(len(positive))),
    )  # fmt: skip


def bench_of(margins: np.ndarray, positive: np.ndarray, n: int) -> SimpleNamespace:
    """`n` patients to confirm on, the others further ones."""
    further = None if n == len(margins) else side(positive[n:], "f")
    return SimpleNamespace(
        patients=SimpleNamespace(confirmation=side(positive[:n], "c"), further=further), sites=("a", "b"),
        config=SimpleNamespace(seed=0), model=SimpleNamespace(trained=True), margins=lambda store: store.answers,
        captured=lambda who, name, sites: Answers(margins[n:]),
    )  # fmt: skip


def test_errors_of_further_patients_are_counted_with_those_of_the_ones_to_confirm_on() -> None:
    random = np.random.default_rng(0)
    positive = np.arange(400) % 2 == 1
    margins = 4.0 * (2 * positive - 1) + random.normal(0, 2.5, 400)
    (claim,) = confirm(bench_of(margins, positive, 100), Answers(margins[:100]), 0.0).claims
    # by hand, over all 400
    wrong = (margins > 0) != positive
    least_sure = set(sorted(range(400), key=lambda i: abs(margins[i]))[:80])
    caught = sum(1 for i in np.flatnonzero(wrong) if i in least_sure)
    assert claim.value == pytest.approx(caught / wrong.sum() - 0.2)
    assert (claim.numbers["images"], claim.numbers["errors"]) == (400, wrong.sum())
    assert claim.numbers["error"] == pytest.approx(wrong.mean())
    assert claim.numbers["error of those left"] == pytest.approx((wrong.sum() - caught) / 320)
    assert "of 400 images" in claim.statement
    (fewer,) = confirm(bench_of(margins[:100], positive[:100], 100), Answers(margins[:100]), 0.0).claims
    assert fewer.numbers["images"] == 100


def test_the_plan_says_on_how_many_further_patients_deferral_is_tested() -> None:
    both = bench_of(np.zeros(40), np.zeros(40, dtype=bool), 10).patients
    assert "and images of 30 further patients" in planned(both)[0].method
    alone = bench_of(np.zeros(40), np.zeros(40, dtype=bool), 40).patients
    assert "further" not in planned(alone)[0].method


@pytest.mark.parametrize(("quick", "patients", "further"), [(True, 400, 600), (True, 20, 60), (False, 400, 1200)])
def test_there_are_three_further_patients_for_each_one(quick: bool, patients: int, further: int) -> None:
    assert PhantomStudyConfig(quick=quick, patients=patients).sizes.further == further


def test_the_threshold_is_where_a_logistic_curve_fitted_by_newton_steps_crosses_one_half() -> None:
    random = np.random.default_rng(4)
    positive = random.random(300) < 0.4
    margins = 3.0 * positive - 1.0 + random.normal(0, 1.5, 300)
    # an independent fit: unpenalised maximum likelihood, twenty Newton steps
    x = np.stack([margins, np.ones(300)], 1)
    beta = np.zeros(2)
    for _ in range(20):
        p = 1 / (1 + np.exp(-x @ beta))
        beta += np.linalg.solve((x * (p * (1 - p))[:, None]).T @ x, x.T @ (positive - p))
    assert threshold_of(margins, positive) == pytest.approx(-beta[1] / beta[0], abs=0.02)
    # and it moves along with the answers, in any unit
    assert threshold_of(5 * margins + 7, positive) == pytest.approx(5 * threshold_of(margins, positive) + 7, abs=1e-6)


def test_where_answers_fall_with_the_class_or_there_is_one_class_the_fewest_errors_decide() -> None:
    margins = np.array([3.0, 2.0, -1.0, -2.0])
    for positive in (np.array([False, False, True, True]), np.ones(4, dtype=bool), np.zeros(4, dtype=bool)):
        assert threshold_of(margins, positive) == fewest_errors(margins, positive)
