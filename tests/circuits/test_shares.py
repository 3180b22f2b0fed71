"""Shares of a metric that are restored: by hand, and where there is nothing to restore."""

import numpy as np
import pytest

from circuits.inputs import Batch
from circuits.shares import Rows, Share, restored
from mechinterp.statistics import Interval

NO = Interval(None, None, 0.95, 0, "not estimable (no patients given)")


def share(value, subgroups):
    return Share(value, NO, 0.0, subgroups)


def test_the_worst_subgroup_is_the_one_farthest_from_1_of_those_that_have_a_share():
    nan = float("nan")
    for parts in ({"a": nan, "b": 0.7, "c": 1.2}, {"b": 0.7, "a": nan, "c": 1.2}, {"c": 1.2, "b": 0.7, "a": nan}):
        assert share(0.9, parts).worst == ("b", 0.7)
    assert share(0.9, {"a": nan}).worst == ("all images", 0.9)
    assert share(0.9, {}).worst == ("all images", 0.9)


def test_a_subgroup_whose_metric_nothing_changes_has_no_share():
    batch = Batch(np.zeros((4, 1)), np.arange(4))
    whole, none = np.array([2.0, 4.0, 5.0, 5.0]), np.array([0.0, 0.0, 5.0, 5.0])
    rows = Rows(batch, np.arange(4), whole, none, ["seen", "seen", "blind", "blind"], boot=100)
    found = rows.share(np.array([1.0, 2.0, 5.0, 5.0]))
    assert found.value == pytest.approx(0.5)  # (1·2 + 2·4) / (4 + 16)
    assert np.isnan(found.subgroups["blind"])
    assert found.worst == ("seen", pytest.approx(0.5))
    assert np.isnan(restored(whole[2:], whole[2:], none[2:]))
