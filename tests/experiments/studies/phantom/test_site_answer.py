"""How much of a change goes through features, by hand: the answer is a sum over a site of three channels."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from experiments.studies.phantom.site_answer import moved_by, share_through
from mechinterp.feature_encoder import Directions, Neurons

WEIGHTS = torch.tensor([2.0, 1.0, 0.0])
BEFORE = torch.zeros(4, 5, 3)
ALL = torch.arange(3)


def linear(acts: torch.Tensor) -> float:
    return float((acts.mean(1) @ WEIGHTS).mean())


def bounded(acts: torch.Tensor) -> float:
    return float(torch.tanh(acts.mean(1) @ WEIGHTS).mean())


def share(encoder: Any, after: torch.Tensor, features: torch.Tensor = ALL) -> float:
    return share_through(linear, encoder, BEFORE, after, features)  # any function of activations


def test_all_of_a_change_goes_through_the_channels_themselves() -> None:
    assert share(Neurons("site", 3), BEFORE + 1) == pytest.approx(1.0)


def test_each_channel_carries_what_it_is_worth() -> None:
    # of 2 + 1 + 0 the second channel is one third
    assert share(Neurons("site", 3), BEFORE + 1, torch.tensor([1])) == pytest.approx(1 / 3)
    assert share(Neurons("site", 3), BEFORE + 1, torch.tensor([2])) == pytest.approx(0.0)


def test_nothing_goes_through_features_that_see_nothing_of_the_change() -> None:
    blind = Directions("site", torch.tensor([[0.0, 0.0, 1.0]]), torch.zeros(3))
    change = torch.tensor([1.0, 1.0, 0.0])
    assert share(blind, BEFORE + change, torch.tensor([0])) == pytest.approx(0.0)


def test_where_the_answer_does_not_change_there_is_no_share() -> None:
    assert share(Neurons("site", 3), BEFORE + torch.tensor([0.0, 0.0, 1.0])) != share(Neurons("site", 3), BEFORE + 1)
    assert torch.isnan(torch.tensor(share(Neurons("site", 3), BEFORE)))


@pytest.mark.parametrize("amount", [0.3, -0.3, 40.0])
def test_activations_are_moved_until_the_answer_has_moved_so_far(amount: float) -> None:
    towards = torch.tensor([1.0, 0.0, 1.0]) * (1 if amount > 0 else -1)
    moved = moved_by(linear, BEFORE, towards, amount)
    assert moved is not None
    assert linear(moved) == pytest.approx(amount, rel=1e-2)


def test_an_answer_that_cannot_be_moved_so_far_is_left_alone() -> None:
    assert moved_by(bounded, BEFORE, WEIGHTS, 1.5) is None
    assert moved_by(linear, BEFORE, torch.tensor([0.0, 0.0, 1.0]), 0.1) is None
    assert moved_by(linear, BEFORE, WEIGHTS, 0.0) is None
