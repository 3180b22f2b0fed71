"""Activations of regions and of single tokens: a mask, followed through the token grid, says which tokens count how much."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from mechinterp.errors import ConfigError, SiteError
from mechinterp.images.preparation import Preparation
from mechinterp.models.vision_model import InputContract
from mechinterp.progress import SILENT, Progress
from mechinterp.sites import Site
from mechinterp.store.reader import ActivationStore
from mechinterp.token_grid import Placement, TokenGrid

Mask = Float[NDArray[Any], "row column"]
MaskOf = Callable[[int], Mask]
"""From the position of an image to its mask: boolean, or the share of each pixel that is covered."""
_BLOCK = 64


@dataclass(frozen=True)
class TokenRows:
    """Single tokens as rows.

    Parameters
    ----------
    x
        Their activations.
    image, cell
        Which image each belongs to, and which cell of the site's grid it is.

    """

    x: Float[NDArray[np.float32], "row width"]
    image: Int[NDArray[np.int64], " row"]
    cell: Int[NDArray[np.int64], " row"]


def cell_coverage(mask: Mask, grid: TokenGrid, placement: Placement) -> Float[NDArray[np.float64], " cell"]:
    """Return the share of every cell's tile that a mask of the image covers.

    Parameters
    ----------
    mask
        Row × column of the image, boolean or 0 to 1.
    grid
        The site's cells in the model's input.
    placement
        From the input to the image.

    Returns
    -------
    NDArray
        0 to 1, row-major. Exact: the integral of the mask over the tile, which need not end at pixels, over the tile's
        area; beyond the image nothing is covered.

    """
    covered = np.asarray(mask, dtype=np.float64)
    total = np.zeros((covered.shape[0] + 1, covered.shape[1] + 1))
    total[1:, 1:] = covered.cumsum(0).cumsum(1)
    corners = placement.to_image(grid.tiles().reshape(-1, 2)).reshape(-1, 4)
    top, left, bottom, right = corners.T
    inside = (
        _integral(total, bottom, right) - _integral(total, top, right)
        - _integral(total, bottom, left) + _integral(total, top, left)
    )  # fmt: skip
    found: NDArray[np.float64] = inside / ((bottom - top) * (right - left))
    return found


def cell_areas_mm2(grid: TokenGrid, placement: Placement, spacing_mm: tuple[float, float]) -> float:
    """Return the area of one cell's tile on the image, in mm²."""
    rows, columns = np.asarray(grid.stride) * placement.scale * np.asarray(spacing_mm)
    return float(rows * columns)


def region_activations(
    store: ActivationStore,
    site: str,
    mask_of: MaskOf,
    *,
    spacing_mm: Sequence[tuple[float, float] | None] | None = None,
    images: Sequence[int] | NDArray[np.int64] | None = None,
    progress: Progress = SILENT,
) -> Float[NDArray[np.float64], "image width"]:
    """Pool a site's tokens over a region of each image, weighted by how much of each cell the region covers.

    Parameters
    ----------
    store, site
        Where the activations are; tokens without a place (CLS) take no part.
    mask_of
        The region in each image.
    spacing_mm
        Of each image, if it is known: decides how the image lies in the model's input.
    images
        Positions of the images; all by default.
    progress
        Counts the images.

    Returns
    -------
    NDArray
        NaN where the region is empty; :func:`~probes.linear.fit_probe` leaves such images out.

    Raises
    ------
    SiteError
        If the site's tokens have no place.

    """
    place = Places(store, site)
    chosen = np.arange(len(store.images)) if images is None else np.asarray(images, dtype=np.int64)
    out = np.full((len(chosen), place.site.width), np.nan)
    starts = range(0, len(chosen), _BLOCK)
    for start in progress.track(starts, f"pooling regions of {site}", total=len(starts)):
        block = chosen[start : start + _BLOCK]
        acts = store.read(site, block)[:, place.site.prefix_tokens :].numpy()
        for k, image in enumerate(block):
            weights = place.coverage(mask_of(int(image)), None if spacing_mm is None else spacing_mm[int(image)])
            if weights.sum() > 0:
                out[start + k] = weights @ acts[k] / weights.sum()
    return out


def token_areas(
    store: ActivationStore,
    site: str,
    mask_of: MaskOf,
    *,
    spacing_mm: Sequence[tuple[float, float] | None] | None = None,
    images: Sequence[int] | NDArray[np.int64] | None = None,
) -> tuple[Float[NDArray[np.float64], "image cell"], str]:
    """Return how much of a structure every token's tile holds, and the unit: mm², or ``1`` (a share) without spacing.

    Parameters are those of :func:`region_activations`.
    """
    place = Places(store, site)
    chosen = np.arange(len(store.images)) if images is None else np.asarray(images, dtype=np.int64)
    known = spacing_mm is not None and all(spacing_mm[int(i)] is not None for i in chosen)
    out = np.empty((len(chosen), place.grid.cells))
    for k, image in enumerate(chosen):
        spacing = spacing_mm[int(image)] if spacing_mm is not None else None
        mask = mask_of(int(image))
        out[k] = place.coverage(mask, spacing)
        if known and spacing is not None:
            out[k] *= cell_areas_mm2(place.grid, place.placement(mask, spacing), spacing)
    return out, "mm²" if known else "1"


def token_rows(
    store: ActivationStore,
    site: str,
    *,
    images: Sequence[int] | NDArray[np.int64] | None = None,
    per_image: int = 16,
    prefer: Float[NDArray[np.float64], "image cell"] | None = None,
    seed: int = 0,
) -> TokenRows:
    """Draw some tokens of each image, as rows of their own.

    Parameters
    ----------
    store, site
        Where the activations are; tokens without a place take no part.
    images
        Positions of the images; all by default.
    per_image
        How many tokens of each, without replacement.
    prefer
        Image × cell: half of the tokens are drawn where this is above 0, as far as there are any. Lesions are small: of
        tokens drawn evenly hardly one would hold any.
    seed
        Of the draws.

    """
    place = Places(store, site)
    chosen = np.arange(len(store.images)) if images is None else np.asarray(images, dtype=np.int64)
    if not 1 <= per_image <= place.grid.cells:
        raise ConfigError(f"per_image is {per_image}: site '{site}' has 1 to {place.grid.cells} tokens with a place")
    rng = np.random.default_rng(seed)
    cells = np.empty((len(chosen), per_image), dtype=np.int64)
    for k in range(len(chosen)):
        order = rng.permutation(place.grid.cells)
        if prefer is not None:
            holding, empty = order[prefer[k, order] > 0], order[prefer[k, order] <= 0]
            half = max(per_image // 2, per_image - len(empty))
            order = np.concatenate([holding[:half], empty, holding[half:]])
        cells[k] = np.sort(order[:per_image])
    rows = np.empty((len(chosen), per_image, place.site.width), dtype=np.float32)
    for start in range(0, len(chosen), _BLOCK):
        at = slice(start, start + _BLOCK)
        acts = store.read(site, chosen[at])[:, place.site.prefix_tokens :].numpy()
        rows[at] = np.take_along_axis(acts, cells[at][:, :, None], axis=1)
    return TokenRows(rows.reshape(-1, place.site.width), np.repeat(chosen, per_image), cells.reshape(-1))


class Places:
    """Where a store's tokens lie in its images.

    Parameters
    ----------
    store, site
        Whose tokens.

    Raises
    ------
    SiteError
        If they have no place.

    """

    def __init__(self, store: ActivationStore, site: str) -> None:
        self.site = _site(store, site)
        if self.site.grid is None:
            raise SiteError(f"the tokens of site '{site}' have no place in the image: choose a site with a grid")
        self.grid = self.site.grid
        raw = dict(store.manifest.model["contract"])
        lists = {name: tuple(value) for name, value in raw.items() if isinstance(value, list)}
        self._contract = InputContract(**{**raw, **lists})
        self._preparation = Preparation.from_json(store.manifest.preparation)

    def placement(self, mask: Mask, spacing_mm: tuple[float, float] | None) -> Placement:
        """Return where the model's input lies in an image as large as a mask."""
        shape = np.shape(mask)
        return self._preparation.placement((shape[0], shape[1]), spacing_mm, self._contract)

    def coverage(self, mask: Mask, spacing_mm: tuple[float, float] | None) -> Float[NDArray[np.float64], " cell"]:
        """Return the share of every tile that a mask covers."""
        return cell_coverage(mask, self.grid, self.placement(mask, spacing_mm))


def _site(store: ActivationStore, name: str) -> Site:
    store.width(name)  # says which sites there are, if it is none of them
    return store.manifest.sites[name]


def _integral(
    total: Float[NDArray[np.float64], "row column"], rows: NDArray[np.float64], columns: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the integral from the corner to points that may lie between pixels: bilinear, hence exact."""
    r = np.clip(rows, 0, total.shape[0] - 1)
    c = np.clip(columns, 0, total.shape[1] - 1)
    r0, c0 = np.floor(r).astype(int), np.floor(c).astype(int)
    r1, c1 = np.minimum(r0 + 1, total.shape[0] - 1), np.minimum(c0 + 1, total.shape[1] - 1)
    a, b = r - r0, c - c0
    found: NDArray[np.float64] = (
        (1 - a) * (1 - b) * total[r0, c0] + a * (1 - b) * total[r1, c0] + (1 - a) * b * total[r0, c1]
        + a * b * total[r1, c1]
    )  # fmt: skip
    return found
