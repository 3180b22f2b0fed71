"""Is a map faithful: what happens to the metric when the pixels it names are taken away, or are all that is left?

All numbers are changes of the metric itself (logits), so that no image counts more because its answer was near zero.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray

from circuits.localization.explained import Explained
from circuits.localization.localizing import maps_of
from circuits.localization.map_methods import MapMethod
from circuits.localization.maps import RelevanceMaps
from circuits.localization.shown_images import ShownImages
from mechinterp.errors import ImagesError
from mechinterp.progress import SILENT, Progress

SHARES: tuple[float, ...] = (0.0, 0.01, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0)
FEW: tuple[float, ...] = (0.01, 0.05, 0.1, 0.2, 0.5)
"""Shares of pixels of comprehensiveness and sufficiency."""


@dataclass(frozen=True, eq=False)
class RemovalScores:
    """Per image; all but sufficiency are better when larger.

    Parameters
    ----------
    deletion
        Mean fall of the metric while pixels give way to the reference image, most relevant first [1]_.
    insertion
        Mean rise over the reference image while pixels are put into it, most relevant first [1]_.
    comprehensiveness
        Fall without the most relevant 1, 5, 10, 20 and 50 % of pixels, averaged [2]_.
    sufficiency
        Fall when these pixels are all that is left, averaged [2]_: near zero or below is good.

    References
    ----------
    .. [1] Petsiuk et al. RISE. BMVC 2018.
    .. [2] DeYoung et al. ERASER. ACL 2020, section 4.

    """

    deletion: Float[NDArray[np.float64], " image"]
    insertion: Float[NDArray[np.float64], " image"]
    comprehensiveness: Float[NDArray[np.float64], " image"]
    sufficiency: Float[NDArray[np.float64], " image"]


def remove_pixels(explained: Explained, maps: RelevanceMaps, *, progress: Progress = SILENT) -> RemovalScores:
    """Take pixels away and put them in, in a map's order, in bounded memory.

    With ``explained.config.tile_mm`` whole square tiles go, in the order of their mean relevance [1]_. Single pixels that
    are taken away here and there leave a speckle that no image has, and may move an answer by that, either way; a tile
    takes away what lies in it.

    Parameters
    ----------
    explained
        The metric, the reference image, and the size of a tile.
    maps
        Whose order is followed; equal values in a fixed random order.
    progress
        Told of every image.

    Raises
    ------
    ImagesError
        If tiles have a size in millimetres and an image has no spacing.

    References
    ----------
    .. [1] Samek et al. Evaluating the visualization of what a deep neural network has learned. IEEE TNNLS 2017: tiles of
       9 × 9 pixels.

    """
    shown = maps.shown
    shares = np.asarray(SHARES)
    few = [SHARES.index(s) for s in FEW]
    found = np.full((4, len(maps)), np.nan)
    drawn = np.random.default_rng(explained.config.seed)
    for i in progress.track(range(len(maps)), f"removing pixels by {maps.method}", len(maps)):
        tile = _tiles(shown, i, explained.config.tile_mm)
        held = np.bincount(tile)
        values = np.bincount(tile, maps.values[i].ravel()) / held
        # whatever ties there are must not be broken by the place in the image
        order = np.lexsort((drawn.random(len(values)), -values))
        rank = np.empty(len(values))
        rank[order] = (np.cumsum(held[order]) - held[order] / 2) / len(tile)
        first = torch.from_numpy(rank[tile].reshape(1, 1, *maps.values[i].shape)).to(shown.x)
        taken = first < torch.from_numpy(shares).to(shown.x)[:, None, None, None]
        x = shown.x[i : i + 1]
        absent = explained.absent(x)
        rows = torch.cat([torch.where(taken, absent, x), torch.where(taken, x, absent)])
        metric = explained.values(rows, shown.numbers[i : i + 1].expand(len(rows))).double().cpu().numpy()
        deleted, inserted = metric[: len(shares)], metric[len(shares) :]
        found[0, i] = np.trapezoid(deleted[0] - deleted, shares)
        found[1, i] = np.trapezoid(inserted - inserted[0], shares)
        found[2, i] = (deleted[0] - deleted[few]).mean()
        found[3, i] = (deleted[0] - inserted[few]).mean()
    return RemovalScores(*found)


def _tiles(shown: ShownImages, i: int, side_mm: float | None) -> Int[NDArray[np.int64], " pixel"]:
    """Return the tile of every pixel of an input, numbered from 0; each pixel its own where tiles have no size."""
    rows, columns = shown.x.shape[2:]
    if side_mm is None:
        return np.arange(rows * columns)
    spacing = shown.spacing_mm[i]
    if spacing is None:
        raise ImagesError(
            f"image '{shown.ids[i]}' has no spacing: tiles of {side_mm:g} mm cannot be cut; leave tile_mm out"
        )
    down, across = (
        # a pixel's middle decides; where a tile is smaller than a pixel, every pixel is one
        np.unique(np.floor((np.arange(n) + 0.5) * scale * mm / side_mm), return_inverse=True)[1]
        for n, scale, mm in zip((rows, columns), shown.placements[i].scale, spacing, strict=True)
    )
    found: NDArray[np.int64] = (down[:, None] * (across.max() + 1) + across).ravel()
    return found


def infidelity_of(
    explained: Explained, maps: RelevanceMaps, *, squares: int = 24
) -> Float[NDArray[np.float64], " image"]:
    """Return captum's infidelity [1]_: how badly a map predicts what taking squares away does, scaled to fit best.

    Parameters
    ----------
    explained
        The metric, and the reference image.
    maps
        A map's sum over a square is its prediction.
    squares
        How many random squares, of a quarter of the input's side, are taken away in turn.

    Returns
    -------
    ndarray
        Per image, as a share of the mean squared change: 0 is perfect, 1 is no better than predicting nothing.

    References
    ----------
    .. [1] Yeh et al. On the (in)fidelity and sensitivity of explanations. NeurIPS 2019.

    """
    from captum.metrics import infidelity

    shown = maps.shown
    rows, columns = shown.x.shape[2:]
    side = max(1, rows // 4)
    drawn = np.random.default_rng(explained.config.seed)
    found = np.full(len(maps), np.nan)
    for i in range(len(maps)):
        x, number = shown.x[i : i + 1], shown.numbers[i : i + 1]
        top = drawn.integers(0, rows - side + 1, squares)
        left = drawn.integers(0, columns - side + 1, squares)
        inside = np.zeros((squares, 1, rows, columns), dtype=np.float32)
        for k in range(squares):
            inside[k, :, top[k] : top[k] + side, left[k] : left[k] + side] = 1
        taken = torch.from_numpy(inside).to(x).expand(-1, x.shape[1], -1, -1)
        absent = explained.absent(x)
        changed = torch.where(taken > 0, absent, x)
        relevance = torch.from_numpy(maps.values[i]).to(x).expand_as(x) / x.shape[1]
        error = infidelity(
            explained.value,
            # each square is handed over once, in the order in which captum asks
            _Handing(taken, changed),
            x,
            relevance,
            additional_forward_args=(number,),
            n_perturb_samples=squares,
            max_examples_per_batch=min(squares, explained.config.rows),
            normalize=True,
        )
        repeated = number.expand(squares)
        fall = explained.values(x, number) - explained.values(changed, repeated)
        scale = float(fall.double().square().mean())
        found[i] = float(error) / scale if scale > 0 else np.nan
    return found


class _Handing:
    """Hands captum the squares in turn."""

    def __init__(self, taken: torch.Tensor, changed: torch.Tensor) -> None:
        self._taken, self._changed, self._at = taken, changed, 0

    def __call__(self, inputs: torch.Tensor, *_: object) -> tuple[torch.Tensor, torch.Tensor]:
        part = slice(self._at, self._at + len(inputs))
        self._at += len(inputs)
        return self._taken[part], self._changed[part]


def sensitivity_of(
    explained: Explained, method: MapMethod, maps: RelevanceMaps, *, radius: float = 0.02, draws: int = 4
) -> Float[NDArray[np.float64], " image"]:
    """Return captum's maximal sensitivity [1]_: by how much a map changes, at most, when pixels do a little.

    Parameters
    ----------
    explained, method
        What is explained, and how.
    maps
        Whose images are changed.
    radius
        Largest change of a pixel, in the input's (standardised) units.
    draws
        How many changes are tried.

    Returns
    -------
    ndarray
        Per image, as a share of the map's norm; NaN where the map is zero.

    References
    ----------
    .. [1] Yeh et al. On the (in)fidelity and sensitivity of explanations. NeurIPS 2019.

    """
    from captum.metrics import sensitivity_max

    shown = maps.shown

    def explain(inputs: tuple[torch.Tensor, ...], numbers: torch.Tensor) -> tuple[torch.Tensor, ...]:
        (x,) = inputs
        # captum repeats the image, not its number
        return (torch.from_numpy(maps_of(explained, method, x, numbers.expand(len(x)))).to(x),)

    found = np.full(len(maps), np.nan)
    for i in range(len(maps)):
        if not maps.values[i].any():
            continue
        with torch.random.fork_rng():
            torch.manual_seed(explained.config.seed)
            worst = sensitivity_max(
                explain, shown.x[i : i + 1], perturb_radius=radius, n_perturb_samples=draws,
                max_examples_per_batch=draws, numbers=shown.numbers[i : i + 1],
            )  # fmt: skip
        found[i] = float(worst)
    return found
