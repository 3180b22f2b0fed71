"""A sparse autoencoder's value and gradient with one dense product: after the selection, work is done on active latents only.

A dense implementation multiplies matrices that are zero but for k columns in a row, four times a step. Here the codes are a
compressed sparse row (CSR) matrix: decoding is CSR × dense, the gradient of the codes is taken only where they are not
zero (``sampled_addmm``), and both weight gradients are transposed CSR × dense.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Selection:
    """Which pre-activations are kept, as a CSR pattern.

    Parameters
    ----------
    starts
        Where each row's entries begin, and their number at the end.
    columns
        Latent of each entry, ascending in a row.
    rows
        Row of each entry.

    """

    starts: Int[Tensor, " row_plus_one"]
    columns: Int[Tensor, " entry"]
    rows: Int[Tensor, " entry"]


Select: TypeAlias = Callable[[Tensor], Selection]


def topk_of_row(hidden: Float[Tensor, "row feature"], k: int) -> Selection:
    """Keep the `k` largest of each row (TopK)."""
    columns = hidden.topk(k, dim=-1, sorted=False).indices.sort(dim=-1).values
    n = len(hidden)
    starts = torch.arange(0, n * k + 1, k, device=hidden.device)
    return Selection(starts, columns.flatten(), torch.arange(n, device=hidden.device).repeat_interleave(k))


def topk_of_batch(hidden: Float[Tensor, "row feature"], k: int) -> Selection:
    """Keep the ``k * rows`` largest of the whole batch (BatchTopK)."""
    n, width = hidden.shape
    flat = hidden.flatten().topk(k * n, sorted=False).indices.sort().values
    rows = torch.div(flat, width, rounding_mode="floor")
    return Selection(_starts(rows, n), flat - rows * width, rows)


class _Autoencode(torch.autograd.Function):
    """See :func:`autoencode`."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, W_enc: Tensor, b_enc: Tensor, W_dec: Tensor, select: Select
    ) -> tuple[Tensor, Tensor, Tensor]:
        hidden = torch.addmm(b_enc, x, W_enc)
        chosen = select(hidden)
        values = hidden[chosen.rows, chosen.columns].relu()
        codes = torch.zeros_like(hidden)
        codes[chosen.rows, chosen.columns] = values
        reconstruction = _csr(chosen.starts, chosen.columns, values, len(W_dec)) @ W_dec
        ctx.save_for_backward(x, W_enc, W_dec, values, chosen.starts, chosen.columns, chosen.rows)
        ctx.mark_non_differentiable(codes, hidden)
        return reconstruction, codes, hidden

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _codes: None, _hidden: None) -> tuple[Tensor | None, ...]:
        x, W_enc, W_dec, values, starts, columns, rows = ctx.saved_tensors
        grad, width = grad.contiguous(), len(W_dec)
        pattern = _csr(starts, columns, torch.zeros_like(values), width)
        # the gradient of a code is the product of its row's gradient and its latent's direction; zero where ReLU cut
        grad_codes = torch.sparse.sampled_addmm(pattern, grad, W_dec.t(), beta=0.0).values() * (values > 0)
        order = columns.argsort(stable=True)
        latent_starts = _starts(columns, width)

        def transposed(of: Tensor) -> Tensor:
            return torch.sparse_csr_tensor(
                latent_starts, rows[order], of[order], (width, len(x)), check_invariants=False
            )

        grad_dec = transposed(values) @ grad
        grad_enc = (transposed(grad_codes) @ x).t().contiguous()
        grad_bias = torch.zeros_like(W_dec[:, 0]).index_add_(0, columns, grad_codes)
        grad_x = _csr(starts, columns, grad_codes, width) @ W_enc.t().contiguous() if ctx.needs_input_grad[0] else None
        return grad_x, grad_enc, grad_bias, grad_dec, None


def autoencode(
    x: Float[Tensor, "row d_in"],
    W_enc: Float[Tensor, "d_in feature"],
    b_enc: Float[Tensor, " feature"],
    W_dec: Float[Tensor, "feature d_in"],
    select: Select,
) -> tuple[Float[Tensor, "row d_in"], Float[Tensor, "row feature"], Float[Tensor, "row feature"]]:
    """Encode rows, keep the selected pre-activations that are positive, and decode them.

    Parameters
    ----------
    x
        Rows, the decoder's bias already taken off.
    W_enc, b_enc
        Encoder.
    W_dec
        Decoder.
    select
        From pre-activations to those that are kept, for example ``partial(topk_of_row, k=32)``.

    Returns
    -------
    reconstruction : Tensor
        With gradients to `x` and all weights.
    codes : Tensor
        Dense, without gradients.
    hidden : Tensor
        All pre-activations, without gradients.

    """
    return _Autoencode.apply(x, W_enc, b_enc, W_dec, select)  # type: ignore[no-any-return]


def _starts(sorted_or_not: Tensor, n: int) -> Tensor:
    starts = torch.zeros(n + 1, dtype=torch.long, device=sorted_or_not.device)
    starts[1:] = torch.bincount(sorted_or_not, minlength=n).cumsum(0)
    return starts


def _csr(starts: Tensor, columns: Tensor, values: Tensor, width: int) -> Tensor:
    return torch.sparse_csr_tensor(starts, columns, values, (len(starts) - 1, width), check_invariants=False)


with warnings.catch_warnings():
    # torch says once in each process that CSR tensors are in beta; let that be here, and not on a user's screen
    warnings.simplefilter("ignore", UserWarning)
    _csr(torch.tensor([0, 0]), torch.empty(0, dtype=torch.long), torch.empty(0), 1)
