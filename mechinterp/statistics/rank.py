"""Rank correlation of every feature with every attribute: ranks once, then one matrix product."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from mechinterp.errors import ShapeError

_BLOCK = 1 << 22
"""Numbers ranked at once: bounds the memory of ten thousand features to a few hundred MiB."""


def average_ranks(rows: NDArray[Any]) -> Float[NDArray[np.float64], "row value"]:
    """Rank the values of each row from 1; equal values share the mean of their ranks.

    Parameters
    ----------
    rows
        Row × value, without NaN.

    Returns
    -------
    NDArray
        As ``scipy.stats.rankdata(rows, axis=1)``, an order of magnitude faster.

    """
    rows = np.asarray(rows)
    m, n = rows.shape
    if rows.size == 0:
        return np.empty((m, n))
    order = np.argsort(rows, axis=1)
    ordered = np.take_along_axis(rows, order, axis=1)
    starts = np.ones((m, n), dtype=bool)
    np.not_equal(ordered[:, 1:], ordered[:, :-1], out=starts[:, 1:])
    first = np.flatnonzero(starts)
    length = np.diff(first, append=m * n)
    shared = first % n + (length + 1) / 2  # a run of equal values at 0-based i..i+l-1 has the mean rank i + (l + 1) / 2
    ranks = np.empty((m, n))
    np.put_along_axis(ranks, order, np.repeat(shared, length).reshape(m, n), axis=1)
    return ranks


def unit_ranks(rows: NDArray[Any]) -> Float[NDArray[np.float64], "row value"]:
    """Return each row's ranks, centred and of norm 1, so that a dot product is Spearman's rho; constant rows are zero."""
    ranks = average_ranks(rows)
    ranks -= (rows.shape[1] + 1) / 2
    norms = np.linalg.norm(ranks, axis=1, keepdims=True)
    unit: NDArray[np.float64] = np.divide(ranks, norms, out=np.zeros_like(ranks), where=norms > 0)
    return unit


def spearman(
    features: Float[NDArray[Any], "image feature"], attributes: Float[NDArray[Any], "image attribute"]
) -> Float[NDArray[np.float64], "feature attribute"]:
    """Spearman's rank correlation of every feature with every attribute.

    Parameters
    ----------
    features
        Image × feature.
    attributes
        Image × attribute. An image whose value is NaN is left out for that attribute only.

    Returns
    -------
    NDArray
        Feature × attribute. NaN where either does not vary over the images that have a value, and for a feature
        that holds NaN.

    Raises
    ------
    ShapeError
        If the two are no matrices over the same images.

    Notes
    -----
    Ties share the mean of their ranks, so it equals ``scipy.stats.spearmanr`` pair by pair. Attributes with the same
    missing images share one ranking of the features. Time is that of sorting every feature once, and one product.

    Examples
    --------
    >>> spearman(np.array([[1.0], [2.0], [9.0]]), np.array([[3.0], [2.0], [1.0]]))
    array([[-1.]])

    """
    features, attributes = check_pair(features, attributes)
    rho = np.full((features.shape[1], attributes.shape[1]), np.nan)
    broken = np.isnan(features).any(0)
    for kept, columns in missing_patterns(attributes):
        a = unit_ranks(attributes[kept][:, columns].T)
        for block in column_blocks(features, len(kept)):
            f = unit_ranks(np.ascontiguousarray(features[kept, block].T))
            found = f @ a.T
            found[~f.any(1)] = np.nan
            found[:, ~a.any(1)] = np.nan
            rho[block, columns] = found
    rho[broken] = np.nan
    return rho.clip(-1, 1)


def spearman_p_values(
    rho: Float[NDArray[np.float64], "*shape"], n: Float[NDArray[Any], "*shape"] | int
) -> Float[NDArray[np.float64], "*shape"]:
    """Return the two-sided p-values of rank correlations, for images that are independent.

    Parameters
    ----------
    rho
        Spearman's rho; NaN stays NaN.
    n
        Number of images behind each; fewer than 3 give NaN.

    Returns
    -------
    NDArray
        Of Student's t with n - 2 degrees of freedom, as ``scipy.stats.spearmanr`` has them. Images of one patient, or
        neighbouring slices, are not independent: average patients, and see
        :func:`~mechinterp.statistics.permutation.max_statistic_test` for volumes.

    """
    from scipy.special import stdtr

    freedom = np.broadcast_to(np.asarray(n, dtype=np.float64) - 2, np.shape(rho))
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.abs(rho) * np.sqrt(freedom / ((1 - np.abs(rho)) * (1 + np.abs(rho))))
        p: NDArray[np.float64] = np.where(freedom > 0, 2 * stdtr(np.maximum(freedom, 1), -t), np.nan)
    return np.where(np.isnan(rho), np.nan, p)


def missing_patterns(
    attributes: Float[NDArray[np.float64], "image attribute"],
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Give, for attributes that miss the same values, the images that have one and the attributes' columns.

    Attributes with fewer than two values are left out.
    """
    patterns, which = np.unique(np.isnan(attributes), axis=1, return_inverse=True)
    for p in range(patterns.shape[1]):
        kept = np.flatnonzero(~patterns[:, p])
        if len(kept) >= 2:
            yield kept, np.flatnonzero(which.reshape(-1) == p)


def column_blocks(features: NDArray[Any], images: int) -> Iterator[slice]:
    """Give slices of columns so narrow that a block of them, ranked, takes tens of MiB."""
    step = max(1, _BLOCK // max(1, images))
    for start in range(0, features.shape[1], step):
        yield slice(start, start + step)


def check_pair(features: NDArray[Any], attributes: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Return both as matrices of numbers over the same images.

    Raises
    ------
    ShapeError
        If they are not.

    """
    features, attributes = np.asarray(features), np.asarray(attributes, dtype=np.float64)
    for name, matrix in (("features", features), ("attributes", attributes)):
        if matrix.ndim != 2:
            raise ShapeError(f"{name} have shape {matrix.shape}: one row per image, one column each")
    if len(features) != len(attributes):
        raise ShapeError(f"features of {len(features)} images, attributes of {len(attributes)}: select the same images")
    return features, attributes
