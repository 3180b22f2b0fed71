"""Two checkpoints whose differences are known: features permuted, silenced, new and turned."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from shortcut_model import pictures, shortcut_model

from circuits.acting.model_differences import diff_models
from mechinterp.errors import ConfigError, ShapeError
from mechinterp.feature_encoder import Directions, Neurons


def shown(n=200):
    random = np.random.default_rng(0)
    return pictures(random.integers(0, 2, n), random.integers(0, 2, n), seed=1)


def test_a_model_differs_in_nothing_from_itself():
    model, encoder = shortcut_model(), Neurons("stage", 3)
    found = diff_models((model, encoder), (model, encoder), shown())
    assert found.pairs.tolist() == [[0, 0], [1, 1], [2, 2]]
    np.testing.assert_allclose(found.correlation, 1)
    np.testing.assert_allclose(found.cosine, 1)
    assert len(found.lost) == len(found.new) == len(found.rotated) == 0
    assert found.by_chance < 0.5


def test_features_that_changed_places_are_matched_and_have_turned():
    earlier, later = shortcut_model(), shortcut_model()
    with torch.no_grad():
        later.module.stage.weight.copy_(torch.eye(3)[[1, 0, 2]][:, :, None, None])
    encoder = Neurons("stage", 3)
    found = diff_models((earlier, encoder), (later, encoder), shown())
    assert found.pairs.tolist() == [[0, 1], [1, 0], [2, 2]]
    assert found.rotated.tolist() == [[0, 1], [1, 0]]
    assert found.to_json()["rotated"] == [[0, 1], [1, 0]]


def test_a_feature_that_reads_something_else_is_lost_and_new_and_a_dead_one_is_silent():
    earlier, later = shortcut_model(), shortcut_model()
    with torch.no_grad():
        later.module.stage.weight[0, :, 0, 0] = torch.tensor([0.0, 0.0, 1.0])
        later.module.stage.weight[2] = 0.0
    encoder = Neurons("stage", 3)
    found = diff_models((earlier, encoder), (later, encoder), shown(), batch=32)
    assert found.lost.tolist() == [0]
    assert found.silent == (0, 1)
    assert [2, 0] in found.pairs.tolist()


def test_what_cannot_be_compared_is_refused():
    model, encoder = shortcut_model(), Neurons("stage", 3)
    with pytest.raises(ConfigError, match="same and turned are 0 and"):
        diff_models((model, encoder), (model, encoder), shown(4), same=0)
    with pytest.raises(ConfigError, match="batch is 1"):
        diff_models((model, encoder), (model, encoder), shown(4), batch=1)
    other = Directions("head", torch.eye(2), torch.zeros(2))
    with pytest.raises(ShapeError, match="compare the same site"):
        diff_models((model, encoder), (model, other), shown(4))
