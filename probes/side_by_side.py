"""Tokens of several sites side by side, on the tiles of one of them.

A network that saturates in its last stages still holds in its first ones how much of a tile a small structure covers; the
last ones know what it is. Read together, each token of the coarser site carries what the finer ones hold on its tile.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from mechinterp.errors import ConfigError, ShapeError
from mechinterp.store.reader import ActivationStore
from mechinterp.token_grid import TokenGrid
from probes.token_sums import Tokens


def tile_overlaps(of: TokenGrid, onto: TokenGrid) -> Float[NDArray[np.float32], "onto cell"]:
    """Return which share of every tile of one grid each tile of another covers.

    Parameters
    ----------
    of, onto
        Two grids in the same input.

    Returns
    -------
    NDArray
        Rows add up to 1: a finer grid's tiles are averaged, a coarser one's are repeated. Where a grid does not reach,
        the tile nearest to it stands in.

    Raises
    ------
    ShapeError
        If one is a volume's and the other an image's.

    """
    if len(of.shape) != len(onto.shape):
        raise ShapeError(f"grids of {len(of.shape)} and {len(onto.shape)} axes do not lie in one input: take two alike")
    found: NDArray[np.float64] = np.ones((1, 1))
    for axis in range(len(of.shape)):
        found = np.asarray(np.kron(found, _along(of, onto, axis)), dtype=np.float64)
    shares: NDArray[np.float32] = found.astype(np.float32)
    return shares


def side_by_side(store: ActivationStore, sites: Sequence[str], images: NDArray[np.int64]) -> Tokens:
    """Return what gives the activations of several sites, on the tiles of the last one.

    Parameters
    ----------
    store
        Holds the sites.
    sites
        Whose tokens have a place; their widths add up.
    images
        Positions in the store that the positions asked for later stand for.

    Raises
    ------
    ConfigError
        If no site is named, or the tokens of one have no place.

    """
    if not sites:
        raise ConfigError("no site is named whose tokens should lie side by side: give at least one")
    grids = []
    for site in sites:
        grid = store.manifest.sites[site].grid
        if grid is None:
            raise ConfigError(f"the tokens of site '{site}' have no place in the image: they cannot lie beside others")
        grids.append(grid)
    onto = grids[-1]
    placed = [None if grid == onto else tile_overlaps(grid, onto) for grid in grids]
    prefixes = [store.manifest.sites[site].prefix_tokens for site in sites]

    def read(positions: NDArray[np.int64]) -> Float[NDArray[np.float32], "image cell width"]:
        parts = []
        for site, shares, prefix in zip(sites, placed, prefixes, strict=True):
            acts = store.read(site, images[positions])[:, prefix:].float().numpy()
            parts.append(acts if shares is None else np.einsum("oc,ncw->now", shares, acts, optimize=True))
        return np.concatenate(parts, axis=2)

    return read


def _along(of: TokenGrid, onto: TokenGrid, axis: int) -> NDArray[np.float64]:
    low, high = _edges(of, axis)
    wanted_low, wanted_high = _edges(onto, axis)
    shared = np.minimum(high, wanted_high[:, None]) - np.maximum(low, wanted_low[:, None])
    shared = np.maximum(shared, 0)
    beyond = shared.sum(1) == 0
    middle = (wanted_low + wanted_high) / 2
    shared[beyond, np.abs((low + high) / 2 - middle[beyond, None]).argmin(1)] = 1
    shares: NDArray[np.float64] = shared / shared.sum(1, keepdims=True)
    return shares


def _edges(grid: TokenGrid, axis: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    centres = grid.first_centre[axis] + grid.stride[axis] * np.arange(grid.shape[axis], dtype=np.float64)
    half = grid.stride[axis] / 2
    low: NDArray[np.float64] = centres - half
    high: NDArray[np.float64] = centres + half
    return low, high
