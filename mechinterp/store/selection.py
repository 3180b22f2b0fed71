"""Which tokens of an image are stored: all, the class token, patches, foreground, some at random."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from mechinterp.errors import ConfigError, SiteError
from mechinterp.models.vision_model import InputContract
from mechinterp.sites import Site
from mechinterp.token_grid import TokenGrid

Tokens = Literal["all", "cls", "patches", "foreground", "mask"]
_KINDS = ("all", "cls", "patches", "foreground", "mask")


@dataclass(frozen=True)
class TokenSelection:
    """A choice of tokens; it depends on the image and its position alone, so that every engine makes the same.

    Parameters
    ----------
    tokens
        ``all``; ``cls``, the first prefix token; ``patches``, all but the prefix tokens; ``foreground``, the patches whose
        part of the input is brighter on average than `threshold` (0 black, 1 white); ``mask``, those of whose part the
        image's mask covers a larger fraction than `threshold`.
    threshold
        See `tokens`.
    per_image
        At most this many of them, drawn at random; 0 for no limit.
    seed
        Decides the draw, together with the image's position in the store.

    Raises
    ------
    ConfigError
        If a setting cannot be meant.

    """

    tokens: Tokens = "all"
    threshold: float = 0.0
    per_image: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.tokens not in _KINDS:
            raise ConfigError(f"tokens is '{self.tokens}': it must be one of {', '.join(_KINDS)}")
        if not 0 <= self.threshold < 1:
            raise ConfigError(f"threshold is {self.threshold}: it must be at least 0 and below 1")
        for what in ("per_image", "seed"):
            if getattr(self, what) < 0:
                raise ConfigError(f"{what.replace('_', ' ')} is {getattr(self, what)}: it must be at least 0")

    @property
    def needs_places(self) -> bool:
        """Whether the choice looks at the image, cell by cell."""
        return self.tokens in {"foreground", "mask"}

    def to_json(self) -> dict[str, Any]:
        """Return the settings as plain JSON."""
        return {**asdict(self), "threshold": float(self.threshold)}

    def stored(self, site: Site) -> Site:
        """Return a site as the store describes it: with as many tokens as are stored of an image, at most.

        Raises
        ------
        SiteError
            If the site has no tokens of this kind.

        """
        kept = site
        if self.tokens == "cls":
            if site.prefix_tokens == 0:
                raise SiteError(f"site '{site.name}' has no class token: store all tokens, or patches")
            kept = replace(site, tokens=1, prefix_tokens=1, grid=None)
        elif self.tokens != "all":
            if self.needs_places and site.grid is None:
                raise SiteError(f"the tokens of site '{site.name}' have no place in the image: store all of them")
            if site.tokens == site.prefix_tokens:
                raise SiteError(f"site '{site.name}' has no patches: store all tokens, or cls")
            grid = None if self.needs_places else site.grid
            kept = replace(site, tokens=site.tokens - site.prefix_tokens, prefix_tokens=0, grid=grid)
        if self.per_image:
            kept = replace(kept, tokens=min(self.per_image, kept.tokens), prefix_tokens=0, grid=None)
        return kept

    def chosen(
        self, site: Site, positions: Sequence[int], shown: Float[NDArray[np.float64], "batch row *space"] | None = None
    ) -> Bool[NDArray[np.bool_], "batch token"]:
        """Return which tokens of a batch are stored.

        Parameters
        ----------
        site
            As the model describes it.
        positions
            Of the batch's images in the store.
        shown
            What the model is shown, or its mask, in 0..1 on the input's pixels; where the choice looks at it.

        """
        chosen = np.ones((len(positions), site.tokens), dtype=bool)
        if self.tokens == "cls":
            chosen[:, 1:] = False
        elif self.tokens != "all":
            chosen[:, : site.prefix_tokens] = False
        if self.needs_places:
            if shown is None or site.grid is None:
                raise SiteError(f"the tokens of site '{site.name}' have no place in the image: store all of them")
            chosen[:, site.prefix_tokens :] = cell_means(site.grid, shown) > self.threshold
        if self.per_image:
            for row, position in zip(chosen, positions, strict=True):
                there = np.flatnonzero(row)
                if len(there) > self.per_image:
                    draw = np.random.default_rng((self.seed, position)).permutation(len(there))
                    row[there[draw[self.per_image :]]] = False
        return chosen


def cell_means(
    grid: TokenGrid, shown: Float[NDArray[np.float64], "batch row *space"]
) -> Float[NDArray[np.float64], "batch cell"]:
    """Return the mean over every cell's tile, row-major; edges are rounded to pixels, what is outside is left out."""
    means = np.asarray(shown, dtype=np.float64)
    for axis, (n, stride, first) in enumerate(zip(grid.shape, grid.stride, grid.first_centre, strict=True), start=1):
        size = means.shape[axis]
        edges = np.clip(np.round(first + stride * (np.arange(n + 1) - 0.5)), 0, size).astype(int)
        total = np.cumsum(means, axis=axis)
        total = np.concatenate([np.zeros_like(total.take([0], axis=axis)), total], axis=axis)
        width = np.maximum(np.diff(edges), 1).reshape([-1 if a == axis else 1 for a in range(means.ndim)])
        means = (total.take(edges[1:], axis=axis) - total.take(edges[:-1], axis=axis)) / width
    return means.reshape(len(means), -1)


def brightness(
    x: Float[Tensor, "batch channel row *space"], contract: InputContract
) -> Float[NDArray[np.float64], "batch row *space"]:
    """Return what a model is shown as a grey level, 0 black to 1 white: the mean over channels, normalisation undone."""
    low, high = contract.value_range
    shape = (-1,) + (1,) * (x.dim() - 2)
    mean, std = (torch.tensor(v, dtype=torch.float64).reshape(shape) for v in (contract.mean, contract.std))
    grey: NDArray[np.float64] = (((x.double() * std + mean) - low) / (high - low)).mean(1).numpy()
    return grey
