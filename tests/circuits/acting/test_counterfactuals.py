"""The fewest features that turn a decision, where they are known by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from shortcut_model import LESION, MARK, pictures, shortcut_model

from circuits.acting.counterfactuals import counterfactual_features
from mechinterp.errors import ConfigError, ImagesError
from mechinterp.feature_encoder import Neurons

ENCODER = Neurons("stage", 3)


def explained(labels, marks, **settings):
    reference = pictures(np.array([0.0, 0.0, 1.0, 1.0] * 4), np.array([0.0, 0.0, 1.0, 1.0] * 4), seed=4)
    x = pictures(np.array(labels, dtype=float), np.array(marks, dtype=float), seed=5)
    return counterfactual_features(shortcut_model(), ENCODER, x, reference, target="ill", **settings), reference


def test_a_well_marked_image_is_turned_by_its_mark_alone():
    # 4 - 3.5 > 0: only the mark speaks for it
    (one,), reference = explained([0.0], [1.0])
    assert one.turned
    assert one.features == (MARK,)
    assert one.before > 0 > one.after
    with torch.no_grad():
        said = shortcut_model().logits(reference)
    assert all(said[n, 1] < said[n, 0] for n in one.neighbours)
    assert list(one.distances) == sorted(one.distances)


def test_none_of_the_features_can_be_left_out():
    # lesion and mark: 3 + 4 - 3.5; without the mark it turns, without the lesion it does not
    (one,), _ = explained([1.0], [1.0])
    assert one.turned
    assert one.features == (MARK,)
    (blind,), _ = explained([1.0], [1.0], chosen=[LESION])
    assert not blind.turned
    assert blind.features == (LESION,)
    assert blind.to_json()["features"] == [LESION]


def test_the_other_way_works_too():
    (one,), _ = explained([0.0], [0.0])
    assert one.before < 0 < one.after
    assert MARK in one.features


def test_what_cannot_be_turned_is_refused():
    with pytest.raises(ConfigError, match="most is 0"):
        explained([0.0], [1.0], most=0)
    with pytest.raises(ConfigError, match="no feature 7"):
        explained([0.0], [1.0], chosen=[7])
    x = pictures(np.zeros(3), np.ones(3))
    with pytest.raises(ImagesError, match="no reference image is decided not 'ill'"):
        counterfactual_features(shortcut_model(), ENCODER, x, x, target="ill")
