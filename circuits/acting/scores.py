"""What a model's decisions are worth: loss, accuracy, calibration, sensitivity and specificity, over all and in the worst group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray

from mechinterp.errors import ConfigError

BINS = 10


@dataclass(frozen=True)
class GroupScore:
    """One class with or without the shortcut.

    Parameters
    ----------
    name
        For example ``referable, without``.
    images
        How many.
    loss, accuracy
        Mean binary cross-entropy (nats); share of right answers at even odds.

    """

    name: str
    images: int
    loss: float
    accuracy: float


@dataclass(frozen=True)
class Scores:
    """A model's decisions on some images.

    Parameters
    ----------
    loss, accuracy
        Over all images.
    clean_loss, clean_accuracy
        Over the images without the shortcut.
    groups
        Every class with and without the shortcut.
    calibration_error
        Expected calibration error: mean distance of predicted and true share over ten bins of equal width.
    brier
        Mean squared error of the probability.
    sensitivity, specificity
        At the fixed operating point.

    """

    loss: float
    accuracy: float
    clean_loss: float
    clean_accuracy: float
    groups: tuple[GroupScore, ...]
    calibration_error: float
    brier: float
    sensitivity: float
    specificity: float

    @property
    def worst(self) -> GroupScore:
        """The group with the largest loss."""
        return max(self.groups, key=lambda g: g.loss)

    @property
    def worst_accuracy(self) -> float:
        """The least accuracy of any group."""
        return min(g.accuracy for g in self.groups)

    def to_json(self) -> dict[str, Any]:
        """Return them as plain JSON, the worst group named."""
        return {
            **vars(self),
            "groups": [vars(g) for g in self.groups],
            "worst": vars(self.worst),
            "worst_accuracy": self.worst_accuracy,
        }


@dataclass(frozen=True, eq=False)
class Truth:
    """What is known of the images that decisions are scored on.

    Parameters
    ----------
    labels
        Whether each shows the target.
    shortcut
        Whether each has the shortcut.
    groups
        Patient of each.
    threshold
        Log-odds from which on the user calls an image positive: the operating point, fixed before the edit.
    target
        Name of the class.

    """

    labels: Bool[NDArray[np.bool_], " image"]
    shortcut: Bool[NDArray[np.bool_], " image"]
    groups: NDArray[Any]
    threshold: float
    target: str

    @property
    def cells(self) -> dict[str, Int[NDArray[np.int64], " chosen"]]:
        """Positions of every group's images, by its name; groups without images are left out."""
        found = {}
        for c, label in ((True, self.target), (False, f"not {self.target}")):
            for s, mark in ((False, "without"), (True, "with")):
                rows = np.flatnonzero((self.labels == c) & (self.shortcut == s))
                if len(rows):
                    found[f"{label}, {mark} the shortcut"] = rows
        return found

    def score(self, log_odds: Float[NDArray[Any], " image"]) -> Scores:
        """Return the scores of some decisions."""
        loss = losses(log_odds, self.labels)
        right = (log_odds > 0) == self.labels
        positive = log_odds >= self.threshold
        clean = ~self.shortcut
        p = 1 / (1 + np.exp(-np.clip(np.asarray(log_odds, dtype=np.float64), -500, 500)))
        return Scores(
            float(loss.mean()),
            float(right.mean()),
            float(loss[clean].mean()),
            float(right[clean].mean()),
            tuple(
                GroupScore(name, len(rows), float(loss[rows].mean()), float(right[rows].mean()))
                for name, rows in self.cells.items()
            ),
            calibration_error(p, self.labels),
            float(np.square(p - self.labels).mean()),
            float(positive[self.labels].mean()),
            float((~positive)[~self.labels].mean()),
        )


def losses(
    log_odds: Float[NDArray[Any], " image"], labels: Bool[NDArray[np.bool_], " image"]
) -> Float[NDArray[np.float64], " image"]:
    """Return the binary cross-entropy of each image, in nats."""
    margin = np.where(labels, log_odds, -np.asarray(log_odds, dtype=np.float64))
    found: NDArray[np.float64] = np.logaddexp(0, -margin)
    return found


def calibration_error(p: Float[NDArray[np.float64], " image"], labels: Bool[NDArray[np.bool_], " image"]) -> float:
    """Return the expected calibration error over ten bins of equal width [1]_.

    References
    ----------
    .. [1] Guo, Pleiss, Sun, Weinberger. On calibration of modern neural networks. ICML 2017, equation 5.

    """
    bins = np.minimum((p * BINS).astype(np.int64), BINS - 1)
    gap = np.bincount(bins, weights=p - labels, minlength=BINS)
    return float(np.abs(gap).sum() / len(p))


def operating_point(
    log_odds: Float[NDArray[Any], " image"], labels: Bool[NDArray[np.bool_], " image"], sensitivity: float
) -> float:
    """Return the highest threshold that calls at least a share of the ill images positive.

    Raises
    ------
    ConfigError
        If the share is not within 0 and 1, or no image is ill.

    """
    if not 0 < sensitivity <= 1:
        raise ConfigError(f"sensitivity is {sensitivity:g}: give a share above 0, at most 1")
    ill = np.sort(np.asarray(log_odds, dtype=np.float64)[labels])
    if not len(ill):
        raise ConfigError("no image shows the target: an operating point cannot be set by sensitivity")
    return float(ill[int(np.floor(round(len(ill) * (1 - sensitivity), 9)))])
