"""How well predicted responses fit measured ones, beside stimuli that changed places, corrected for all voxels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray

from mechinterp.errors import ShapeError
from mechinterp.statistics.bootstrap import groups_to_positions
from mechinterp.statistics.permutation import unit_permutations

Values = NDArray[np.float64]


def correlations(
    predicted: Float[Values, "image voxel"], measured: Float[Values, "image voxel"]
) -> Float[Values, " voxel"]:
    """Return each voxel's correlation over stimuli; 0 where a prediction or a response does not vary.

    Raises
    ------
    ShapeError
        If the two are not of the same stimuli and voxels.

    """
    if predicted.shape != measured.shape or predicted.ndim != 2:
        raise ShapeError(
            f"predictions of shape {predicted.shape}, responses of {measured.shape}: give image × voxel for both"
        )
    products: Values = np.einsum("iv,iv->v", _standard(predicted), _standard(measured))
    return products / len(measured)


@dataclass(frozen=True)
class VoxelTest:
    """Which voxels are predicted beyond chance.

    Parameters
    ----------
    correlation
        Of each voxel.
    p_corrected
        Family-wise over all voxels.
    threshold
        Correlation from which a voxel counts as predicted.
    null
        Largest correlation over all voxels, in each permutation.
    alpha
        Level.
    scheme
        What changed places, in words.

    """

    correlation: Float[Values, " voxel"]
    p_corrected: Float[Values, " voxel"]
    threshold: float
    null: Float[Values, " permutation"]
    alpha: float
    scheme: str

    @property
    def predicted(self) -> Bool[NDArray[np.bool_], " voxel"]:
        """The voxels that are."""
        found: NDArray[np.bool_] = self.p_corrected <= self.alpha
        return found


def voxel_test(
    predicted: Float[Values, "image voxel"],
    measured: Float[Values, "image voxel"],
    groups: Sequence[Any] | NDArray[Any],
    *,
    n_permutations: int = 1000,
    alpha: float = 0.05,
    seed: int = 0,
) -> VoxelTest:
    """Test every voxel's prediction, corrected for all voxels by the largest correlation over them.

    Parameters
    ----------
    predicted
        Image × voxel, by a model that was fitted to other stimuli.
    measured
        Of the same stimuli.
    groups
        Of each stimulus: what changes places as a whole.
    n_permutations, alpha, seed
        Of the permutations of groups; the level over all voxels.

    Returns
    -------
    VoxelTest
        The voxels keep their dependence on each other, since all of a stimulus' responses move together [1]_.

    References
    ----------
    .. [1] Nichols, Holmes. Nonparametric permutation tests for functional neuroimaging. Human Brain Mapping 2002.

    """
    observed = correlations(predicted, measured)
    orders = permuted_stimuli(groups, n_permutations, seed)
    null = np.array([correlations(predicted, measured[order]).max() for order in orders[1:]])
    # what was seen counts as one of the permutations, so no p-value is 0
    reached = len(null) - np.searchsorted(np.sort(null), observed - 1e-12)
    highest = np.sort(null)[::-1]
    allowed = int(np.floor(alpha * len(orders))) - 1
    threshold = float(highest[allowed]) if allowed >= 0 else float("inf")
    units = len(groups_to_positions(groups)[0])
    return VoxelTest(
        observed,
        (reached + 1) / len(orders),
        threshold,
        null,
        alpha,
        f"{len(orders)} permutations of {units} groups of stimuli",
    )


def permuted_stimuli(
    groups: Sequence[Any] | NDArray[Any], n_permutations: int, seed: int
) -> Int[NDArray[np.int64], "permutation image"]:
    """Return whose responses each stimulus takes: those of another group; one with more stimuli repeats the giver's.

    The first row leaves everything in place.
    """
    _, members = groups_to_positions(groups)
    orders = unit_permutations(len(members), n_permutations, seed)
    taken = np.empty((len(orders), sum(len(m) for m in members)), dtype=np.int64)
    for row, order in zip(taken, orders, strict=True):
        for unit, positions in enumerate(members):
            row[positions] = np.resize(members[order[unit]], len(positions))
    return taken


def _standard(values: Values) -> Values:
    centred = values - values.mean(0)
    spread = centred.std(0)
    found: Values = centred / np.where(spread > 1e-12 * np.maximum(np.abs(values).max(0), 1e-300), spread, np.inf)
    return found
