"""What dead latents learn from: what the living ones left over (AuxK)."""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor


def dead_latents_loss(
    centred: Float[Tensor, "row d_in"],
    error: Float[Tensor, "row d_in"],
    dead: Bool[Tensor, " feature"] | None,
    W_enc: Float[Tensor, "d_in feature"],
    b_enc: Float[Tensor, " feature"],
    W_dec: Float[Tensor, "feature d_in"],
    weight: float,
) -> Float[Tensor, ""]:
    """Return the weighted loss by which the dead latents reconstruct the error.

    Parameters
    ----------
    centred
        Rows, the decoder's bias taken off, without gradient.
    error
        What the living left over, without gradient.
    dead
        Which latents; none.
    W_enc, b_enc, W_dec
        Weights of all latents.
    weight
        Of the loss; few dead latents weigh less, as in SAELens' own.

    References
    ----------
    Gao et al. Scaling and evaluating sparse autoencoders. arXiv 2406.04093, appendix A.2.

    """
    if dead is None or weight == 0 or not bool(dead.any()):
        return centred.new_zeros(())
    chosen = dead.nonzero().flatten()
    k = min(centred.shape[-1] // 2, len(chosen))
    hidden = centred @ W_enc[:, chosen] + b_enc[chosen]
    values, columns = hidden.topk(k, dim=-1, sorted=False)
    codes = hidden.new_zeros(hidden.shape).scatter(-1, columns, values.relu())
    loss = (codes @ W_dec[chosen] - error).square().sum(-1).mean()
    return weight * min(len(chosen) / (centred.shape[-1] // 2), 1.0) * loss
