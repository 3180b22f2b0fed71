"""Doses of a feature whose weight is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from shortcut_model import MARK, paired, shortcut_model

from circuits.acting.steering import Steered, steer
from mechinterp.errors import ConfigError
from mechinterp.feature_encoder import Neurons
from mechinterp.statistics.bootstrap import Interval

ENCODER = Neurons("stage", 3)


def steered(feature=MARK, **settings):
    x, _, _, patients = paired(20)
    settings = {"target": "ill", "groups": patients, "n_random": 5, "n_boot": 100, "doses": (0.5, 1.0), **settings}
    return steer(shortcut_model(), ENCODER, feature, x, **settings)


def test_a_dose_moves_the_log_odds_by_the_weight_of_the_channel():
    found = steered()
    spread = 0.5  # half of the images have 1 in that channel, the others 0
    np.testing.assert_allclose(found.change, [4 * 0.5 * spread, 4 * spread], rtol=0.05)
    low, high = found.intervals[1].ends
    assert low <= found.change[1] <= high
    assert found.off_data[1] > found.off_data[0]
    assert found.beyond_random
    assert found.to_json()["random"][0][0] == found.random[0, 0]


def test_a_channel_that_is_not_read_does_nothing():
    found = steered(2)
    np.testing.assert_allclose(found.change, 0, atol=1e-6)
    assert not found.beyond_random


def test_of_two_largest_doses_either_may_go_beyond_random_directions():
    interval = Interval.not_estimable(0)
    for change, beyond in (((0.1, 3.0), True), ((-3.0, 0.1), True), ((0.1, 0.5), False)):
        found = Steered(
            0,
            "ill",
            (-4.0, 4.0),
            np.array(change),
            (interval, interval),
            np.array([[1.0, -2.0], [-0.5, 1.0]]),
            np.ones(2),
        )
        assert found.beyond_random is beyond
        assert not replace(found, random=np.zeros((0, 2))).beyond_random  # nothing stands beside it


def test_the_figure_is_drawn_in_the_order_of_doses():
    figure = steered(doses=(1.0, -1.0)).figure()
    assert list(figure.data[-1].x) == [-1.0, 1.0]


def test_what_cannot_be_steered_is_refused():
    with pytest.raises(ConfigError, match="no feature 3"):
        steered(3)
    with pytest.raises(ConfigError, match="no dose"):
        steered(doses=())
    x = paired(4)[0] * 0
    with pytest.raises(ConfigError, match="does not vary"):
        steer(shortcut_model(), ENCODER, 0, x, target="ill")
