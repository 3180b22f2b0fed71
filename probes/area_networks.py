"""Areas summed over tokens by a curve with a bend: a few hidden units a token, taught the tiles' shares and the image's area.

A token of several stages side by side holds how much of its tile a structure covers, but not along one direction: what a
channel of an early stage says depends on what the last one calls the tile. A few hidden units can ask for both. Such a
reader is stronger than a linear one, and so are its controls, which are read by the same: it shows what can be read off a
network, not that one direction holds it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.special import expit
from torch import Tensor, nn
from torch.nn import functional

from mechinterp.errors import AttributeTableError, ConfigError, ShapeError
from probes.token_sums import Tokens

Values = NDArray[np.float64]

HIDDEN = 24
AREA_WEIGHT = 2.5
"""What an error as large as the areas' variance costs, in nats an image; the likelihood of the shares is the rest."""

_BLOCK, _BATCH, _EPOCHS, _FEWEST_STEPS = 64, 32, 12, 600
_RATE, _DECAY, _STEEPEST, _RARE = 5e-3, 0.02, 5.0, -4.0


@dataclass(frozen=True)
class AreaNetwork:
    """A probe of tokens with one hidden layer, whose answers add up to a quantity of the image.

    Parameters
    ----------
    weights, bias
        Hidden unit × width, and one for each: a unit is what is positive of ``weights @ token + bias``.
    out, out_bias
        Structure × hidden unit, and one for each: the share of a tile is the logistic function of ``out @ units +
        out_bias``.

    """

    weights: Float[Values, "hidden width"]
    bias: Float[Values, " hidden"]
    out: Float[Values, "structure hidden"]
    out_bias: Float[Values, " structure"]

    def shares(self, acts: Float[NDArray[Any], "image cell width"]) -> Float[Values, "image cell structure"]:
        """Return the share of every tile that each structure covers: a map of where the area lies."""
        units = np.maximum(np.asarray(acts, dtype=np.float64) @ self.weights.T + self.bias, 0)
        found: Values = expit(units @ self.out.T + self.out_bias)
        return found

    def read(self, tokens: Tokens, images: NDArray[np.int64], tile_area: Float[NDArray[Any], " image"]) -> Values:
        """Return the area in some images, a block of them at a time; `tile_area` is that of all images."""
        blocks = [images[start : start + _BLOCK] for start in range(0, len(images), _BLOCK)]
        sums = np.concatenate([self.shares(tokens(block)).sum((1, 2)) for block in blocks])
        return sums * np.asarray(tile_area, dtype=np.float64)[images]


def learn_area_network(
    tokens: Tokens,
    shares: Float[NDArray[Any], "image cell structure"],
    attribute: Float[NDArray[Any], " image"],
    tile_area: Float[NDArray[Any], " image"],
    *,
    images: NDArray[np.int64] | None = None,
    hidden: int = HIDDEN,
    area_weight: float = AREA_WEIGHT,
    seed: int = 0,
) -> AreaNetwork:
    r"""Learn shares of tiles and what they add up to, by AdamW over images in an order that the seed decides.

    The loss of an image is :math:`\sum_t \ell(y_t, s_t) + \lambda (A - m \sum_t s_t)^2 / \mathrm{var}(A)`: the
    quasi-likelihood of every tile's share [1]_ and the squared error of the area, :math:`m` being a tile's.

    Parameters
    ----------
    tokens
        Gives the activations of some images. All tokens of the images that train are held in memory at once.
    shares
        Of every tile that each structure covers, 0 to 1.
    attribute
        What the areas must add up to, of each image.
    tile_area
        Area of one tile on each image, in the attribute's unit.
    images
        Positions of the images that train; all by default.
    hidden
        Number of hidden units.
    area_weight
        :math:`\lambda`; with 0 the shares alone are learned.
    seed
        Of the first weights and of the order.

    Raises
    ------
    AttributeTableError
        If a structure covers nothing, or the attribute does not vary, on the images that train.
    ShapeError
        If lengths differ.
    ConfigError
        If there is no hidden unit.

    References
    ----------
    .. [1] Papke, Wooldridge. Econometric methods for fractional response variables. Journal of Applied Econometrics 11,
       1996.

    """
    if not len(shares) == len(attribute) == len(tile_area):
        raise ShapeError(
            f"there are shares of {len(shares)} images, {len(attribute)} areas and {len(tile_area)} tile areas: one each"
        )
    if hidden < 1:
        raise ConfigError(f"hidden is {hidden}: it needs a unit at least; learn_token_sum is linear")
    chosen = np.arange(len(attribute)) if images is None else np.asarray(images, dtype=np.int64)
    area = np.asarray(attribute, dtype=np.float64)[chosen]
    wanted = np.asarray(shares, dtype=np.float32)[chosen]
    if not (wanted > 0).any((0, 1)).all():
        raise AttributeTableError(
            f"a structure covers no tile of {len(chosen)} images that train: there is nothing to learn"
        )
    if not np.ptp(area) > 0:
        raise AttributeTableError(f"the area is {area[0]:g} on every image that trains: there is nothing to learn")
    x = np.concatenate([tokens(chosen[start : start + _BLOCK]) for start in range(0, len(chosen), _BLOCK)])
    mean, scale = x.mean((0, 1), dtype=np.float64), x.std((0, 1), dtype=np.float64)
    scale = np.where(scale > 1e-12 * np.maximum(np.abs(mean), 1), scale, np.inf)  # what does not vary is left out
    x -= mean.astype(np.float32)
    x /= scale.astype(np.float32)
    tile = np.asarray(tile_area, dtype=np.float64)[chosen]
    first, last = _trained(
        torch.from_numpy(x).float(), torch.from_numpy(wanted), torch.from_numpy(area).float(),
        torch.from_numpy(tile).float(), hidden, area_weight / float(area.var()), seed,
    )  # fmt: skip
    w, b, out, out_bias = (p.detach().double().numpy() for p in (first.weight, first.bias, last.weight, last.bias))
    unscaled = w / scale
    return AreaNetwork(unscaled, b - unscaled @ mean, out, out_bias)


def _trained(
    x: Float[Tensor, "image cell width"],
    wanted: Float[Tensor, "image cell structure"],
    area: Float[Tensor, " image"],
    tile: Float[Tensor, " image"],
    hidden: int,
    area_weight: float,
    seed: int,
) -> tuple[nn.Linear, nn.Linear]:
    with _one_thread(), torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(seed)
        first, last = nn.Linear(x.shape[2], hidden), nn.Linear(hidden, wanted.shape[2])
        nn.init.constant_(last.bias, _RARE)
        parameters = [*first.parameters(), *last.parameters()]
        optimiser = torch.optim.AdamW(parameters, lr=_RATE, weight_decay=_DECAY)
        size = min(_BATCH, len(x))
        of_epoch = len(x) // size
        epochs = max(_EPOCHS, math.ceil(_FEWEST_STEPS / of_epoch))  # few images are passed over more often
        steps = epochs * of_epoch
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, _RATE, total_steps=steps, pct_start=0.15)
        for _ in range(epochs):
            order = torch.randperm(len(x))
            for start in range(0, of_epoch * size, size):
                batch = order[start : start + size]
                logits = last(first(x[batch]).relu())
                likelihood = functional.binary_cross_entropy_with_logits(logits, wanted[batch], reduction="sum")
                error = tile[batch] * logits.sigmoid().sum((1, 2)) - area[batch]
                optimiser.zero_grad(set_to_none=True)
                (likelihood / size + area_weight * error.square().mean()).backward()
                nn.utils.clip_grad_norm_(parameters, _STEEPEST)
                optimiser.step()
                schedule.step()
    return first, last


@contextmanager
def _one_thread() -> Iterator[None]:
    """Pin the threads, which bits depend on: products this small gain nothing by several."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
