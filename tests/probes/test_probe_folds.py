"""Folds never straddle a group, and along a volume they leave a gap."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mechinterp.errors import ConfigError, LeakageError, ShapeError
from probes import make_folds


@settings(deadline=None, max_examples=40)
@given(groups=st.lists(st.integers(0, 12), min_size=8, max_size=60), folds=st.integers(2, 5), seed=st.integers(0, 9))
def test_every_image_is_tested_once_and_no_group_on_both_sides(groups, folds, seed):
    if len(set(groups)) < folds:
        with pytest.raises(ConfigError, match=f"{folds} folds of {len(set(groups))} groups"):
            make_folds(len(groups), folds, groups=groups)
        return
    made = make_folds(len(groups), folds, groups=groups, seed=seed)
    assert made.n == folds
    tested = []
    for k in range(made.n):
        train, test = made.split(k)
        tested += test.tolist()
        assert len(test)
        assert not {groups[i] for i in train} & {groups[i] for i in test}
    assert sorted(tested) == list(range(len(groups)))


def test_classes_are_kept_in_proportion():
    classes = np.arange(100) % 10 == 0
    made = make_folds(100, 5, groups=np.arange(100), classes=classes)
    assert [int(classes[made.fold == k].sum()) for k in range(5)] == [2] * 5
    assert np.bincount(made.fold).tolist() == [20] * 5


def test_blocks_of_a_volume_are_contiguous_whatever_the_order_of_its_images():
    order = np.random.default_rng(0).permutation(50)
    made = make_folds(50, 5, order=order, gap=3)
    by_place = made.fold[np.argsort(order)]
    assert (np.diff(by_place) >= 0).all()
    assert np.bincount(made.fold).tolist() == [10] * 5
    for k in range(5):
        train, test = made.split(k)
        assert np.abs(order[train][:, None] - order[test][None]).min() == 4


def test_blocks_are_made_of_whole_groups():
    groups = np.repeat(np.arange(10), 5)
    made = make_folds(50, 4, groups=groups, order=np.arange(50))
    assert all(len(np.unique(made.fold[groups == g])) == 1 for g in range(10))


def test_folds_that_are_given_are_taken_unless_they_leak():
    given_folds = np.array(["b", "b", "a", "a"])
    assert make_folds(4, given_folds, groups=[1, 1, 2, 3]).fold.tolist() == [0, 0, 1, 1]
    with pytest.raises(LeakageError, match="a group stands in both fold 'b' and fold 'a'") as raised:
        make_folds(4, given_folds, groups=["secret", "x", "secret", "y"])
    assert "secret" not in str(raised.value)
    with pytest.raises(ConfigError, match="a single fold"):
        make_folds(2, [7, 7])


def test_the_folds_of_some_images_are_numbered_anew():
    made = make_folds(12, 3, order=np.arange(12), gap=1)
    part = made.subset(np.arange(5, 12))
    assert part.n == 2
    np.testing.assert_array_equal(part.order, np.arange(5, 12))
    assert part.gap == 1


def test_settings_that_cannot_be_meant_are_named():
    with pytest.raises(ConfigError, match="gap is 2"):
        make_folds(10, 2, gap=2)
    with pytest.raises(ConfigError, match="1 folds of 10 groups"):
        make_folds(10, 1)
    with pytest.raises(ShapeError, match="groups has 3 values for 10 images"):
        make_folds(10, 2, groups=[1, 2, 3])
    with pytest.raises(ConfigError, match="gap 9 leaves a block of 12 images without two to train"):
        make_folds(12, 3, order=np.arange(12), gap=9)
