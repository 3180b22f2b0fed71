"""Purity of the images that a feature is strongest on: do they share a label, do they agree in an attribute."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from mechinterp.errors import ConfigError, ShapeError

DRAWS = 500


def strongest_images(
    values: Float[NDArray[Any], "image feature"], k: int, groups: Sequence[Any] | NDArray[Any] | None = None
) -> Int[NDArray[np.int64], "feature k"]:
    """Return the `k` images that each feature is strongest on, at most one of each patient.

    Two images of one patient look alike whatever the feature, so counting both would make any feature look pure.

    Parameters
    ----------
    values
        One value of each feature for each image; 0 where it is not active.
    k
        How many.
    groups
        Patient of each image; every image is of its own if left out.

    Returns
    -------
    NDArray
        Strongest first; -1 where a feature is active in fewer.

    Raises
    ------
    ConfigError
        If `k` is below 2: one image always agrees with itself.
    ShapeError
        If there is not one group for each image.

    """
    v = np.asarray(values)
    if k < 2:
        raise ConfigError(f"k is {k}: purity wants 2 images at least")
    if groups is not None and len(groups) != len(v):
        raise ShapeError(f"{len(groups)} groups for {len(v)} images: one each")
    best = np.arange(len(v))[:, None].repeat(v.shape[1], 1)
    if groups is not None:
        _, unit = np.unique(np.asarray(groups, dtype=object).astype(str), return_inverse=True)
        order = np.lexsort((np.arange(len(v)), unit))
        starts = np.flatnonzero(np.r_[True, np.diff(unit[order]) != 0])
        best = np.stack([part[v[part].argmax(0)] for part in np.split(order, starts[1:])])
    peaks = np.take_along_axis(v, best, axis=0)
    ranked = np.argsort(-peaks, axis=0, kind="stable")[:k]
    found = np.take_along_axis(best, ranked, axis=0)
    chosen: NDArray[np.int64] = np.where(np.take_along_axis(peaks, ranked, axis=0) > 0, found, -1).T
    if chosen.shape[1] < k:
        chosen = np.pad(chosen, ((0, 0), (0, k - chosen.shape[1])), constant_values=-1)
    return chosen


def label_purity(
    chosen: Int[NDArray[np.int64], "feature k"], labels: Sequence[str | None] | NDArray[Any]
) -> Float[NDArray[np.float64], " feature"]:
    """Return the share of the chosen images that have the most frequent label among them.

    NaN where a feature has fewer than `k` images, or fewer than two with a label.
    """
    names, codes = np.unique([str(label) for label in labels], return_inverse=True)
    known = np.array([label is not None for label in labels])
    there = (chosen >= 0) & known[chosen]
    one_hot = np.eye(len(names))[codes][chosen] * there[..., None]
    counted = there.sum(1)
    enough: NDArray[np.bool_] = np.asarray((chosen >= 0).all(1) & (counted >= 2))
    found: NDArray[np.float64] = np.where(enough, one_hot.sum(1).max(1) / np.maximum(counted, 1), np.nan)
    return found


def attribute_purity(
    chosen: Int[NDArray[np.int64], "feature k"], attributes: Float[NDArray[Any], "image attribute"]
) -> Float[NDArray[np.float64], "feature attribute"]:
    """Return how much less an attribute varies over the chosen images than over all: one minus the ratio of variances.

    1 where they agree; 0, in the mean, for images drawn at random; below 0 where they differ more than any two. NaN where a
    feature has fewer than `k` images, fewer than two with a value, or the attribute does not vary.
    """
    a = np.asarray(attributes, dtype=np.float64)
    picked = np.where((chosen >= 0)[..., None], a[chosen], np.nan)
    counted = (~np.isnan(picked)).sum(1)
    enough = np.asarray((chosen >= 0).all(1))[:, None] & (counted >= 2)
    mean = np.nansum(picked, axis=1) / np.maximum(counted, 1)
    inside = np.nansum(np.square(picked - mean[:, None]), axis=1) / np.maximum(counted - 1, 1)
    known = (~np.isnan(a)).sum(0)
    middle = np.nansum(a, axis=0) / np.maximum(known, 1)
    overall = np.nansum(np.square(a - middle), axis=0) / np.maximum(known - 1, 1)
    ratio = np.divide(inside, overall, out=np.full(inside.shape, np.nan), where=overall > 0)
    found: NDArray[np.float64] = np.where(enough, 1 - ratio, np.nan)
    return found


def chance_label_purity(
    labels: Sequence[str | None] | NDArray[Any],
    k: int,
    groups: Sequence[Any] | NDArray[Any] | None = None,
    *,
    seed: int = 0,
) -> float:
    """Return the mean purity of features that mean nothing: random values, the same `k`, labels and patients."""
    values = np.random.default_rng(seed).random((len(labels), DRAWS)) + 1e-6
    return float(np.nanmean(label_purity(strongest_images(values, k, groups), labels)))
