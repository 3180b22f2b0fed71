"""Mutual information of every feature with every attribute, over bins of equal count."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from mechinterp.errors import ConfigError
from mechinterp.statistics.rank import average_ranks, check_pair, missing_patterns

_CELLS = 1 << 24
"""Numbers of a one-hot matrix held at once."""


def quantile_bins(rows: NDArray[Any], bins: int) -> Int[NDArray[np.int64], "row value"]:
    """Return the bin of each value of each row, 0 to `bins` - 1, as many values in each as ties allow.

    Equal values share a bin: the one that the mean of their ranks falls into. So a feature that is 0 on most images has
    one large bin and fewer than `bins` that are filled.
    """
    found: NDArray[np.int64] = ((average_ranks(rows) - 0.5) * (bins / rows.shape[1])).astype(np.int64)
    return found


def mutual_information(
    features: Float[NDArray[Any], "image feature"],
    attributes: Float[NDArray[Any], "image attribute"],
    bins: int = 8,
    *,
    correct: bool = True,
) -> Float[NDArray[np.float64], "feature attribute"]:
    r"""Mutual information in bits, over quantile bins that are fixed beforehand.

    Parameters
    ----------
    features
        Image × feature.
    attributes
        Image × attribute. Values that are `bins` at most, categories among them, are a bin each. An image whose value is
        NaN is left out for that attribute only.
    bins
        Number of bins of equal count.
    correct
        Subtract the bias of counting, :math:`(B_f - 1)(B_a - 1) / (2 n \ln 2)` with :math:`B` the filled bins (Miller and
        Madow [1]_): unrelated pairs are then near 0 on average, and single ones may fall below 0.

    Returns
    -------
    NDArray
        Feature × attribute. NaN for a feature that holds NaN or where fewer than two images have a value.

    Raises
    ------
    ConfigError
        If there are fewer than two bins.
    ShapeError
        If the two are no matrices over the same images.

    Notes
    -----
    All joint counts come from one product of one-hot matrices; they equal those of a loop over pairs exactly.

    References
    ----------
    .. [1] Miller. Note on the bias of information estimates. 1955.

    """
    if bins < 2:
        raise ConfigError(f"bins is {bins}: mutual information needs at least 2")
    features, attributes = check_pair(features, attributes)
    found = np.full((features.shape[1], attributes.shape[1]), np.nan)
    for kept, columns in missing_patterns(attributes):
        n = len(kept)
        codes = [_codes(attributes[kept, j], bins) for j in columns]
        sizes = [int(c.max()) + 1 for c in codes]
        # column after column of one-hot codes, so that one product counts for all attributes at once
        hot = np.concatenate(
            [(c[:, None] == np.arange(k)).astype(np.float32) for c, k in zip(codes, sizes, strict=True)], 1
        )
        starts = np.cumsum([0, *sizes[:-1]])
        entropy = np.add.reduceat(_plogp(hot.sum(0, dtype=np.float64) / n), starts)
        step = max(1, _CELLS // (n * bins))
        for start in range(0, features.shape[1], step):
            block = slice(start, start + step)
            of_features = quantile_bins(np.ascontiguousarray(features[kept, block].T), bins)
            counts = _joint_counts(of_features, hot, bins)
            marginal = _plogp(counts[:, :, : sizes[0]].sum(2, dtype=np.float64) / n).sum(1)
            joint = np.add.reduceat(_plogp(counts.astype(np.float64) / n).sum(1), starts, axis=1)
            found[block, columns] = joint - marginal[:, None] - entropy[None]
            if correct:
                filled = (counts[:, :, : sizes[0]].sum(2) > 0).sum(1)
                found[block, columns] -= (filled[:, None] - 1) * (np.array(sizes) - 1)[None] / (2 * n * np.log(2))
    found[np.isnan(features).any(0)] = np.nan
    return found


def entropy_bits(values: Float[NDArray[Any], " image"], bins: int = 8) -> float:
    """Return the entropy in bits of an attribute's bins, what :func:`mutual_information` can reach at most."""
    known = np.asarray(values, dtype=np.float64)
    known = known[~np.isnan(known)]
    if not len(known):
        return float("nan")
    return float(-_plogp(np.bincount(_codes(known, bins)) / len(known)).sum())


def _joint_counts(of_features: Int[NDArray[np.int64], "feature image"], hot: NDArray[np.float32], bins: int) -> Any:
    m, n = of_features.shape
    one_hot = np.zeros((m * bins, n), dtype=np.float32)
    rows = np.arange(m)[:, None] * bins + of_features
    one_hot[rows, np.arange(n)] = 1
    return (one_hot @ hot).reshape(m, bins, -1)


def _codes(values: NDArray[np.float64], bins: int) -> Int[NDArray[np.int64], " image"]:
    known, inverse = np.unique(values, return_inverse=True)
    if len(known) > bins:
        inverse = np.unique(quantile_bins(values[None], bins)[0], return_inverse=True)[1]
    return inverse.reshape(-1).astype(np.int64)


def _plogp(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = shares * np.log2(shares, out=np.zeros_like(shares), where=shares > 0)
    return found
