"""Gaussian fields by hand: where they lie, how far they see, what a lattice of them holds."""

import numpy as np
import pytest

from mechinterp.errors import ConfigError, ShapeError
from probes.receptive_fields import ReceptiveFields


def field(up=0.0, right=0.0, size=1.0):
    return ReceptiveFields(np.array([up]), np.array([right]), np.array([size]))


def test_weights_sum_to_one_and_fall_as_a_gaussian_does():
    places = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
    weights = field().over(places)[0]
    assert weights.sum() == pytest.approx(1)
    assert weights[1] / weights[0] == pytest.approx(np.exp(-0.5))
    assert weights[2] / weights[0] == pytest.approx(np.exp(-2.0))


def test_a_field_far_smaller_than_the_cells_sees_the_nearest_alone():
    weights = field(up=0.4, size=1e-3).over(np.array([[0.0, 0.0], [1.0, 0.0]]))[0]
    assert weights == pytest.approx([1, 0])


def test_candidates_lie_inside_the_disc_in_every_size():
    fields = ReceptiveFields.candidates(2.0, 1.0, (0.5, 1.5))
    # 13 lattice points of radius 2 about the middle
    assert len(fields) == 26
    assert fields.eccentricity_deg.max() <= 2.0
    assert set(fields.size_deg) == {0.5, 1.5}


def test_middles_reach_the_discs_edge_whatever_steps_it_is_cut_into():
    # 0.3 / 0.1 and 1.2 / 0.4 round to a little below 3
    for reach, step in ((3.0, 1.0), (0.3, 0.1), (1.2, 0.4)):
        fields = ReceptiveFields.candidates(reach, step, (1.0,))
        assert len(fields) == 29
        assert fields.eccentricity_deg.max() == pytest.approx(reach)


def test_distance_is_that_of_the_middles():
    assert field(3.0, 0.0).distance_deg(field(0.0, 4.0, 2.0)) == pytest.approx([5.0])


def test_some_of_them_are_taken_in_the_given_order():
    fields = ReceptiveFields(np.arange(3.0), -np.arange(3.0), np.ones(3))
    assert fields[np.array([2, 0])].up_deg.tolist() == [2.0, 0.0]


def test_lengths_that_cannot_be_meant_are_refused():
    for reach, step, sizes in ((0.0, 1.0, (1.0,)), (1.0, 0.0, (1.0,)), (1.0, 1.0, ()), (1.0, 1.0, (0.0,))):
        with pytest.raises(ConfigError, match="lengths above 0"):
            ReceptiveFields.candidates(reach, step, sizes)


def test_what_does_not_belong_together_is_refused():
    with pytest.raises(ShapeError, match="one middle and one size each"):
        ReceptiveFields(np.zeros(2), np.zeros(3), np.zeros(2))
    with pytest.raises(ShapeError, match=r"\(up, right\)"):
        field().over(np.zeros((4, 3)))
