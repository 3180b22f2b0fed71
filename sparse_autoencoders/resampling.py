"""Give features that fell silent a new start, at tokens the SAE reconstructs worst.

References
----------
Bricken et al. Towards monosemanticity. Transformer Circuits Thread, 2023, "Neuron resampling".

"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sparse_autoencoders.initialisation import QUIET, worst_pairs, worst_residuals
from sparse_autoencoders.learner import Learner


def restart_silent(
    learner: Learner,
    silent: Bool[Tensor, " feature"],
    sample: Float[Tensor, "row d_in"],
    generator: torch.Generator,
    *,
    read_width: int | None = None,
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
    read_width
        Of a transcoder: how wide what it reads is, which stands before what it writes.

    Returns
    -------
    int
        How many features were restarted.

    """
    n = int(silent.sum())
    if n == 0 or n == len(silent):
        return 0
    reconstructed = learner.reconstruct(sample)
    if read_width is None:
        directions = worst_residuals(sample - reconstructed, n, generator)
    else:
        read, wanted = sample[:, :read_width], sample[:, read_width:]
        directions = worst_pairs(read, wanted - reconstructed, n, generator)
    learner.restart(silent, directions, QUIET)
    return n
