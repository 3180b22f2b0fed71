"""Scores of decisions, by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from circuits.acting.decision import Decision
from circuits.acting.scores import Truth, calibration_error, losses, operating_point
from mechinterp.errors import ConfigError

LABELS = np.array([True, True, False, False])
SHORTCUT = np.array([True, False, True, False])


def truth(threshold=0.0):
    return Truth(LABELS, SHORTCUT, np.arange(4), threshold, "ill")


def test_a_coin_has_the_loss_of_a_coin_and_is_calibrated():
    scores = truth().score(np.zeros(4))
    assert scores.loss == pytest.approx(np.log(2))
    assert scores.brier == pytest.approx(0.25)
    assert scores.calibration_error == pytest.approx(0.0)


def test_groups_are_every_class_with_and_without_and_the_worst_is_the_one_of_largest_loss():
    scores = truth().score(np.array([5.0, -3.0, 1.0, -5.0]))
    assert [g.images for g in scores.groups] == [1, 1, 1, 1]
    assert scores.worst.name == "ill, without the shortcut"
    assert scores.worst.loss == pytest.approx(np.log1p(np.exp(3)))
    assert scores.worst_accuracy == 0.0
    assert scores.clean_accuracy == 0.5
    assert scores.to_json()["worst"]["images"] == 1


def test_sensitivity_and_specificity_stand_at_the_threshold():
    said = np.array([5.0, -3.0, 1.0, -5.0])
    assert (truth(-4.0).score(said).sensitivity, truth(-4.0).score(said).specificity) == (1.0, 0.5)
    assert (truth(2.0).score(said).sensitivity, truth(2.0).score(said).specificity) == (0.5, 1.0)


def test_a_sure_error_costs_as_much_as_it_is_sure():
    np.testing.assert_allclose(losses(np.array([-800.0, 800.0]), np.array([True, True])), [800, 0])
    assert calibration_error(np.array([1.0, 1.0]), np.array([False, False])) == 1.0


def test_the_operating_point_reaches_the_sensitivity_and_no_higher_one_does():
    said, ill = np.arange(20.0), np.ones(20, dtype=bool)
    point = operating_point(said, ill, 0.9)
    assert (said >= point).mean() == 0.9
    assert operating_point(said, ill, 1.0) == 0.0
    with pytest.raises(ConfigError, match="sensitivity is 0"):
        operating_point(said, ill, 0.0)
    with pytest.raises(ConfigError, match="no image shows the target"):
        operating_point(said, ~ill, 0.9)


def test_log_odds_are_those_of_the_probabilities():
    logits = torch.randn(7, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    p = logits.softmax(-1)[:, 1]
    torch.testing.assert_close(Decision(1, "b").log_odds(logits), (p / (1 - p)).log())
    torch.testing.assert_close(Decision(1, "b", "sigmoid").log_odds(logits), logits[:, 1])
