"""What a reader may ask for, and what it makes of an activation."""

import pytest
import torch
from wired import encoder

from experiments.dashboard.desk.moves import Move, moved_activation, parse_moves, parse_unit
from mechinterp.errors import ConfigError
from mechinterp.feature_encoder import Neurons


def asked(**other):
    return {"unit": "feature 1", "how": "scale", "value": 2, **other}


def test_moves_are_read_from_what_a_page_sends():
    assert parse_moves([asked(), asked(unit="channel 2", how="set", value=-1.5)], 2, 3) == (
        Move("feature", 1, "scale", 2.0),
        Move("channel", 2, "set", -1.5),
    )
    assert parse_moves([], 2, 3) == ()


@pytest.mark.parametrize(
    ("moves", "says"),
    [
        ("feature 1", "a list of at most 12"),
        ([asked(unit=f"feature {i}") for i in range(13)], "a list of at most 12"),
        (["feature 1"], "'None' names no unit: write 'feature 12'"),
        ([asked(unit="<script>")], "'<script>' names no unit"),
        ([asked(unit="feature 2")], "there is no feature 2: the site has 2, counted from 0"),
        ([asked(unit="channel 3")], "there is no channel 3"),
        ([asked(how="explode")], "'explode' is not known: it is one of scale, set-active, set"),
        ([asked(value="1")], "cannot be set to '1': give a number"),
        ([asked(value=float("nan"))], "cannot be set to 'nan'"),
        ([asked(value=True)], "cannot be set to 'True'"),
        ([asked(), asked(value=3)], "moved twice"),
    ],
)
def test_what_cannot_be_meant_is_said_in_one_line(moves, says):
    with pytest.raises(ConfigError, match=says.replace("(", r"\(")):
        parse_moves(moves, 2, 3)


def test_a_unit_is_named_by_kind_and_number():
    assert parse_unit("channel 7", 1, 8) == ("channel", 7)


def test_the_three_ways_of_moving_differ_where_nothing_was():
    values = torch.tensor([[5.0, 0.0, 2.0]])
    assert Move("feature", 0, "scale", 3.0).apply(values, 1).tolist() == [[15.0, 0.0, 6.0]]
    assert Move("feature", 0, "set-active", 3.0).apply(values, 1).tolist() == [[3.0, 0.0, 3.0]]
    assert Move("feature", 0, "set", 3.0).apply(values, 1).tolist() == [[5.0, 3.0, 3.0]]


def test_a_feature_adds_its_direction_and_what_was_not_reconstructed_stays():
    acts, features = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0)), encoder()
    codes = features.encode(acts)
    moved = moved_activation(acts, codes, features, [Move("feature", 1, "scale", 0.0)])
    expected = acts - codes[..., 1:2] * torch.tensor([0.0, 0.6, 0.8])
    torch.testing.assert_close(moved, expected)
    torch.testing.assert_close(moved_activation(acts, codes, features, []), acts)


def test_channels_end_where_they_were_put_whatever_features_did():
    acts, features = torch.rand(1, 4, 3), encoder()
    moves = [Move("channel", 0, "set", 9.0), Move("feature", 0, "scale", 4.0)]
    moved = moved_activation(acts, features.encode(acts), features, moves, prefix_tokens=1)
    assert moved[0, 1:, 0].tolist() == [9.0] * 3
    assert moved[0, 0, 0] == pytest.approx(4 * float(acts[0, 0, 0]))


def test_a_neuron_as_a_feature_and_as_a_channel_is_the_same_move():
    acts = torch.rand(1, 4, 3)
    neurons = Neurons("act", 3)
    by_feature = moved_activation(acts, acts, neurons, [Move("feature", 2, "scale", 0.5)])
    by_channel = moved_activation(acts, acts, neurons, [Move("channel", 2, "scale", 0.5)])
    torch.testing.assert_close(by_feature, by_channel)
