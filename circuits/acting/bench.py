"""Run many edits of one site over many images in one pass: activations are computed once, each edit runs only what follows.

Memory holds one batch of activations; what is kept of each image is its logits and what the head reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from mechinterp.capturing import run_with_cache
from mechinterp.errors import ImagesError
from mechinterp.images.image_set import ImageSet
from mechinterp.models.vision_model import VisionModel
from mechinterp.progress import SILENT, Progress
from mechinterp.tails import Tail

Pictures = ImageSet | Float[Tensor, "image channel height width"]


class Changing(Protocol):
    """What is done to a model at one site and to its logits."""

    def acts(self, acts_bnd: Float[Tensor, "batch token width"]) -> Float[Tensor, "batch token width"]:
        """Return the site's activation after the change; the same tensor where it is left alone."""
        ...

    def logits(
        self, logits: Float[Tensor, "batch output"], head: Float[Tensor, "batch width"]
    ) -> Float[Tensor, "batch output"]:
        """Return the logits after the change, given what the head read."""
        ...


class Unchanged:
    """The model as it is."""

    def acts(self, acts_bnd: Tensor) -> Tensor:
        """Return the same tensor."""
        return acts_bnd

    def logits(self, logits: Tensor, head: Tensor) -> Tensor:
        """Return the same logits."""
        del head
        return logits


@dataclass(frozen=True, eq=False)
class Answers:
    """What a model said of each image under one change.

    Parameters
    ----------
    logits
        Its logits.
    head
        What its last linear layer read; of a model without one, the mean of the changed site's tokens.

    """

    logits: Float[Tensor, "image output"]
    head: Float[NDArray[np.float32], "image width"]


class EditBench:
    """Runs changes of one site.

    Parameters
    ----------
    model
        The model.
    site
        Name of the site.
    batch
        Images at once.

    """

    def __init__(self, model: VisionModel, site: str, batch: int = 64) -> None:
        self.model, self.site, self.batch = model, site, batch
        self._head: nn.Linear | None = None
        self._searched = False

    def batches(
        self, images: Pictures, progress: Progress = SILENT, what: str = "images"
    ) -> Iterator[tuple[slice, Float[Tensor, "batch channel height width"], Float[Tensor, "batch token width"]]]:
        """Yield every batch: which images, the model's input, the site's activation.

        Raises
        ------
        ImagesError
            If there is no image.

        """
        n = len(images)
        if n == 0:
            raise ImagesError("there is no image: give at least one")
        starts = range(0, n, self.batch)
        for start in progress.track(starts, what, len(starts)):
            rows = slice(start, min(start + self.batch, n))
            x = (
                self.model.prepare([images[i] for i in range(rows.start, rows.stop)])
                if isinstance(images, ImageSet)
                else images[rows]
            ).to(self.model.device)
            with torch.no_grad():
                acts = run_with_cache(self.model, x, [self.site])[self.site]
            yield rows, x, acts

    def run(
        self, images: Pictures, changes: Sequence[Changing], progress: Progress = SILENT, what: str = "edits"
    ) -> list[Answers]:
        """Return what the model says of every image under each change."""
        logits: list[list[Tensor]] = [[] for _ in changes]
        heads: list[list[Tensor]] = [[] for _ in changes]
        tail: Tail | None = None
        for _, x, acts in self.batches(images, progress, what):
            tail = tail or Tail(self.model, self.site, x[:2])
            self._find_head(x[:2])
            with torch.no_grad():
                plain = self._tail(tail, acts, x)
                for k, change in enumerate(changes):
                    changed = change.acts(acts)
                    said, head = plain if changed is acts else self._tail(tail, changed, x)
                    logits[k].append(change.logits(said, head))
                    heads[k].append(head)
        return [
            Answers(torch.cat(z).cpu(), torch.cat(h).float().cpu().numpy()) for z, h in zip(logits, heads, strict=True)
        ]

    @property
    def has_linear_head(self) -> bool:
        """Whether the model ends in a linear layer; known once something was run."""
        return self._head is not None

    def _tail(self, tail: Tail, acts: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        head = self._head
        if head is None:
            return tail.logits(acts, x), acts.mean(1)
        with reading(head) as seen:
            said = tail.logits(acts, x)
        return said, seen()

    def _find_head(self, x: Tensor) -> None:
        if not self._searched:
            self._head, self._searched = linear_head(self.model, x), True


class reading:  # noqa: N801  a context manager, named as one
    """Keep what a linear layer reads in the next forward pass."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.seen: list[Tensor] = []

    def __enter__(self) -> Callable[[], Tensor]:
        self.handle = self.module.register_forward_pre_hook(lambda _m, args: self.seen.append(args[0].detach()))
        return lambda: self.seen[-1]

    def __exit__(self, *_: object) -> None:
        self.handle.remove()


def linear_head(model: VisionModel, x: Float[Tensor, "batch channel height width"]) -> nn.Linear | None:
    """Return the linear layer whose output are the logits; ``None`` where a model ends otherwise.

    It is found by what it puts out, not by its name.
    """
    seen: list[tuple[nn.Linear, Tensor]] = []
    handles = [
        module.register_forward_hook(lambda m, _args, out: seen.append((m, out.detach())))
        for module in model.module.modules()
        if isinstance(module, nn.Linear)
    ]
    try:
        with torch.no_grad():
            logits = model.logits(x)
    finally:
        for handle in handles:
            handle.remove()
    for module, out in reversed(seen):
        if out.shape == logits.shape and torch.equal(out, logits):
            return module
    return None
