"""One training step of a TopK autoencoder: sparse kernels against dense autograd, and against the encoder's product alone."""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.timing import interleaved_medians


def measure(quick: bool) -> dict[str, Any]:
    """Time forward and backward at (d_in 192, d_sae 3072, k 32, batch 4096), a quarter of it when quick, on two threads."""
    from sparse_autoencoders.kernels import autoencode, topk_of_row

    torch.set_num_threads(2)
    d_in, d_sae, k, batch = (192, 768, 32, 1024) if quick else (192, 3072, 32, 4096)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, d_in, generator=generator)
    W_enc = (torch.randn(d_in, d_sae, generator=generator) / d_in**0.5).requires_grad_()
    b_enc = torch.zeros(d_sae, requires_grad=True)
    W_dec = (torch.randn(d_sae, d_in, generator=generator) / d_sae**0.5).requires_grad_()

    def clear() -> None:
        for parameter in (W_enc, b_enc, W_dec):
            parameter.grad = None

    def sparse() -> None:
        clear()
        reconstruction = autoencode(x, W_enc, b_enc, W_dec, lambda hidden: topk_of_row(hidden, k))[0]
        (reconstruction - x).square().mean().backward()

    def dense() -> None:
        clear()
        pre = x @ W_enc + b_enc
        values, at = pre.topk(k, dim=-1)
        codes = torch.zeros_like(pre).scatter(-1, at, values.relu())
        (codes @ W_dec - x).square().mean().backward()

    def floor() -> None:
        with torch.no_grad():
            x @ W_enc

    medians = interleaved_medians({"sparse": sparse, "dense": dense, "floor": floor}, 5)
    return {
        "samples_per_second": batch / medians["sparse"],
        "seconds": medians,
        "ratios": {
            "topk/192/dense_autograd_vs_ours": medians["dense"] / medians["sparse"],
            "topk/192/vs_floor": medians["sparse"] / medians["floor"],
        },
    }
