"""A store's activations as many trainings read them: once, normalised, each in an order of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from mechinterp.errors import ImagesError
from sparse_autoencoders.config import TrainSAEConfig
from sparse_autoencoders.metrics import training_images

if TYPE_CHECKING:
    from mechinterp.store import ActivationStore

SAMPLE_ROWS = 1 << 15
BATCHES_IN_BLOCK = 8


@dataclass(frozen=True)
class TrainingStream:
    """The training images' activations, what they are centred and scaled by, and how many steps that gives.

    Rows are read in blocks of some batches, in an order that all trainings share; within a block each training has an order that
    its seed decides. So one read serves many, and none depends on the company it was trained in.
    """

    store: ActivationStore
    site: str
    images: NDArray[np.int64]
    held_out: NDArray[np.int64]
    rows: int
    mean: Float[Tensor, " width"]
    scale: float
    batch_size: int
    steps: int

    @classmethod
    def of(
        cls,
        store: ActivationStore,
        site: str,
        images: Sequence[int] | NDArray[np.int64] | None,
        config: TrainSAEConfig,
    ) -> TrainingStream:
        """Choose the training images, and measure them.

        Raises
        ------
        ConfigError, ImagesError
            If k does not fit the site, tokens are too few, constant or not finite.

        """
        chosen = training_images(store) if images is None else np.asarray(images, dtype=np.int64)
        chosen, held_out = _without_held_out(store, chosen) if config.patience else (chosen, chosen[:0])
        rows = int(store.rows_of(site, chosen).sum())
        if rows < 2:
            raise ImagesError(f"{len(chosen)} training images with {rows} tokens at site '{site}': capture more images")
        config.width(store.width(site))
        moments = store.statistics(site, chosen)
        variance = float(moments.variance.mean())
        if not np.isfinite(variance):
            raise ImagesError(
                f"activations of site '{site}' are NaN or infinite for {_not_finite(store, site, chosen)}: "
                "capture again, or leave it out"
            )
        if variance == 0:
            raise ImagesError(f"activations of site '{site}' are the same for all {rows} tokens: choose another site")
        batch_size = min(config.batch_size, rows)
        steps = config.steps or config.epochs * (rows // batch_size)
        return cls(store, site, chosen, held_out, rows, moments.mean.float(), variance**0.5, batch_size, steps)

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in one pass."""
        return self.rows // self.batch_size

    def blocks(self, first_step: int = 0) -> Iterator[tuple[int, Float[Tensor, "row width"]]]:
        """Yield the step that a block begins with and its normalised rows, from the block that holds a step on, without end."""
        epoch, within = divmod(first_step, self.steps_per_epoch)
        at = within - within % BATCHES_IN_BLOCK
        while True:
            gathered: list[Tensor] = []
            begin = at
            for batch in self.store.batches(
                self.site, self.batch_size, seed=0, epoch=epoch, start=at, images=self.images
            ):
                gathered.append((batch - self.mean) / self.scale)
                at += 1
                if at == self.steps_per_epoch or at - begin == BATCHES_IN_BLOCK:
                    yield epoch * self.steps_per_epoch + begin, torch.cat(gathered)
                    gathered, begin = [], at
            epoch, at = epoch + 1, 0

    def order(self, seed: int, block_step: int, rows: int) -> NDArray[np.int64]:
        """Return the order in which a seed takes a block's rows."""
        return np.random.default_rng([seed, block_step]).permutation(rows)

    def sample(self, generator: torch.Generator) -> Float[Tensor, "row width"]:
        """Return tokens of randomly drawn training images, in random order, as they are."""
        return self._drawn(self.images, generator)

    def held_out_sample(self) -> Float[Tensor, "row width"]:
        """Return normalised tokens of images that no step sees; none unless training may stop early."""
        if not len(self.held_out):
            return torch.empty(0, self.store.width(self.site))
        return self.normalised(self._drawn(self.held_out, torch.Generator().manual_seed(0)))

    def normalised(self, x: Float[Tensor, "row width"]) -> Float[Tensor, "row width"]:
        """Centre and scale rows."""
        return (x - self.mean) / self.scale

    def _drawn(self, images: NDArray[np.int64], generator: torch.Generator) -> Tensor:
        order = torch.randperm(len(images), generator=generator).numpy()
        enough = int(np.searchsorted(self.store.rows_of(self.site, images[order]).cumsum(), SAMPLE_ROWS)) + 1
        rows = self.store.rows(self.site, images[np.sort(order[:enough])])
        return rows[torch.randperm(len(rows), generator=generator)]


def _without_held_out(store: ActivationStore, images: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Set a tenth of the training images' groups apart, at least one."""
    groups = store.images["group"].to_numpy()[images].astype(str)
    names = np.unique(groups)
    if len(names) < 2:
        raise ImagesError(
            f"early stopping wants held-out groups, and the {len(images)} training images are of one: set patience to 0"
        )
    apart = np.random.default_rng(0).permutation(names)[: max(1, len(names) // 10)]
    held_out = np.isin(groups, apart)
    return images[~held_out], images[held_out]


def _not_finite(store: ActivationStore, site: str, images: NDArray[np.int64]) -> str:
    """Name the first image with a value that is not finite."""
    for position in images:
        if not bool(store.rows(site, [int(position)]).isfinite().all()):
            return f"image '{store.images['id'].iloc[int(position)]}'"
    return "their sum (values too large)"
