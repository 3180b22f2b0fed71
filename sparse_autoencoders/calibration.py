"""The threshold that gives a BatchTopK, saved as JumpReLU, the sparsity it was trained to."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

_SHIFT = 12  # a float32's bits without these: 2^-11 relative resolution


def threshold_for_l0(hidden: Iterable[Float[Tensor, "row feature"]], l0: float) -> float:
    """Return the threshold above which, on average, `l0` pre-activations of a row lie; one pass, exact to 0.05 %.

    SAELens and dictionary_learning approach this threshold by a slow average that starts at zero, so that an SAE saved
    early has an L0 many times too high or too low.

    Parameters
    ----------
    hidden
        Blocks of pre-activations.
    l0
        Mean number to keep in a row.

    Returns
    -------
    float
        Zero where fewer than `l0` of a row are positive.

    Notes
    -----
    The bits of a positive float32 sort as the numbers do, so their leading 20 are a logarithmic histogram's bin.

    """
    counts = torch.zeros(1 << (32 - _SHIFT - 1), dtype=torch.long)
    rows = 0
    for block in hidden:
        positive = block[block > 0].float().cpu()
        counts += torch.bincount(positive.view(torch.int32) >> _SHIFT, minlength=len(counts))
        rows += len(block)
    above = counts.flip(0).cumsum(0).flip(0)  # how many lie in this bin or a higher one
    wanted = round(l0 * rows)
    if rows == 0 or int(above[0]) <= wanted:
        return 0.0
    first = int((above <= wanted).nonzero()[0])
    return float(torch.tensor(first << _SHIFT, dtype=torch.int32).view(torch.float32))
