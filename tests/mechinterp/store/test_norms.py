"""Quantiles of norms are within the width of a step of NumPy's, and do not depend on how the rows were split."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechinterp.store.norms import QUANTILES, NormCounts


def test_steps_by_hand():
    # 1 = 2^0 is the first step of its power of two, mantissa 1/2 and exponent 1 for frexp; 1.5 the middle one
    counts = NormCounts.of(np.array([1.0, 1.0, 1.5, 0.0]))
    assert dict(counts.steps) == {128: 2, 128 + 64: 1}
    assert (counts.zeros, counts.least, counts.most, counts.rows) == (1, 0.0, 1.5, 4)
    assert counts.quantiles([0, 0.25, 0.5, 1]) == {0: 0.0, 0.25: 0.0, 0.5: pytest.approx(1 + 1 / 256), 1: 1.5}


@given(norms=st.lists(st.floats(0, 1e30, allow_subnormal=False), min_size=1, max_size=200), cut=st.integers(0, 200))
def test_quantiles_are_numpys_within_a_step_whatever_the_split(norms, cut):
    x = np.array(norms)
    counts = NormCounts.of(x)
    assert NormCounts.of(x[:cut]).merged(NormCounts.of(x[cut:])) == counts
    assert NormCounts.of(x[cut:]).merged(NormCounts.of(x[:cut])) == counts
    for fraction, got in counts.quantiles().items():
        exact = np.quantile(x, fraction, method="inverted_cdf")
        assert got == pytest.approx(exact, rel=1 / 256 + 1e-12, abs=0)
    assert NormCounts.from_json(counts.to_json()) == counts


def test_no_row_has_no_quantile():
    none = NormCounts.of(np.empty(0))
    assert none == NormCounts()
    assert all(math.isnan(v) for v in none.quantiles().values())
    assert list(none.quantiles()) == list(QUANTILES)
    assert NormCounts.from_json(none.to_json()) == none
