"""Moments over shards are those over everything, to the last digits of float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mechinterp.store.moments import PIECE
from mechinterp.store.statistics import SiteStatistics, merge


def check_equal(got, x, rel=1e-12):
    """Compare with NumPy over all rows at once."""
    x = x.double().numpy()
    assert got.rows == len(x)
    np.testing.assert_allclose(got.mean, x.mean(0), rtol=rel, atol=rel * np.abs(x).max())
    np.testing.assert_allclose(got.scatter, ((x - x.mean(0)) ** 2).sum(0), rtol=1e-9, atol=rel * (x**2).sum())
    np.testing.assert_allclose(got.variance, x.var(0), rtol=1e-9, atol=rel * (x**2).mean())


def test_known_by_hand():
    got = SiteStatistics.of(torch.tensor([[1.0, 5], [3, 5], [5, 5]]))
    assert got.rows == 3
    assert got.mean.tolist() == [3, 5]
    assert got.scatter.tolist() == [8, 0]
    assert got.variance.tolist() == [8 / 3, 0]


@given(sizes=st.lists(st.integers(0, 40), min_size=1, max_size=6), shift=st.floats(-1e4, 1e4), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=60)
def test_neither_the_split_nor_a_shift_matters(sizes, shift, seed):
    x = torch.randn(sum(sizes) + 1, 3, generator=torch.Generator().manual_seed(seed)) + shift
    parts = torch.split(x, [*sizes, 1])
    check_equal(merge([SiteStatistics.of(p) for p in parts]), x)


@pytest.mark.parametrize("rows", [PIECE - 1, PIECE, PIECE + 1, 3 * PIECE + 7])
def test_rows_are_taken_in_pieces(rows):
    x = torch.randn(rows, 4, generator=torch.Generator().manual_seed(0)) * 100 + 3
    check_equal(SiteStatistics.of(x), x)
    assert SiteStatistics.of(x[:, ::2]).mean.tolist() == pytest.approx(x[:, ::2].double().mean(0).tolist())


def test_a_value_that_is_not_finite_reaches_its_own_unit_alone():
    x = torch.ones(3, 2)
    x[1, 0] = float("nan")
    got = SiteStatistics.of(x)
    assert got.mean.isnan().tolist() == [True, False]
    assert got.scatter.isnan().tolist() == [True, False]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_storage_type_is_summed_in_float64_and_left_as_it_is(dtype):
    x = (torch.randn(5000, 2, generator=torch.Generator().manual_seed(1)) + 100).to(dtype)
    before = x.clone()
    check_equal(SiteStatistics.of(x), x)
    assert torch.equal(x, before)


def test_no_rows_change_nothing_on_either_side():
    some = SiteStatistics.of(torch.ones(2, 3))
    none = SiteStatistics.of(torch.empty(0, 3))
    assert none.rows == 0
    assert none.variance.tolist() == [0, 0, 0]
    assert some.merged(none) is some
    assert none.merged(some) is some


def test_nothing_to_merge_is_a_mistake_of_the_caller():
    with pytest.raises(ValueError, match="no statistics"):
        merge([])
