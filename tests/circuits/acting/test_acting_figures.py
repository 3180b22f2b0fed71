"""Pictures of deferral, subgroups, turned decisions and checkpoints show their numbers."""

from __future__ import annotations

import numpy as np
import pytest

from circuits.acting.counterfactuals import CounterfactualFeatures
from circuits.acting.deferring import defer
from circuits.acting.figures import deferral_figure, difference_figure, subgroup_figure, turning_figure
from circuits.acting.model_differences import ModelDifference
from circuits.acting.subgroup_effects import SubgroupEffect
from circuits.node_results import NodeName
from mechinterp.statistics.bootstrap import Interval


def test_every_score_has_its_line_in_its_own_dash():
    labels = np.arange(40) % 2 == 0
    found = defer(
        {"a": np.arange(40.0), "<b>": -np.arange(40.0)}, np.where(labels, 1.0, -1.0) * (np.arange(40) % 3 - 0.5), labels
    )
    figure = deferral_figure(found)
    assert len({t.line.dash for t in figure.data}) == 3
    assert "<b>" not in figure.data[2].name  # text, not markup
    assert figure.data[0].y[-1] == pytest.approx(found[0].risk_at(1.0))


def test_subgroups_of_a_node_stand_above_each_other_with_their_intervals():
    node = NodeName("s", 0, "channel", "s channel 0")
    effects = [
        SubgroupEffect(node, "a", 30, 1.0, Interval(0.5, 1.4, n=30)),
        SubgroupEffect(node, "b", 5, -1.0, Interval.not_estimable(5)),
    ]
    figure = subgroup_figure(effects, "logit of x")
    assert [t.name for t in figure.data] == ["a (30 images)", "b (5 images)"]
    assert figure.data[0].y[0] < figure.data[1].y[0]
    assert (figure.data[0].error_x.array[0], figure.data[0].error_x.arrayminus[0]) == pytest.approx((0.4, 0.5))
    assert figure.data[1].error_x.array[0] == 0
    assert "not estimable" in figure.data[1].customdata[0][1]


def test_a_case_that_did_not_turn_is_dotted():
    found = [
        CounterfactualFeatures(0, (1, 2), 2.0, -0.5, True, (3,), (0.1,)),
        CounterfactualFeatures(1, (), -1.0, -1.0, False, (), ()),
    ]
    figure = turning_figure(found, ["p0", "p1"], "ill")
    assert [t.line.dash for t in figure.data[:2]] == ["solid", "dot"]
    assert list(figure.data[2].x) == [2.0, -1.0]
    assert list(figure.data[3].x) == [-0.5, -1.0]


def test_kept_and_turned_features_have_their_own_marks():
    nothing = np.zeros(0, dtype=np.int64)
    found = ModelDifference(
        np.array([[0, 1], [1, 0]]), np.array([0.9, 0.8]), np.array([0.95, 0.1]), nothing, nothing, (0, 0), 0.7, 0.7, 0.2
    )
    figure = difference_figure(found)
    assert [t.name for t in figure.data] == ["kept (1)", "turned (1)"]
    assert figure.data[0].marker.symbol != figure.data[1].marker.symbol
    assert list(figure.data[1].customdata[0]) == [1, 0]
