"""Moves that an export holds are the moves that the model made."""

import numpy as np
import pytest
from wired import desk

from experiments.dashboard.desk.moves import Move
from experiments.dashboard.desk.stored_moves import FACTORS, SHARES, images_to_store, stored_moves


def test_every_stored_outcome_is_what_the_desk_answers_to_that_move():
    made = desk()
    stored = stored_moves(made, 1)
    assert {entry["how"] for entry in stored} == {"scale", "set-active"}
    for entry in stored:
        kind, index = entry["unit"].split()
        assert len(entry["values"]) == (len(FACTORS) if entry["how"] == "scale" else len(SHARES))
        for value, outcome in zip(entry["values"], entry["outcomes"], strict=True):
            again = made.after(1, [Move(kind, int(index), entry["how"], value)])
            np.testing.assert_allclose(outcome["logits"], again.logits, rtol=1e-3)
            np.testing.assert_allclose(outcome["evidence"], again.evidence, rtol=1e-3, atol=1e-6)
            assert outcome["words"]


@pytest.mark.parametrize(
    ("positives", "n", "most", "expected"),
    [
        ([2, 3, 4, 5], 10, 4, [0, 2, 5, 9]),
        ([], 5, 3, [0, 2, 4]),
        ([0, 1, 2], 3, 2, [0, 2]),
        ([0], 10, 3, [0, 1, 9]),
        (list(range(8)), 9, 6, [0, 1, 2, 4, 6, 7, 8]),
        ([1], 2, 6, [0, 1]),
        ([], 0, 6, []),
    ],
)
def test_stored_images_are_spread_over_both_answers(positives, n, most, expected):
    chosen = images_to_store(positives, n, most)
    assert len(chosen) == min(most, n)
    assert chosen == sorted(set(chosen))
    if len(expected) == len(chosen):
        assert chosen == expected
