"""``diff_models``: which features a checkpoint gained, lost or turned, for a model that goes on learning.

Features of two checkpoints are the same where they are each other's best match by correlation of their codes over the same
tokens of the same images: what a feature answers to identifies it, not its number. Of matched features the directions are
compared: one that answers to the same but writes elsewhere has turned.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray

from circuits.acting.bench import EditBench, Pictures
from mechinterp.errors import ConfigError, ShapeError
from mechinterp.feature_encoder import FeatureEncoder
from mechinterp.models.vision_model import VisionModel
from mechinterp.progress import SILENT, Progress

SAME, TURNED = 0.7, 0.7


@dataclass(frozen=True, eq=False)
class ModelDifference:
    """How the features of a later checkpoint relate to those of an earlier one.

    Parameters
    ----------
    pairs
        Earlier and later feature of every match.
    correlation
        Of the codes of every match.
    cosine
        Of its directions.
    lost
        Earlier features without a match.
    new
        Later features without one.
    silent
        How many features of either never vary: they are neither lost nor new.
    same, turned
        Least correlation of a match; cosine under which one has turned.
    by_chance
        Largest correlation of any two features when one checkpoint's images are shifted against the other's: how near
        features come that have nothing in common.

    """

    pairs: Int[NDArray[np.int64], "match 2"]
    correlation: Float[NDArray[np.float64], " match"]
    cosine: Float[NDArray[np.float64], " match"]
    lost: Int[NDArray[np.int64], " feature"]
    new: Int[NDArray[np.int64], " feature"]
    silent: tuple[int, int]
    same: float
    turned: float
    by_chance: float

    @property
    def rotated(self) -> Int[NDArray[np.int64], "match 2"]:
        """The matches whose direction turned."""
        found: NDArray[np.int64] = self.pairs[self.cosine < self.turned]
        return found

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return {
            "matched": len(self.pairs), "lost": self.lost.tolist(), "new": self.new.tolist(),
            "rotated": self.rotated.tolist(), "silent": list(self.silent), "same": self.same, "turned": self.turned,
            "by_chance": self.by_chance, "median_correlation": float(np.median(self.correlation)) if len(self.pairs) else None,
        }  # fmt: skip


def diff_models(
    earlier: tuple[VisionModel, FeatureEncoder],
    later: tuple[VisionModel, FeatureEncoder],
    images: Pictures,
    *,
    same: float = SAME,
    turned: float = TURNED,
    batch: int = 64,
    progress: Progress = SILENT,
) -> ModelDifference:
    """Compare the features of two checkpoints on the same images.

    Parameters
    ----------
    earlier, later
        A model and an encoder of one of its sites, each.
    images
        What both look at.
    same
        Least correlation of a match.
    turned
        Cosine of directions under which a matched feature has turned.
    batch
        Images at once; two at least.
    progress
        Told of every batch.

    Raises
    ------
    ConfigError
        If a threshold is not within 0 and 1, or batches are of one image.
    ShapeError
        If the two sites have other numbers of tokens or widths.

    """
    if not 0 < same <= 1 or not 0 < turned <= 1:
        raise ConfigError(f"same and turned are {same:g} and {turned:g}: correlations and cosines above 0, at most 1")
    if batch < 2:
        raise ConfigError(f"batch is {batch}: at least 2, since images are shifted against each other for the control")
    benches = [EditBench(model, encoder.site, batch) for model, encoder in (earlier, later)]
    matched, shifted = _Sums.nothing(), _Sums.nothing()
    both = zip(benches[0].batches(images, progress, "features of both"), benches[1].batches(images), strict=True)
    for (_, _, a), (_, _, b) in both:
        if a.shape[1:] != b.shape[1:]:
            raise ShapeError(
                f"the sites' activations have shapes {tuple(a.shape[1:])} and {tuple(b.shape[1:])}: compare the same site of both"
            )
        codes = earlier[1].encode(a).double(), later[1].encode(b).double()
        matched = matched.plus(*codes)
        if len(a) > 1:
            shifted = shifted.plus(codes[0], codes[1].roll(1, 0))
    rho = matched.correlations()
    alive = np.isfinite(rho).any(1), np.isfinite(rho).any(0)
    known = np.where(np.isfinite(rho), rho, -np.inf)
    best_of_a, best_of_b = known.argmax(1), known.argmax(0)
    rows = np.arange(len(known))
    mutual = rows[alive[0] & (best_of_b[best_of_a] == rows) & (known[rows, best_of_a] >= same)]
    pairs = np.stack([mutual, best_of_a[mutual]], axis=1).astype(np.int64)
    first = torch.nn.functional.normalize(earlier[1].directions.double(), dim=1)[pairs[:, 0]]
    second = torch.nn.functional.normalize(later[1].directions.double(), dim=1)[pairs[:, 1]]
    chance = shifted.correlations()
    return ModelDifference(
        pairs, known[pairs[:, 0], pairs[:, 1]], (first * second).sum(1).cpu().numpy(),
        np.setdiff1d(np.flatnonzero(alive[0]), pairs[:, 0]), np.setdiff1d(np.flatnonzero(alive[1]), pairs[:, 1]),
        (int((~alive[0]).sum()), int((~alive[1]).sum())), same, turned,
        float(np.nanmax(chance)) if np.isfinite(chance).any() else float("nan"),
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Sums:
    """What correlations of all pairs of columns are computed from, batch after batch."""

    n: int
    parts: tuple[torch.Tensor, ...]

    @classmethod
    def nothing(cls) -> _Sums:
        return cls(0, ())

    def plus(self, a: torch.Tensor, b: torch.Tensor) -> _Sums:
        a, b = a.flatten(0, 1), b.flatten(0, 1)
        own = a.sum(0), b.sum(0), a.square().sum(0), b.square().sum(0), a.T @ b
        return _Sums(
            self.n + len(a), own if not self.parts else tuple(p + q for p, q in zip(self.parts, own, strict=True))
        )

    def correlations(self) -> Float[NDArray[np.float64], "earlier later"]:
        """Return all pairs' correlations; NaN where a column does not vary."""
        if not self.parts:
            return np.full((1, 1), np.nan)
        a, b, aa, bb, ab = (p.cpu().numpy() for p in self.parts)
        spread = [np.maximum(s - m**2 / self.n, 0) for m, s in ((a, aa), (b, bb))]
        spread = [np.where(v > 1e-12 * np.maximum(s, 1e-300), v, np.nan) for v, s in zip(spread, (aa, bb), strict=True)]
        found: NDArray[np.float64] = (ab - np.outer(a, b) / self.n) / np.sqrt(np.outer(*spread))
        return found
