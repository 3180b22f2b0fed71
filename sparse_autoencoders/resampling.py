"""Give features that fell silent a new start, at tokens the SAE reconstructs worst.

References
----------
Bricken et al. Towards monosemanticity. Transformer Circuits Thread, 2023, "Neuron resampling".

"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sparse_autoencoders.initialisation import QUIET, worst_residuals
from sparse_autoencoders.learner import Learner


def restart_silent(
    learner: Learner,
    silent: Bool[Tensor, " feature"],
    sample: Float[Tensor, "row d_in"],
    generator: torch.Generator,
) -> int:
    """Point silent features at what the others leave over, and forget what Adam knew of them.

    Directions are residuals of sample rows drawn with probability proportional to their squared error.

    Parameters
    ----------
    learner
        Between two steps.
    silent
        Which features.
    sample
        Normalised training tokens.
    generator
        Decides which rows are drawn.

    Returns
    -------
    int
        How many features were restarted.

    """
    n = int(silent.sum())
    if n == 0 or n == len(silent):
        return 0
    residual = sample - learner.reconstruct(sample)
    learner.restart(silent, worst_residuals(residual, n, generator), QUIET)
    return n
