"""Random sets of features that remove as much as a chosen set: the control of a set experiment.

Most units of a deep map are silent, so a uniformly random set removes next to nothing and proves nothing. Here a control has
the size of the chosen set *and* removes the same norm, within a tolerance.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from mechinterp.errors import ConfigError


@dataclass(frozen=True, eq=False)
class MatchedSets:
    """Random sets and what they remove.

    Parameters
    ----------
    sets
        Positions of the features.
    norms
        What each set removes.
    target
        What it should remove.

    """

    sets: Int[NDArray[np.int64], "set member"]
    norms: Float[NDArray[np.float64], " set"]
    target: float

    @property
    def ratio(self) -> float:
        """Median norm removed, divided by the target: 1 when matched; 1 too when there is nothing to remove."""
        return float(np.median(self.norms) / self.target) if self.target > 0 else 1.0

    @property
    def distinct(self) -> int:
        """How many different sets there are: few when hardly any set of this size removes as much."""
        return len(np.unique(np.sort(self.sets, axis=1), axis=0))


def norm_gram(
    change_fr: Float[Tensor, "feature row"], directions: Float[Tensor, "feature width"], images: int
) -> Float[NDArray[np.float64], "feature feature"]:
    r"""Return the matrix that gives the norm removed by any set of features.

    A set :math:`S` changes an image's activation by :math:`\sum_{f \in S} c_f d_f^\top`, whose squared Frobenius norm is
    :math:`1_S^\top K 1_S` with :math:`K_{fg} = (c_f \cdot c_g)(d_f \cdot d_g)`. This is its mean over the images, so that
    ``sqrt(1ᵀK1)`` is the root mean square over images of the norm removed.

    Parameters
    ----------
    change_fr
        Change of every feature's code at all tokens of all images, one row per feature.
    directions
        What one unit of each feature adds.
    images
        How many images the rows belong to.

    """
    gram = (change_fr @ change_fr.T).double() * (directions @ directions.T).double() / images
    result: NDArray[np.float64] = gram.cpu().numpy()
    return result


def set_norm(gram: Float[NDArray[np.float64], "feature feature"], members: NDArray[np.int64]) -> float:
    """Return the norm removed by one set, see :func:`norm_gram`."""
    return float(np.sqrt(max(gram[np.ix_(members, members)].sum(), 0.0)))


def matched_sets(
    gram: Float[NDArray[np.float64], "feature feature"],
    size: int,
    norm: float,
    *,
    n_sets: int = 200,
    seed: int = 0,
    tolerance: float = 0.05,
    sweeps: int = 3,
) -> MatchedSets:
    """Draw random sets of one size that remove about the same norm.

    Each set is a Markov chain of its own, started at a uniformly random set. A step takes out a random member and puts in one
    drawn uniformly from all features that bring the norm within the tolerance, the one taken out among them; if there are
    none, the one that comes nearest. Once within the tolerance this is a Gibbs sampler, whose stationary distribution is
    uniform over all sets within it. The chosen set itself is such a set: if few others remove as much, the controls
    resemble it, and a p-value against them is large, as it should be.

    Parameters
    ----------
    gram
        From :func:`norm_gram`.
    size
        Members of a set.
    norm
        What a set should remove.
    n_sets
        How many sets.
    seed
        The same seed gives the same sets.
    tolerance
        Relative deviation of the norm that counts as matched.
    sweeps
        How often each member is exchanged on average.

    Raises
    ------
    ConfigError
        If there are fewer features than members.

    """
    features = len(gram)
    if not 1 <= size <= features:
        raise ConfigError(f"a set of {size} cannot be drawn from {features} features: choose a smaller size")
    rng = np.random.default_rng([seed, size])
    sets = np.argsort(rng.random((n_sets, features)), axis=1)[:, :size].astype(np.int64)
    diagonal, rows = gram.diagonal(), np.arange(n_sets)
    # sums[s, f]: what feature f has in common with the members of set s
    sums = np.stack([gram[members].sum(0) for members in sets])
    inside = np.zeros((n_sets, features), dtype=bool)
    inside[rows[:, None], sets] = True
    squared = sums[rows[:, None], sets].sum(1)
    goal = max(norm, np.finfo(np.float64).tiny)
    for _ in range(max(sweeps * size, 4) if size < features else 0):
        place = rng.integers(size, size=n_sets)
        out = sets[rows, place]
        squared = squared - 2 * sums[rows, out] + diagonal[out]
        sums -= gram[out]
        inside[rows, out] = False
        candidate = squared[:, None] + 2 * sums + diagonal
        off = np.abs(np.sqrt(np.maximum(candidate, 0)) / goal - 1)
        key = np.where(off <= tolerance, rng.random((n_sets, features), dtype=np.float32), -off)
        key[inside] = -np.inf
        new = key.argmax(1)
        squared = candidate[rows, new]
        sums += gram[new]
        inside[rows, new] = True
        sets[rows, place] = new
    norms = np.asarray([set_norm(gram, members) for members in sets])
    return MatchedSets(sets, norms, norm)


def as_tensor(sets: NDArray[np.int64], like: Tensor) -> Tensor:
    """Return positions as an index on the same device."""
    return torch.from_numpy(sets).to(like.device)
