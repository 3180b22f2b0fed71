"""What a transcoder is worth to the model: let it write what the block it stands for would have written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from mechinterp.capturing import run_with_cache
from mechinterp.progress import SILENT, Progress
from sparse_autoencoders.splicing import LossRecovered, loss_recovered

if TYPE_CHECKING:
    from mechinterp.models.vision_model import VisionModel
    from sparse_autoencoders.transcoder import Transcoder


class _Written:
    """What the transcoder writes for the batch at hand, in the guise of an encoder of the site that is written."""

    kind = "transcoder"

    def __init__(self, transcoder: Transcoder) -> None:
        self.site, self.d_in, self.width = transcoder.to_site, transcoder.d_out, transcoder.d_out
        self.directions = torch.eye(transcoder.d_out)
        self.weights_hash = transcoder.weights_hash
        self.value = torch.empty(0)

    def encode(self, x: Float[Tensor, "*rows d_out"]) -> Float[Tensor, "*rows d_out"]:
        return self.value.to(x)

    def decode(self, z: Float[Tensor, "*rows d_out"]) -> Float[Tensor, "*rows d_out"]:
        return z


@torch.no_grad()
def transcoder_loss_recovered(
    model: VisionModel,
    transcoder: Transcoder,
    batches: Iterable[Float[Tensor, "batch channel height width"]],
    mean: Float[Tensor, " d_out"],
    *,
    progress: Progress = SILENT,
) -> LossRecovered:
    """Put what a transcoder writes in place of the site that it writes, beside zero, mean and the site's own activation.

    Six forward passes for each batch.

    Parameters
    ----------
    model
        The model.
    transcoder
        Of two of its sites, the one that is read before the one that is written.
    batches
        Prepared images, held out from the transcoder's training.
    mean
        Mean activation of the site that is written, over the training tokens.
    progress
        Sees one step per batch.

    Raises
    ------
    SiteError
        If the model has no such site.
    ImagesError
        If there is no batch.

    """
    written = _Written(transcoder)

    def prepared() -> Iterator[Tensor]:
        # what is read lies before what is replaced, so it is the same with and without the replacement
        for x in batches:
            written.value = transcoder(run_with_cache(model, x, [transcoder.site])[transcoder.site])
            yield x

    return loss_recovered(model, written, prepared(), mean, progress=progress)
