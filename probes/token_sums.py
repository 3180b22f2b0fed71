"""An area read off tokens and added up: how much of each token's tile a structure covers, summed over the image.

A pooled probe asks one vector of the whole image how large the lesions are. The area of an image is the sum over its
tiles, though, and each tile holds between nothing and all of its own: a token is asked for that share, by a direction
and a logistic curve, and the shares times the tiles' area are the answer in mm².
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.special import expit

from mechinterp.errors import AttributeTableError
from probes.folds import make_folds
from probes.share_regression import STRENGTHS, share_path

Values = NDArray[np.float64]
Tokens = Callable[[NDArray[np.int64]], Float[NDArray[np.float32], "image cell width"]]
"""Gives the activations of some images' tokens, by their positions."""

EMPTY_TOKENS = 24
"""Tokens without any of the structure that train, for each image; weighted to stand for all of them."""

_INNER, _BLOCK = 3, 64


@dataclass(frozen=True)
class TokenSum:
    """A probe of tokens whose answers add up to a quantity of the image.

    Parameters
    ----------
    weights, bias
        Structure × width, and one for each structure: the share of a tile is the logistic function of
        ``weights @ token + bias``.
    slope, intercept
        From the summed areas to the attribute, learned on images that the shares were not learned on.
    strength
        Inverse penalty that was chosen.

    """

    weights: Float[Values, "structure width"]
    bias: Float[Values, " structure"]
    slope: float
    intercept: float
    strength: float

    def shares(self, acts: Float[NDArray[Any], "image cell width"]) -> Float[Values, "image cell structure"]:
        """Return the share of every tile that each structure covers: a map of where the area lies."""
        found: Values = expit(np.asarray(acts, dtype=np.float64) @ self.weights.T + self.bias)
        return found

    def predict(
        self, acts: Float[NDArray[Any], "image cell width"], tile_area: Float[NDArray[Any], " image"] | float
    ) -> Float[Values, " image"]:
        """Return the attribute of images, never below 0.

        Parameters
        ----------
        acts
            Activations of all tokens with a place.
        tile_area
            Area of one tile on each image, in the attribute's unit.

        """
        found: Values = self.calibrated(self.shares(acts).sum((1, 2)) * tile_area)
        return found

    def read(self, tokens: Tokens, images: NDArray[np.int64], tile_area: Float[NDArray[Any], " image"]) -> Values:
        """Return the attribute of some images, a block of them at a time; `tile_area` is that of all images."""
        sums = summed_shares(tokens, images, np.column_stack([self.weights, self.bias])[None])[:, 0]
        return self.calibrated(sums * np.asarray(tile_area)[images])

    def calibrated(self, sums: Float[Values, " image"]) -> Float[Values, " image"]:
        """Return the attribute for summed areas; there is no area below 0."""
        found: Values = np.maximum(self.slope * sums + self.intercept, 0)
        return found


def learn_token_sum(
    tokens: Tokens,
    shares: Float[NDArray[Any], "image cell structure"],
    attribute: Float[NDArray[Any], " image"],
    tile_area: Float[NDArray[Any], " image"],
    *,
    groups: NDArray[Any],
    images: NDArray[np.int64] | None = None,
    strengths: tuple[float, ...] = STRENGTHS,
    seed: int = 0,
) -> TokenSum:
    """Learn shares token by token, and on patients left out of that the penalty and the line to the attribute.

    Parameters
    ----------
    tokens
        Gives the activations of some images.
    shares
        Of every tile that each structure covers, 0 to 1.
    attribute
        What the areas must add up to, of each image.
    tile_area
        Area of one tile on each image, in the attribute's unit.
    groups
        Patient of each image.
    images
        Positions of the images that train; all by default.
    strengths
        Inverse penalties to choose from.
    seed
        Of folds, and of the empty tokens drawn.

    Raises
    ------
    AttributeTableError
        If a structure covers nothing, or everything, on the images that train.

    """
    chosen = np.arange(len(attribute)) if images is None else np.asarray(images, dtype=np.int64)
    rows = _draw(tokens, shares, chosen, seed)
    inner = make_folds(len(chosen), _INNER, groups=groups[chosen], seed=seed)
    sums = np.empty((len(chosen), len(strengths)))
    for k in range(inner.n):
        train, held = (chosen[part] for part in inner.split(k))
        curves = _curves(rows, train, strengths)
        sums[inner.split(k)[1]] = summed_shares(tokens, held, curves) * tile_area[held, None]
    lines = [_line(column, attribute[chosen]) for column in sums.T]
    errors = [
        float(((np.maximum(a * s + b, 0) - attribute[chosen]) ** 2).sum())
        for s, (a, b) in zip(sums.T, lines, strict=True)
    ]
    best = int(np.argmin(errors))
    (curve,) = _curves(rows, chosen, strengths[best : best + 1])
    return TokenSum(curve[:, :-1], curve[:, -1], *lines[best], strengths[best])


@dataclass(frozen=True)
class _Rows:
    """Tokens that train: all that hold some of a structure, and some of the empty ones, weighted."""

    x: Float[Values, "row width"]
    shares: Float[Values, "row structure"]
    weight: Float[Values, " row"]
    image: NDArray[np.int64]


def _draw(tokens: Tokens, shares: NDArray[Any], images: NDArray[np.int64], seed: int) -> _Rows:
    x, of, weight, image = [], [], [], []
    for start in range(0, len(images), _BLOCK):
        block = images[start : start + _BLOCK]
        acts = tokens(block)
        for k, i in enumerate(block):
            # keyed by the image: who else trains does not change what is drawn of it
            rng = np.random.default_rng([seed, int(i)])
            holding = (shares[i] > 0).any(1)
            empty = np.flatnonzero(~holding)
            drawn = rng.choice(empty, min(EMPTY_TOKENS, len(empty)), replace=False)
            cells = np.concatenate([np.flatnonzero(holding), drawn])
            x.append(acts[k, cells])
            of.append(shares[i][cells])
            weight.append(np.repeat([1.0, len(empty) / max(len(drawn), 1)], [len(cells) - len(drawn), len(drawn)]))
            image.append(np.full(len(cells), i))
    parts = (np.concatenate(part) for part in (x, of, weight, image))
    rows, covered, counts, owners = parts
    return _Rows(rows.astype(np.float64), covered.astype(np.float64), counts, owners)


def _curves(
    rows: _Rows, images: NDArray[np.int64], strengths: tuple[float, ...]
) -> Float[Values, "strength structure width_and_one"]:
    at = np.isin(rows.image, images)
    x, weight = rows.x[at], rows.weight[at]
    found = []
    for share in rows.shares[at].T:
        if not (share > 0).any() or not (share < 1).any():
            raise AttributeTableError(
                f"a structure covers {'no tile' if not share.any() else 'every tile whole'} of {len(images)} images that "
                "train: there is nothing to tell apart"
            )
        found.append(share_path(x, share, weight, strengths))
    return np.stack(found, axis=1)


def summed_shares(
    tokens: Tokens, images: NDArray[np.int64], curves: Float[Values, "strength structure width_and_one"]
) -> Float[Values, "image strength"]:
    """Return the tiles' shares, added up over cells and structures, for each set of curves."""
    flat = curves.reshape(-1, curves.shape[-1])
    found = np.empty((len(images), len(curves)))
    for start in range(0, len(images), _BLOCK):
        acts = np.asarray(tokens(images[start : start + _BLOCK]), dtype=np.float64)
        by_curve = expit(acts @ flat[:, :-1].T + flat[:, -1]).sum(1)
        found[start : start + _BLOCK] = by_curve.reshape(len(acts), *curves.shape[:2]).sum(2)
    return found


def _line(x: Values, y: Values) -> tuple[float, float]:
    spread = float(((x - x.mean()) ** 2).sum())
    slope = float(((x - x.mean()) * (y - y.mean())).sum() / spread) if spread > 0 else 0.0
    return slope, float(y.mean() - slope * x.mean())
