"""Random sets of features that remove as much as a chosen set: the control of a set experiment.

Most units of a deep map are silent, so a uniformly random set removes next to nothing and proves nothing. Here a control has
the size of the chosen set and removes the same norm.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from mechinterp.errors import ConfigError

# relative deviations of the norm that are tried in turn where hardly any other set removes as much
_WIDER = (0.1, 0.25, 0.5, 1.0, 3.0, 9.0, float("inf"))


@dataclass(frozen=True, eq=False)
class MatchedSets:
    """Random sets and what they remove.

    Parameters
    ----------
    sets
        Positions of the features.
    norms
        What each set removes, after scaling.
    target
        What it should remove.
    scales
        What each set's change is multiplied with: 1 where sets were found that remove the norm as they are.

    """

    sets: Int[NDArray[np.int64], "set member"]
    norms: Float[NDArray[np.float64], " set"]
    target: float
    scales: Float[NDArray[np.float64], " set"]

    @property
    def distinct(self) -> int:
        """How many different sets there are."""
        return len(np.unique(np.sort(self.sets, axis=1), axis=0))

    def within(self, tolerance: float) -> float:
        """Return the share of sets whose norm deviates from the target by at most this factor, ``1 + tolerance``."""
        return float((_deviation(self.norms, self.target) <= np.log1p(tolerance) + 1e-9).mean())

    def serves(self, tolerance: float) -> bool:
        """Say whether nine in ten sets are matched, and half of them different."""
        return self.within(tolerance) >= 0.9 and 2 * self.distinct >= len(self.sets)


def _deviation(norms: NDArray[np.float64], target: float) -> NDArray[np.float64]:
    tiny = np.finfo(np.float64).tiny
    result: NDArray[np.float64] = np.abs(np.log(np.maximum(norms, tiny)) - np.log(max(target, tiny)))
    return result


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


def matched_controls(
    gram: Float[NDArray[np.float64], "feature feature"],
    members: Int[NDArray[np.int64], " member"],
    *,
    n_sets: int = 200,
    seed: int = 0,
    tolerance: float = 0.05,
) -> MatchedSets:
    """Draw random sets of the size of a chosen set that remove the same norm.

    Where enough such sets exist, they are drawn from all features, the chosen ones among them: under the null hypothesis that
    the chosen set is one of them, a p-value against them is exact. A few features that stand out in norm are matched by no
    other few, and the sets drawn would be copies of the chosen one. Then sets are drawn from the *other* features, as near in
    norm as half of them can be and still be different, and their change is scaled to the norm.

    Parameters
    ----------
    gram
        From :func:`norm_gram`.
    members
        The chosen set.
    n_sets
        How many sets.
    seed
        The same seed gives the same sets.
    tolerance
        Relative deviation of the norm that counts as matched.

    """
    norm, size = set_norm(gram, members), len(members)
    found = matched_sets(gram, size, norm, n_sets=n_sets, seed=seed, tolerance=tolerance)
    overlap = np.isin(found.sets, members).mean()
    others = np.setdiff1d(np.flatnonzero(gram.diagonal() > 0), members)
    if (found.serves(tolerance) and overlap <= 0.5) or size > len(others) or norm <= 0:
        return found
    rest = gram[np.ix_(others, others)]
    for wider in _WIDER:
        found = matched_sets(rest, size, norm, n_sets=n_sets, seed=seed, tolerance=wider)
        if found.serves(wider):
            break
    scales = norm / np.maximum(found.norms, np.finfo(np.float64).tiny)
    return MatchedSets(others[found.sets], found.norms * scales, norm, scales)


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

    Each set is a Markov chain of its own, started at a uniformly random set. A step takes out a member, each in turn in random order, and puts in one
    drawn uniformly from all features that bring the norm within the tolerance, the one taken out among them; if there are
    none, the one that comes nearest. A chain that is not within it after the first round goes on as a copy of one that is. Once within the tolerance this is a Gibbs sampler, whose stationary distribution is
    uniform over all sets within it.

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
        The norm may deviate by the factor ``1 + tolerance``, up or down.
    sweeps
        How often each member is exchanged.

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
    low, high = (norm / (1 + tolerance)) ** 2, (norm * (1 + tolerance)) ** 2
    order = np.concatenate([np.argsort(rng.random((n_sets, size)), axis=1) for _ in range(sweeps)], axis=1)
    for step, place in enumerate(order.T if size < features else ()):
        out = sets[rows, place]
        squared = squared - 2 * sums[rows, out] + diagonal[out]
        sums -= gram[out]
        inside[rows, out] = False
        candidate = squared[:, None] + 2 * sums + diagonal
        matched = (candidate >= low) & (candidate <= high)
        key = np.where(matched, rng.random((n_sets, features), dtype=np.float32), -np.inf)
        lost = ~(matched & ~inside).any(1)
        if lost.any():
            key[lost] = -_deviation(np.sqrt(np.maximum(candidate[lost], 0)), norm)
        key[inside] = -np.inf
        new = key.argmax(1)
        squared = candidate[rows, new]
        sums += gram[new]
        inside[rows, new] = True
        sets[rows, place] = new
        if step + 1 == size:
            # a chain that no single exchange brings nearer goes on from one that has arrived
            arrived = (squared >= low) & (squared <= high)
            if arrived.any() and not arrived.all():
                copied = np.where(arrived, rows, rng.choice(np.flatnonzero(arrived), n_sets))
                sets, sums, inside, squared = sets[copied], sums[copied], inside[copied], squared[copied]
    # the running sum has rounding errors of all steps: what is reported is computed afresh
    norms = np.sqrt(np.maximum([gram[members][:, members].sum() for members in sets], 0))
    return MatchedSets(sets, norms, norm, np.ones(n_sets))
