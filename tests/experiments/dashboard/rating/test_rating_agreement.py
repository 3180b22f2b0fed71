"""Agreement against worked examples, an independent library, and what must hold of any such measure."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from experiments.dashboard.rating.agreement import krippendorff_alpha, pairwise_kappa

WORKED = {
    "A": "1 2 3 3 2 1 4 1 2 * * *",
    "B": "1 2 3 3 2 2 4 1 2 5 * 3",
    "C": "* 3 3 3 2 3 4 2 2 5 1 *",
    "D": "1 2 3 3 2 4 4 1 2 5 1 *",
}
"""Krippendorff, Computing Krippendorff's alpha-reliability, 2011, example C: four coders, twelve units, missing values."""


def answers(rows):
    return {rater: {str(i): v for i, v in enumerate(row.split()) if v != "*"} for rater, row in rows.items()}


def test_alpha_equals_the_published_example():
    assert krippendorff_alpha(answers(WORKED)) == pytest.approx(0.743, abs=5e-4)


def test_alpha_of_two_raters_by_hand():
    # ten units, two of them differ: values 0 five times... Do = 2 * 2 / 20, De = 2 n0 n1 / (20 * 19)
    rows = {"a": "0 0 0 0 0 1 1 1 1 1", "b": "0 0 0 0 1 1 1 1 1 0"}
    observed, expected = 4 / 20, 2 * 10 * 10 / (20 * 19)
    assert krippendorff_alpha(answers(rows)) == pytest.approx(1 - observed / expected)


@given(st.lists(st.tuples(*[st.sampled_from("abc")] * 3), min_size=2, max_size=12), st.randoms())
def test_alpha_does_not_know_the_raters_order_or_the_answers_names(rows, random):
    made = {str(r): {str(i): row[r] for i, row in enumerate(rows)} for r in range(3)}
    swapped = {str(2 - int(r)): dict(random.sample(sorted(said.items()), len(said))) for r, said in made.items()}
    renamed = {r: {i: {"a": 7, "b": 1, "c": 4}[v] for i, v in said.items()} for r, said in made.items()}
    first = krippendorff_alpha(made)
    for other in (krippendorff_alpha(swapped), krippendorff_alpha(renamed)):
        assert (first is None) == (other is None)
        assert first is None or first == pytest.approx(other)
    assert first is None or first <= 1


def test_agreement_that_nothing_could_show_is_none():
    assert krippendorff_alpha({"a": {"1": "x"}}) is None
    assert krippendorff_alpha({"a": {"1": "x"}, "b": {"2": "y"}}) is None
    assert krippendorff_alpha({"a": {"1": "x", "2": "x"}, "b": {"1": "x", "2": "x"}}) is None
    assert pairwise_kappa({"a": {"1": "x"}, "b": {"1": "x"}, "c": {}}) == {
        ("a", "b"): None,
        ("a", "c"): None,
        ("b", "c"): None,
    }


def test_chance_gives_about_zero_and_agreement_one():
    rng = np.random.default_rng(0)
    guess = {r: {str(i): int(v) for i, v in enumerate(rng.integers(0, 4, 400))} for r in "abc"}
    assert abs(krippendorff_alpha(guess)) < 0.08
    assert krippendorff_alpha({"a": guess["a"], "b": guess["a"]}) == 1


def test_kappa_is_over_the_items_that_both_answered():
    rows = answers(WORKED)
    common = sorted(set(rows["A"]) & set(rows["C"]))
    expected = cohen_kappa_score([rows["A"][i] for i in common], [rows["C"][i] for i in common])
    assert pairwise_kappa(rows)["A", "C"] == pytest.approx(expected)
