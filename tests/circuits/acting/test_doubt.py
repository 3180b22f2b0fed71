"""Scores of doubt on a model whose shortcut is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from shortcut_model import LESION, MARK, NOTHING, paired, pictures, shortcut_model

from circuits.acting.deferring import defer
from circuits.acting.doubt import DISTANCE, UNEXPLAINED, USE, case_doubts
from mechinterp.errors import ConfigError
from mechinterp.feature_encoder import Directions, Neurons

ENCODER = Neurons("stage", 3)


def doubts(encoder=ENCODER, **settings):
    x, _, _, _ = paired(20)
    reference = pictures(np.arange(30) % 2 == 1, np.zeros(30), seed=1)
    return case_doubts(shortcut_model(), encoder, x, reference, **{"target": "ill", **settings}), x


def test_use_is_what_the_marks_weight_times_its_excess_over_the_reference_says():
    found, _ = doubts(features=[MARK])
    # the reference has no mark: taking it away moves the log-odds by its weight, 4, where there is one
    np.testing.assert_allclose(found.scores[USE][:20], 0, atol=0.1)
    np.testing.assert_allclose(found.scores[USE][20:], 4, atol=0.1)
    unread, _ = doubts(features=[NOTHING])
    np.testing.assert_allclose(unread.scores[USE], 0, atol=1e-5)


def test_marked_cases_lie_further_from_data_without_marks():
    found, _ = doubts()
    assert USE not in found.scores
    assert found.scores[DISTANCE][20:].min() > 5 * found.scores[DISTANCE][:20].max()
    assert UNEXPLAINED not in found.scores  # neurons leave nothing out


def test_what_an_encoder_cannot_say_is_left_out_of_it():
    only_lesion = Directions("stage", torch.eye(3)[[LESION]], torch.zeros(3))
    found, x = doubts(only_lesion)
    acts = x.permute(0, 2, 3, 1).reshape(40, 16, 3)
    reference = pictures(np.arange(30) % 2 == 1, np.zeros(30), seed=1).permute(0, 2, 3, 1).reshape(30, 16, 3)
    left = acts.clone()
    left[..., LESION] = 0
    expected = left.square().sum((1, 2)) / (acts - reference.mean((0, 1))).square().sum((1, 2))
    np.testing.assert_allclose(found.scores[UNEXPLAINED], expected, rtol=1e-4)


def test_all_errors_are_among_the_cases_that_use_the_shortcut():
    x, labels, _, patients = paired(60)
    reference = pictures(np.arange(30) % 2 == 1, np.zeros(30), seed=1)
    found = case_doubts(shortcut_model(), ENCODER, x, reference, target="ill", features=[MARK])
    by_use = defer({USE: found.scores[USE]}, found.log_odds, labels, groups=patients, n_boot=100)[1]
    errors = (found.log_odds > 0) != labels
    assert errors[60:].mean() > 0.3  # the healthy with a mark
    assert by_use.risk_at(0.5) == errors[:60].mean()
    blocks = defer({}, found.log_odds, labels, groups=patients, units_are_patients=False)[0]
    assert not blocks.interval.estimable


def test_a_feature_that_does_not_exist_is_named():
    with pytest.raises(ConfigError, match="there is no feature 3"):
        doubts(features=[3])
