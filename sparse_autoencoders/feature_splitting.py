"""Feature splitting: what becomes of a small dictionary's features in a larger one of the same site."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray

from mechinterp.errors import ConfigError, ShapeError
from mechinterp.feature_encoder import FeatureEncoder

RELATED_ABOVE = 0.7


@dataclass(frozen=True, eq=False)
class Splitting:
    """A larger dictionary's features, each given to the feature of the smaller one that it resembles most.

    Parameters
    ----------
    small, large
        Widths.
    parent
        For each feature of the larger, the most similar one of the smaller.
    cosine
        Of the two directions.
    least
        Cosine above which it counts as a child; below, it is new.

    """

    small: int
    large: int
    parent: Int[NDArray[np.int64], " large"]
    cosine: Float[NDArray[np.float64], " large"]
    least: float

    @property
    def children(self) -> Int[NDArray[np.int64], " small"]:
        """Number of children of each feature of the smaller dictionary."""
        found: NDArray[np.int64] = np.bincount(self.parent[self.cosine > self.least], minlength=self.small)
        return found

    @property
    def split(self) -> float:
        """Share of the smaller dictionary's features that have more than one child."""
        return float((self.children > 1).mean())

    @property
    def kept(self) -> float:
        """Share that have exactly one."""
        return float((self.children == 1).mean())

    @property
    def lost(self) -> float:
        """Share that have none."""
        return float((self.children == 0).mean())

    @property
    def novel(self) -> float:
        """Share of the larger dictionary's features that resemble none of the smaller's."""
        return float((self.cosine <= self.least).mean())

    def to_json(self) -> dict[str, Any]:
        """Return the shares as plain JSON."""
        names = ("small", "large", "split", "kept", "lost", "novel", "least")
        return {name: getattr(self, name) for name in names}


def feature_splitting(encoders: Sequence[FeatureEncoder], *, least: float = RELATED_ABOVE) -> tuple[Splitting, ...]:
    """Compare each dictionary with the next wider one.

    Parameters
    ----------
    encoders
        Of one site, of different widths, in any order; live features only if the dead ones are to be left out.
    least
        Cosine of two directions above which the wider dictionary's feature is a child of the narrower one's.

    Returns
    -------
    tuple of Splitting
        From narrow to wide, one fewer than there are encoders.

    Raises
    ------
    ConfigError
        If there are fewer than two, or two of one width.
    ShapeError
        If they read sites of different widths.

    References
    ----------
    Bricken et al. Towards monosemanticity. Transformer Circuits Thread, 2023: feature splitting. Leask et al. Sparse autoencoders
    do not find canonical units of analysis. ICLR 2025: reconstruction and novel latents.

    """
    ordered = sorted(encoders, key=lambda encoder: encoder.width)
    widths = [encoder.width for encoder in ordered]
    if len(widths) < 2 or len(set(widths)) < len(widths):
        raise ConfigError(f"splitting wants dictionaries of at least two different widths: these have {widths}")
    if len({encoder.d_in for encoder in ordered}) > 1:
        raise ShapeError(f"dictionaries of sites {sorted({e.d_in for e in ordered})} wide: give those of one site")
    found = []
    for small, large in itertools.pairwise(ordered):
        similarity = _unit(large) @ _unit(small).T
        cosine, parent = similarity.max(1)
        found.append(Splitting(small.width, large.width, parent.numpy(), cosine.double().numpy(), least))
    return tuple(found)


def _unit(encoder: FeatureEncoder) -> torch.Tensor:
    return torch.nn.functional.normalize(encoder.directions.detach().cpu().float(), dim=1)
