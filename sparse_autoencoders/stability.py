"""Which features come back when an SAE is trained from another seed.

Only about a third of an SAE's latents recur across seeds (arXiv 2501.16615), so a feature is shown with "recurs in n of m".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from mechinterp.errors import ConfigError, ShapeError
from mechinterp.feature_encoder import FeatureEncoder

RECURS_ABOVE = 0.7


@dataclass(frozen=True, eq=False)
class Stability:
    """One SAE's features among those of other seeds.

    Parameters
    ----------
    partner
        Per feature and other SAE, the feature matched with it one to one (Hungarian); -1 where that SAE is smaller and none is left.
    cosine
        Of the two directions; 0 where there is no partner.
    least
        Cosine above which a feature counts as recurring.

    """

    partner: Int[NDArray[np.int64], "feature other"]
    cosine: Float[NDArray[np.float64], "feature other"]
    least: float

    @property
    def recurs_in(self) -> Int[NDArray[np.int64], " feature"]:
        """In how many of the others each feature recurs."""
        recurring: NDArray[np.int64] = (self.cosine > self.least).sum(axis=1)
        return recurring

    @property
    def others(self) -> int:
        """How many others there are."""
        return int(self.cosine.shape[1])


def stability(sae: FeatureEncoder, others: Sequence[FeatureEncoder], *, least: float = RECURS_ABOVE) -> Stability:
    """Match an SAE's features with those of others, one to one by the cosine of their directions.

    Parameters
    ----------
    sae
        Whose features are asked about.
    others
        Trained on the same site from other seeds.
    least
        Cosine above which a feature recurs.

    Raises
    ------
    ConfigError
        If there is no other.
    ShapeError
        If one reads a site of another width.

    """
    if not others:
        raise ConfigError("stability wants SAEs of at least two seeds: train with seeds=(0, 1, 2)")
    mine = torch.nn.functional.normalize(sae.directions, dim=1)
    partners, cosines = [], []
    for other in others:
        if other.d_in != sae.d_in:
            raise ShapeError(f"an SAE of site '{other.site}' is {other.d_in} wide, that of '{sae.site}' {sae.d_in}")
        cosine = (mine @ torch.nn.functional.normalize(other.directions, dim=1).T).double().numpy()
        rows, columns = linear_sum_assignment(-cosine)
        partner, matched = np.full(len(mine), -1), np.zeros(len(mine))
        partner[rows], matched[rows] = columns, cosine[rows, columns]
        partners.append(partner)
        cosines.append(matched)
    return Stability(np.stack(partners, axis=1), np.stack(cosines, axis=1), least)
