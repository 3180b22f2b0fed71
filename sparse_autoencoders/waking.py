"""Let features that fell silent be heard again: their encoder grows until it reaches the bar of a token.

Of the TopK family a feature that is never among the k largest has no gradient and stays as it is, while the encoders of those that are
heard grow past it. A loss on what the others left over (AuxK) cannot help it where that is far smaller than the k-th code: what the
feature then says of it is too quiet. An encoder that just reaches the bar on the token that suits it best costs that token its
weakest code, and the feature gets a gradient by which it finds its place, or falls silent again. None grows far beyond those that
are heard: it would speak up everywhere.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

UNTIL = 0.9  # share of the steps: a feature that is heard last needs some to learn
LOUDEST = 2.0  # largest norm that an encoder grows to, as a multiple of the mean of those that are heard
_OVER = 1e-4  # how far over the bar, as a share of it
_FAR = 0.1  # nearest to the bar, as a share of it: what lies lower, or below zero, is not brought there at once


@runtime_checkable
class Waking(Protocol):
    """A learner whose features can be woken."""

    def wake(self, silent: Bool[Tensor, " feature"], x: Float[Tensor, "row width"]) -> None:
        """Let silent features grow to the bar of the row that suits each best."""
        ...


def due(step: int, steps: int, steps_per_epoch: int, wake: float) -> int | None:
    """Return for how many steps a feature must have been silent to be woken after a step, counted from 0; none: none is now.

    It is looked for once in as many steps as the silence lasts.

    Parameters
    ----------
    step, steps
        Of the training.
    steps_per_epoch
        In one pass.
    wake
        Epochs of silence; 0: features are never woken.

    """
    patience = max(1, round(wake * steps_per_epoch))
    if wake == 0 or step >= UNTIL * steps or (step + 1) % patience:
        return None
    return patience


def growth(
    hidden: Float[Tensor, "row feature"],
    norms: Float[Tensor, " feature"],
    silent: Bool[Tensor, " feature"],
    k: int,
    *,
    whole_batch: bool,
) -> Float[Tensor, " silent"]:
    """Return the factor by which the encoder and the bias of each silent feature must grow to reach the bar, at least one.

    Of several whom the same row suits best, that row may take one in. A whole batch's bar is set so high that there is room for all,
    up to a tenth of its places.

    Parameters
    ----------
    hidden
        Pre-activations of all features.
    norms
        Of their encoders.
    silent
        Which are to be heard; not all.
    k
        Active features of a row.
    whole_batch
        Whether the `k` of a row are an average over the rows (BatchTopK).

    """
    k = min(k, hidden.shape[1])
    if whole_batch:
        places = k * len(hidden)
        room = min(int(silent.sum()) - 1, places // 10)
        bar = hidden.flatten().topk(places - max(room, 0), sorted=False).values.min().expand(len(hidden))
    else:
        bar = hidden.topk(k, dim=1, sorted=False).values.amin(1)
    # what is not positive is no code
    bar = bar.clamp_min(torch.finfo(hidden.dtype).eps)
    reached = (hidden[:, silent] / bar[:, None]).amax(0)
    most = LOUDEST * norms[~silent].mean() / norms[silent].clamp_min(torch.finfo(hidden.dtype).tiny)
    return torch.minimum((1 + _OVER) / reached.clamp_min(_FAR), most).clamp_min(1)
