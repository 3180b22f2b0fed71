"""Slices of different splits are at least a gap apart, and every slice has the block it lies in."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechinterp.errors import ConfigError
from mechinterp.images.block_splits import split_blocks


def test_blocks_by_hand():
    found = split_blocks(np.arange(0, 24, 2), block_mm=8, gap_mm=4, pattern=("train", "test"))
    # Slices are 2 mm thick, so blocks reach from -1 to 7, 7 to 15 and 15 to 23.
    assert found.groups == ("block-0",) * 4 + ("block-1",) * 4 + ("block-2",) * 4
    assert found.splits == ("train",) * 3 + (None, None, "test", "test", None, None) + ("train",) * 3


def test_blocks_of_one_split_have_no_gap_between_them():
    found = split_blocks(range(12), block_mm=4, gap_mm=2, pattern=("train", "train", "test"))
    assert found.splits == ("train",) * 7 + (None, None) + ("test",) * 3


def test_without_a_gap_no_slice_is_lost():
    assert None not in split_blocks(range(12), 4, 0, ("train", "test")).splits


@given(
    n=st.integers(30, 80),
    step=st.floats(0.3, 4),
    start=st.floats(-100, 100),
    block=st.integers(4, 9),
    gap=st.floats(0, 3),
    seed=st.integers(0, 9),
)
def test_slices_of_different_splits_are_a_gap_apart_in_any_order(n, step, start, block, gap, seed):
    positions = np.random.default_rng(seed).permutation(start + step * np.arange(n))
    found = split_blocks(positions, block * step, gap * step, ("train", "test", "train"))
    by_split = {s: positions[[x == s for x in found.splits]] for s in ("train", "test")}
    apart = np.abs(by_split["train"][:, None] - by_split["test"][None]).min()
    assert apart >= max(gap * step, step) - 1e-6
    # Groups are contiguous: each is as wide as its slices need.
    for group in set(found.groups):
        members = np.sort(positions[[g == group for g in found.groups]])
        assert np.ptp(members) <= (len(members) - 1) * step + 1e-6
    for group, split in zip(found.groups, found.splits, strict=True):
        assert split is None or split == ("train", "test", "train")[int(group.removeprefix("block-")) % 3]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], 4, 1), "positions_mm must be a list"),
        (([0.0, np.nan], 4, 1), "positions_mm must be a list"),
        ((range(9), 0, 1), "block_mm is 0"),
        ((range(9), 4, -1), "gap_mm is -1"),
        ((range(9), 4, 1, ()), "pattern is empty"),
        ((range(9), 20, 1), r"no slice is left for split 'test': 8 mm of slices in blocks of 20 mm with gaps of 1 mm"),
        ((range(9), 3, 7), "no slice is left for split 'test'"),
    ],
)
def test_what_cannot_be_meant_is_named(arguments, message):
    with pytest.raises(ConfigError, match=message):
        split_blocks(*arguments)
