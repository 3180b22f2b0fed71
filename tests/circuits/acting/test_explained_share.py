"""What an answer rests on without an explanation, on a model whose shortcut is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from shortcut_model import LESION, MARK, NOTHING, paired, pictures, shortcut_model

from circuits import features, neurons
from circuits.acting.deferring import defer
from circuits.acting.explained_share import UNEXPLAINED_SHARE, unexplained_share
from mechinterp.errors import ConfigError
from mechinterp.feature_encoder import Directions

MODEL = shortcut_model()


def reference():
    return pictures(np.arange(30) % 2 == 1, np.zeros(30), seed=1)


def shares(x, explained, nodes=None):
    return unexplained_share(MODEL, nodes or neurons(MODEL, "stage"), x, reference(), target="ill", explained=explained)


def test_a_share_is_what_weights_times_distances_from_the_mean_say():
    x, _, _, _ = paired(20)
    usual = reference().mean((0, 2, 3))
    parts = (x.mean((2, 3)) - usual) * torch.tensor([3.0, 4.0, 0.0])
    expected = parts[:, MARK].abs() / parts.abs().sum(1)
    np.testing.assert_allclose(
        shares(x, [LESION, NOTHING]), expected, atol=0.02
    )  # texture within an image takes no part
    np.testing.assert_allclose(shares(x, [LESION, MARK, NOTHING]), 0, atol=1e-12)
    np.testing.assert_allclose(shares(x, [NOTHING]), 1, atol=1e-6)


def test_what_an_encoder_leaves_out_is_not_explained():
    x, _, _, _ = paired(20)
    only_lesion = features(Directions("stage", torch.eye(3)[[LESION]], torch.zeros(3)))
    np.testing.assert_allclose(shares(x, [0], only_lesion), shares(x, [LESION]), atol=1e-5)


def test_errors_of_a_model_with_a_shortcut_lie_where_its_answer_is_not_explained():
    x, labels, marks, patients = paired(80)
    score = shares(x, [LESION])
    with torch.no_grad():
        z = MODEL.logits(x)
        z[:, 1] += 2  # as the bias stands, those without a mark are missed
    log_odds = (z[:, 1] - z[:, 0]).double().numpy()
    errors = (log_odds > 0) != labels
    assert errors[marks].mean() > 3 * errors[~marks].mean()
    confidence, found = defer({UNEXPLAINED_SHARE: score}, log_odds, labels, groups=patients, n_boot=200)
    assert found.interval.low > 0
    assert found.risk_at(0.5) < confidence.risk_at(0.5) / 2
    # explained the other way round the score knows nothing of the errors
    (_, other) = defer({"other": shares(x, [MARK])}, log_odds, labels, groups=patients, n_boot=200)
    assert other.gain < found.gain


def test_without_an_explained_feature_there_is_no_score():
    x, _, _, _ = paired(4)
    with pytest.raises(ConfigError, match="no feature is explained"):
        shares(x, [])
    with pytest.raises(ConfigError, match="there is no feature 3: site 'stage' has 0 to 2"):
        shares(x, [3])
