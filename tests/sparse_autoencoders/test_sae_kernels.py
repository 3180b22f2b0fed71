"""The sparse step equals the dense one that autograd would take, in value and gradient."""

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparse_autoencoders.kernels import autoencode, topk_of_batch, topk_of_row


def dense_topk(hidden, k):
    kept = hidden.topk(k, dim=-1).indices
    return torch.zeros_like(hidden).scatter(-1, kept, hidden.gather(-1, kept)).relu()


def dense_batchtopk(hidden, k):
    flat = hidden.flatten()
    kept = flat.topk(k * len(hidden)).indices
    return torch.zeros_like(flat).scatter(-1, kept, flat[kept]).reshape(hidden.shape).relu()


def problem(rows, d_in, width, seed):
    g = torch.Generator().manual_seed(seed)
    shapes = [(rows, d_in), (d_in, width), (width,), (width, d_in)]
    return [torch.randn(s, generator=g, dtype=torch.float64, requires_grad=True) for s in shapes]


@pytest.mark.parametrize(("select", "dense"), [(topk_of_row, dense_topk), (topk_of_batch, dense_batchtopk)])
@settings(max_examples=25, deadline=None)
@given(
    data=st.data(), rows=st.integers(1, 9), d_in=st.integers(1, 7), width=st.integers(1, 11), seed=st.integers(0, 99)
)
def test_value_and_every_gradient_equal_the_dense_twin(select, dense, data, rows, d_in, width, seed):
    k = data.draw(st.integers(1, width))
    x, W_enc, b_enc, W_dec = problem(rows, d_in, width, seed)
    target = torch.randn(rows, d_in, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64)

    reconstruction, codes, hidden = autoencode(x, W_enc, b_enc, W_dec, partial(select, k=k))
    gradients = torch.autograd.grad((reconstruction - target).square().sum(), [x, W_enc, b_enc, W_dec])

    expected_hidden = x @ W_enc + b_enc
    expected_codes = dense(expected_hidden, k)
    expected = torch.autograd.grad((expected_codes @ W_dec - target).square().sum(), [x, W_enc, b_enc, W_dec])

    assert torch.allclose(hidden, expected_hidden)
    assert torch.allclose(codes, expected_codes)
    assert torch.allclose(reconstruction, expected_codes @ W_dec)
    for found, wanted in zip(gradients, expected, strict=True):
        assert torch.allclose(found, wanted)


def test_topk_keeps_k_of_every_row_and_batchtopk_k_on_average():
    hidden = torch.arange(12.0).reshape(3, 4)
    assert topk_of_row(hidden, 2).columns.tolist() == [2, 3] * 3
    chosen = topk_of_batch(hidden, 2)
    assert chosen.rows.tolist() == [1, 1, 2, 2, 2, 2]
    assert chosen.columns.tolist() == [2, 3, 0, 1, 2, 3]
    assert chosen.starts.tolist() == [0, 0, 2, 6]


def test_a_negative_pre_activation_that_is_kept_counts_as_zero_and_learns_nothing():
    W_enc = torch.tensor([[1.0, -1.0]], requires_grad=True)
    reconstruction, codes, _ = autoencode(
        torch.ones(1, 1), W_enc, torch.zeros(2), torch.ones(2, 1), partial(topk_of_row, k=2)
    )
    reconstruction.sum().backward()
    assert codes.tolist() == [[1.0, 0.0]]
    assert W_enc.grad.tolist() == [[1.0, 0.0]]
