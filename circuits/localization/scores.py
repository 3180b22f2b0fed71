"""Scores of one map against the truth of its image, at pixels, tokens or regions."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

THRESHOLDS: Float[NDArray[np.float64], " threshold"] = np.linspace(0.02, 0.98, 49)
"""Shares of a map's largest value, of which the best is chosen on other patients."""


def average_precision(
    values: Float[NDArray[np.floating], " part"], share: Float[NDArray[np.floating], " part"]
) -> float:
    r"""Area under the precision-recall curve where each part is lesion by a share.

    A part counts as lesion with weight `share` and as background with weight ``1 - share``: what the curve would be if every
    part were divided into its pixels, all with the part's value. With shares of 0 and 1 it is
    :math:`\sum_n (R_n - R_{n-1}) P_n`, scikit-learn's average precision.

    Parameters
    ----------
    values
        The larger, the sooner it is called lesion; equal values are called together.
    share
        0 to 1.

    Returns
    -------
    float
        1 is perfect, the prevalence is what noise gets; NaN without any lesion.

    """
    total = float(share.sum())
    if total <= 0:
        return float("nan")
    order = np.argsort(-values, kind="stable")
    ranked = values[order]
    hits = np.cumsum(share[order], dtype=np.float64)
    last = np.flatnonzero(np.append(np.diff(ranked) != 0, True))
    recall = hits[last] / total
    precision = hits[last] / (last + 1)
    return float((np.diff(recall, prepend=0.0) * precision).sum())


def dice_curve(
    values: Float[NDArray[np.floating], " part"], share: Float[NDArray[np.floating], " part"]
) -> Float[NDArray[np.float64], " threshold"]:
    """Return the Dice coefficient of what lies above each of :data:`THRESHOLDS` × the largest value.

    Parameters
    ----------
    values, share
        As :func:`average_precision` takes them. A map without any positive value calls nothing lesion.

    """
    top = float(values.max(initial=0.0))
    if top <= 0:
        return np.zeros(len(THRESHOLDS))
    order = np.argsort(-values, kind="stable")
    hits = np.concatenate([[0.0], np.cumsum(share[order], dtype=np.float64)])
    count = np.searchsorted(-values[order], -THRESHOLDS * top, side="right")
    found: NDArray[np.float64] = 2 * hits[count] / (count + float(share.sum()))
    return found


def mass_inside(values: Float[NDArray[np.floating], " part"], share: Float[NDArray[np.floating], " part"]) -> float:
    """Return the share of the positive relevance that lies in lesions [1]_; NaN where nothing is positive.

    References
    ----------
    .. [1] Arras, Osman, Samek. CLEVR-XAI. Information Fusion 81, 2022: relevance mass accuracy.

    """
    positive = np.clip(values, 0, None)
    total = float(positive.sum(dtype=np.float64))
    return float((positive * share).sum(dtype=np.float64)) / total if total > 0 else float("nan")


def means_by_part(
    values: Float[NDArray[np.floating], " pixel"], part: Int[NDArray[np.int64], " pixel"]
) -> Float[NDArray[np.float64], " part"]:
    """Return the mean of the pixels of every part; pixels of part -1 belong to none, and a part without pixels has 0."""
    kept = part >= 0
    n = int(part.max(initial=-1)) + 1
    counts = np.bincount(part[kept], minlength=n)
    return np.bincount(part[kept], weights=values[kept], minlength=n) / np.maximum(counts, 1)


def parts_with_lesion(
    share: Float[NDArray[np.floating], " pixel"], part: Int[NDArray[np.int64], " pixel"]
) -> Float[NDArray[np.float64], " part"]:
    """Return 1 for every part with a pixel that is at least half lesion, else 0."""
    n = int(part.max(initial=-1)) + 1
    found = np.zeros(n)
    found[part[(part >= 0) & (share >= 0.5)]] = 1.0
    return found
