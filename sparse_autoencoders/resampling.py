"""Give latents that fell silent a new start, at tokens the SAE reconstructs worst.

References
----------
Bricken et al. Towards monosemanticity. Transformer Circuits Thread, 2023, "Neuron resampling".

"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from sparse_autoencoders.initialisation import QUIET, worst_residuals

if TYPE_CHECKING:
    from sae_lens.training.sae_trainer import SAETrainer


@torch.no_grad()
def restart_silent(
    trainer: SAETrainer[Any, Any],
    silent: Float[Tensor, " feature"],
    sample: Float[Tensor, "row d_in"],
    generator: torch.Generator,
) -> int:
    """Point silent latents at what the others leave over, and forget what Adam knew of them.

    Directions are residuals of sample rows drawn with probability proportional to their squared error.

    Parameters
    ----------
    trainer
        Between two steps.
    silent
        Which latents, as booleans.
    sample
        Normalised training tokens.
    generator
        Decides which rows are drawn.

    Returns
    -------
    int
        How many latents were restarted.

    """
    sae, n = trainer.sae, int(silent.sum())
    if n == 0 or n == len(silent):
        return 0
    residual = (sample.to(sae.device) - sae(sample.to(sae.device))).cpu()
    directions = worst_residuals(residual, n, generator).to(sae.device)
    living_norm = sae.W_enc[:, ~silent].norm(dim=0).mean()
    sae.W_dec.data[silent] = directions * sae.W_dec[~silent].norm(dim=-1).mean()
    sae.W_enc.data[:, silent] = QUIET * living_norm * directions.T
    sae.b_enc.data[silent] = 0
    for parameter in (sae.W_enc, sae.W_dec, sae.b_enc):
        state = trainer.optimizer.state[parameter]
        for moment in (state["exp_avg"], state["exp_avg_sq"]):
            (moment.T if parameter is sae.W_enc else moment)[silent] = 0
    trainer.n_forward_passes_since_fired[silent] = 0
    return n
