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

from mechinterp.errors import ImagesError, SiteError
from sparse_autoencoders.config import TrainSAEConfig
from sparse_autoencoders.metrics import training_images

if TYPE_CHECKING:
    from mechinterp.store import ActivationStore

SAMPLE_ROWS = 1 << 15
BATCHES_IN_BLOCK = 8
_BUFFER_MIB = 2048


@dataclass(frozen=True)
class TrainingStream:
    """The training images' activations, what they are centred and scaled by, and how many steps that gives.

    Rows are read in blocks of some batches, in an order that all trainings share; within a block each training has an order that
    its seed decides. So one read serves many, and none depends on the company it was trained in. Of several sites, a token's
    activations stand side by side in one row, each site centred and scaled for itself.
    """

    store: ActivationStore
    sites: tuple[str, ...]
    images: NDArray[np.int64]
    held_out: NDArray[np.int64]
    rows: int
    mean: Float[Tensor, " width"]
    scale: float | Float[Tensor, " width"]
    batch_size: int
    steps: int
    read_width: int | None = None

    @classmethod
    def of(
        cls,
        store: ActivationStore,
        site: str | tuple[str, ...],
        images: Sequence[int] | NDArray[np.int64] | None,
        config: TrainSAEConfig,
        *,
        transcode: bool = False,
    ) -> TrainingStream:
        """Choose the training images, and measure them.

        Parameters
        ----------
        store, images, config
            As :func:`~sparse_autoencoders.training.train_saes` has them.
        site
            One, or several whose rows are those of the same tokens.
        transcode
            Whether the first site is read and the second is what shall be written.

        Raises
        ------
        ConfigError, ImagesError, SiteError
            If k does not fit the site, tokens are too few, constant or not finite, or sites have different tokens.

        """
        sites = (site,) if isinstance(site, str) else site
        require_same_tokens(store, sites)
        chosen = training_images(store) if images is None else np.asarray(images, dtype=np.int64)
        chosen, held_out = _without_held_out(store, chosen) if config.patience else (chosen, chosen[:0])
        rows = int(store.rows_of(sites[0], chosen).sum())
        if rows < 2:
            raise ImagesError(
                f"{len(chosen)} training images with {rows} tokens at site '{sites[0]}': capture more images"
            )
        config.width(store.width(sites[0]))
        measured = [_measured(store, name, chosen, rows) for name in sites]
        batch_size = min(config.batch_size, rows)
        steps = config.steps or config.epochs * (rows // batch_size)
        mean = torch.cat([mean for mean, _ in measured])
        scale = measured[0][1] if len(sites) == 1 else torch.cat([torch.full_like(m, scale) for m, scale in measured])
        read = store.width(sites[0]) if transcode else None
        return cls(store, sites, chosen, held_out, rows, mean, scale, batch_size, steps, read)

    @property
    def site(self) -> str:
        """The first site."""
        return self.sites[0]

    @property
    def widths(self) -> tuple[int, ...]:
        """Width of each site."""
        return tuple(self.store.width(site) for site in self.sites)

    def wanted(self, rows: Float[Tensor, "row width"]) -> Float[Tensor, "row wanted"]:
        """Return what shall be reconstructed of some rows: all of them, or the second site's part."""
        return rows if self.read_width is None else rows[:, self.read_width :]

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
            for batch in self._batches(epoch, at):
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
            return torch.empty(0, sum(self.widths))
        return self.normalised(self._drawn(self.held_out, torch.Generator().manual_seed(0)))

    def normalised(self, x: Float[Tensor, "row width"]) -> Float[Tensor, "row width"]:
        """Centre and scale rows."""
        return (x - self.mean) / self.scale

    def raw(self, images: Sequence[int] | NDArray[np.int64]) -> Float[Tensor, "row width"]:
        """Return the tokens of some images as they are, the sites side by side."""
        return torch.cat([self.store.rows(site, images) for site in self.sites], dim=1)

    def _batches(self, epoch: int, start: int) -> Iterator[Float[Tensor, "row width"]]:
        if len(self.sites) == 1:
            yield from self.store.batches(
                self.site, self.batch_size, seed=0, epoch=epoch, start=start, images=self.images
            )
            return
        # the order depends on how many rows the buffer holds, so each site's is as large as it is wide
        share = max(1, _BUFFER_MIB // sum(self.widths))
        streams = [
            self.store.batches(
                site, self.batch_size, seed=0, epoch=epoch, start=start, images=self.images, buffer_mib=share * width
            )
            for site, width in zip(self.sites, self.widths, strict=True)
        ]
        for parts in zip(*streams, strict=True):
            yield torch.cat(parts, dim=1)

    def _drawn(self, images: NDArray[np.int64], generator: torch.Generator) -> Tensor:
        order = torch.randperm(len(images), generator=generator).numpy()
        enough = int(np.searchsorted(self.store.rows_of(self.site, images[order]).cumsum(), SAMPLE_ROWS)) + 1
        rows = self.raw(images[np.sort(order[:enough])])
        return rows[torch.randperm(len(rows), generator=generator)]


def require_same_tokens(store: ActivationStore, sites: Sequence[str]) -> None:
    """Refuse sites whose rows are not those of the same tokens.

    Raises
    ------
    SiteError
        If a site is named twice, or two hold different tokens.

    """
    if len(set(sites)) != len(sites):
        raise SiteError(f"sites {', '.join(sites)}: name each once")
    first, *others = sites
    for other in others:
        same = np.array_equal(store.rows_of(first), store.rows_of(other))
        if same and not store.manifest.aligned:
            same = store.index(first)["token"].equals(store.index(other)["token"])
        if not same:
            raise SiteError(
                f"sites '{first}' and '{other}' hold different tokens ({store.tokens(first)} and {store.tokens(other)} of an "
                "image): choose sites with one grid, captured with the same choice of tokens"
            )


def _measured(
    store: ActivationStore, site: str, images: NDArray[np.int64], rows: int
) -> tuple[Float[Tensor, " width"], float]:
    """Return a site's mean, and the square root of its units' mean variance."""
    moments = store.statistics(site, images)
    variance = float(moments.variance.mean())
    if not np.isfinite(variance):
        raise ImagesError(
            f"activations of site '{site}' are NaN or infinite for {_not_finite(store, site, images)}: "
            "capture again, or leave it out"
        )
    if variance == 0:
        raise ImagesError(f"activations of site '{site}' are the same for all {rows} tokens: choose another site")
    return moments.mean.float(), variance**0.5


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
