"""A head whose probability is a weighted share of named training patients.

Nadaraya and Watson's estimator (both 1964) on frozen features, as Wang and Sabuncu, *A Flexible Nadaraya-Watson Head Can
Offer Explainable and Calibrated Classification*, TMLR 2023, use it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from probes.heads.data import HeadData, folds_of
from probes.heads.prototypes import feature_space, median_distance
from probes.heads.terms import Explanation, Scale, Term

Values = NDArray[np.float64]
AXES = (4, 8, 16, 32)
BANDWIDTHS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.8)
"""Tried, as shares of the median distance of two training images."""

PRIOR = 1e-3
"""Weight of the training patients' own rate of the class: what is left where no training image is near."""


@dataclass(frozen=True)
class NadarayaWatsonHead:
    """See :func:`fit_nadaraya_watson`.

    Parameters
    ----------
    space
        From features to the space in which distances are measured.
    points, y, ids
        The training images there, in bandwidths; their classes and names.
    bandwidth
        One bandwidth, in the space.
    rate
        Share of class 1 among the training images.

    """

    space: Any
    points: Float[Values, "train axis"]
    y: Int[NDArray[np.int64], " train"]
    ids: tuple[str, ...]
    bandwidth: float
    rate: float

    @property
    def scale(self) -> Scale:
        """A probability."""
        return "probability"

    def shares(self, x: Float[Values, "image width"]) -> Float[Values, "image train"]:
        """Return how much of the answer is each training image's: what is missing to 1 is the rate's."""
        return _shares(self.space.transform(x) / self.bandwidth, self.points)

    def outputs(self, x: Float[Values, "image width"]) -> Float[Values, " image"]:
        """Return the probability of class 1."""
        weights = _weights(self.space.transform(x) / self.bandwidth, self.points)
        answer: Values = (weights @ self.y + PRIOR * self.rate) / (weights.sum(1) + PRIOR)
        return answer

    def explain(self, x: Float[Values, " width"]) -> Explanation:
        """Take the answer for one image apart: every training image moves it from the rate towards its own class."""
        shares = self.shares(x[None])[0]
        added = shares * (self.y - self.rate)
        terms = [
            Term(f"{name} (class {label})", float(share), "", float(a), i)
            for i, (name, label, share, a) in enumerate(zip(self.ids, self.y, shares, added, strict=True))
        ]
        return Explanation(tuple(terms), self.rate, float(self.outputs(x[None])[0]), "probability")


def fit_nadaraya_watson(data: HeadData, *, seed: int = 0) -> NadarayaWatsonHead:
    """Choose the number of axes and the bandwidth by log-loss over folds of whole patients.

    Parameters
    ----------
    data
        Training patients.
    seed
        Of the pairs whose median distance is the unit of the bandwidths.

    """
    folds = folds_of(data.groups, data.y)
    best, chosen = np.inf, (AXES[0], BANDWIDTHS[-1])
    for axes in AXES:
        if axes > min(data.x.shape[1], len(data) - 1) and axes != AXES[0]:
            break
        loss = np.zeros(len(BANDWIDTHS))
        for train, test in folds:
            space = feature_space(data.x[train], axes)
            known, asked = space.transform(data.x[train]), space.transform(data.x[test])
            unit, rate = median_distance(known, seed), float(data.y[train].mean())
            for i, share in enumerate(BANDWIDTHS):
                weights = _weights(asked / (share * unit), known / (share * unit))
                p = (weights @ data.y[train] + PRIOR * rate) / (weights.sum(1) + PRIOR)
                p = np.clip(p, 1e-6, 1 - 1e-6)
                loss[i] -= np.log(np.where(data.y[test] == 1, p, 1 - p)).sum()
        if loss.min() < best:
            best, chosen = float(loss.min()), (axes, BANDWIDTHS[int(loss.argmin())])
    space = feature_space(data.x, chosen[0])
    points = space.transform(data.x)
    bandwidth = chosen[1] * median_distance(points, seed)
    return NadarayaWatsonHead(space, points / bandwidth, data.y, data.ids, bandwidth, float(data.y.mean()))


def _weights(asked: Float[Values, "image axis"], points: Float[Values, "train axis"]) -> Float[Values, "image train"]:
    from sklearn.metrics.pairwise import euclidean_distances

    weights: Values = np.exp(-0.5 * euclidean_distances(asked, points, squared=True))
    return weights


def _shares(asked: Float[Values, "image axis"], points: Float[Values, "train axis"]) -> Float[Values, "image train"]:
    weights = _weights(asked, points)
    found: Values = weights / (weights.sum(1, keepdims=True) + PRIOR)
    return found
