"""How well every feature separates the two values of a binary attribute: AUROC from ranks, with ties, in one product."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from mechinterp.statistics.rank import average_ranks, check_pair, column_blocks, missing_patterns


def auroc(
    features: Float[NDArray[Any], "image feature"], attributes: Float[NDArray[Any], "image attribute"]
) -> tuple[Float[NDArray[np.float64], "feature attribute"], Float[NDArray[np.float64], "feature attribute"]]:
    r"""AUROC of every feature for every binary attribute, with its p-value.

    Parameters
    ----------
    features
        Image × feature.
    attributes
        Image × attribute of 0 and 1. An image whose value is NaN is left out for that attribute only.

    Returns
    -------
    areas
        Feature × attribute: chance that an image with 1 has a higher feature than one with 0, ties counting half. NaN
        where the attribute has another value or only one of the two, and for a feature that holds NaN.
    p
        Two-sided, for images that are independent: the normal approximation of Mann and Whitney's U [1]_ with the
        correction for ties and none for continuity; 1 where the feature does not vary.

    Raises
    ------
    ShapeError
        If the two are no matrices over the same images.

    Notes
    -----
    Equals ``sklearn.metrics.roc_auc_score`` and ``scipy.stats.mannwhitneyu(..., use_continuity=False,
    method="asymptotic")`` pair by pair.

    References
    ----------
    .. [1] Mann, Whitney. On a test of whether one of two random variables is stochastically larger than the other. 1947.

    """
    from scipy.special import ndtr

    features, attributes = check_pair(features, attributes)
    areas = np.full((features.shape[1], attributes.shape[1]), np.nan)
    p = np.full_like(areas, np.nan)
    binary = np.array([bool(np.isin(c[~np.isnan(c)], (0, 1)).all()) for c in attributes.T], dtype=bool)
    for kept, columns in missing_patterns(attributes):
        chosen = columns[binary[columns]]
        ones = attributes[kept][:, chosen].sum(0)
        chosen, ones = chosen[(ones > 0) & (ones < len(kept))], ones[(ones > 0) & (ones < len(kept))]
        if not len(chosen):
            continue
        n, pairs = len(kept), ones * (len(kept) - ones)
        for block in column_blocks(features, n):
            ranks = average_ranks(np.ascontiguousarray(features[kept, block].T))
            u = ranks @ attributes[kept][:, chosen] - ones * (ones + 1) / 2
            # the variance of the ranks themselves holds the correction for ties
            spread = np.sqrt(ranks.var(axis=1, keepdims=True) * pairs / (n - 1))
            z = np.divide(np.abs(u - pairs / 2), spread, out=np.zeros_like(u), where=spread > 0)
            areas[block, chosen] = u / pairs
            p[block, chosen] = 2 * ndtr(-z)
    broken = np.isnan(features).any(0)
    areas[broken] = p[broken] = np.nan
    return areas, p
