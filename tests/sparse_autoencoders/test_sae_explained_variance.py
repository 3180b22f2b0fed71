"""Known by hand, by a slow twin, and by what must not matter."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import r2_score

from mechinterp.errors import ShapeError
from sparse_autoencoders.explained_variance import ExplainedVariance


def measured(x, x_hat, batch_size=None):
    metric = ExplainedVariance()
    for a, b in zip(x.split(batch_size or len(x)), x_hat.split(batch_size or len(x)), strict=True):
        metric.update(a, b)
    return metric.compute()


@pytest.fixture
def x():
    return torch.randn(257, 5, generator=torch.Generator().manual_seed(0)) * torch.arange(1, 6) + 5


def test_perfect_is_one_the_mean_is_zero_and_worse_is_negative(x):
    assert measured(x, x) == 1
    assert measured(x, x.mean(0).expand_as(x)) == pytest.approx(0, abs=1e-6)
    assert measured(x, -x) < 0


def test_equals_scikit_learn_where_variances_are_weighted(x):
    x_hat = 0.7 * x + 1
    assert measured(x, x_hat, 10) == pytest.approx(r2_score(x, x_hat, multioutput="variance_weighted"), rel=1e-6)


@given(batch_size=st.integers(1, 130), shift=st.floats(-1e3, 1e3))
def test_neither_the_split_nor_a_shift_matters(batch_size, shift):
    x = torch.randn(120, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert measured(x + shift, 0.8 * x + shift, batch_size) == pytest.approx(measured(x, 0.8 * x), rel=1e-6)


def test_a_constant_site_and_no_row_have_no_answer():
    assert math.isnan(measured(torch.ones(4, 2), torch.ones(4, 2)))
    metric = ExplainedVariance()
    metric.update(torch.ones(0, 2), torch.ones(0, 2))
    assert math.isnan(metric.compute())


def test_another_width_names_both_shapes(x):
    with pytest.raises(ShapeError, match=r"\(257, 4\).*\(257, 5\)"):
        ExplainedVariance().update(x, x[:, :4])
