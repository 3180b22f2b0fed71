"""What the experiments need of a model: its logits from given activations of one site."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor


class RunsFromSite(Protocol):
    """Anything that computes logits from a site's activations; :class:`mechinterp.tails.Tail` is one."""

    def logits(
        self,
        acts_bnd: Float[Tensor, "batch token width"],
        x: Float[Tensor, "batch channel height width"] | None = None,
    ) -> Float[Tensor, "batch class"]:
        """Return the logits when the site holds `acts_bnd`; `x` are the images, where something bypasses the site."""
        ...


def logits_in_batches(
    run: RunsFromSite,
    acts_bnd: Float[Tensor, "image token width"],
    batch: int,
    x: Float[Tensor, "image channel height width"] | None = None,
) -> Float[Tensor, "image class"]:
    """Return the logits of many activations, `batch` at a time, detached.

    Parameters
    ----------
    run
        The rest of the model.
    acts_bnd
        The site's tokens.
    batch
        How many rows to run at once.
    x
        The images of the same rows, if the rest of the model needs them.

    """
    return torch.cat(
        [run.logits(acts_bnd[s], None if x is None else x[s]).detach() for s in slices(len(acts_bnd), batch)]
    )


def slices(n: int, batch: int) -> Iterator[slice]:
    """Yield consecutive slices of at most `batch` that cover ``range(n)``."""
    for start in range(0, n, batch):
        yield slice(start, min(start + batch, n))
