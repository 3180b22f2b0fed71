"""How far a mark moves answers."""

import numpy as np
import pytest

from experiments.studies.phantom.attribution import _either_way


def test_a_mark_that_moves_answers_both_ways_does_not_cancel():
    assert _either_way(np.array([2.0, -2.0, 1.0, -1.0])) == pytest.approx(1.5)
