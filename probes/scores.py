"""How well out-of-fold predictions meet the truth; NaN where that has no answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from mechinterp.statistics.rank import average_ranks, unit_ranks

Columns = Float[NDArray[np.float64], "image target"]
ProbeKind = Literal["continuous", "binary", "ordinal", "categorical"]

METRICS: dict[ProbeKind, str] = {
    "continuous": "R²", "binary": "AUROC", "ordinal": "C-index", "categorical": "mean one-vs-rest AUROC",
}  # fmt: skip
CHANCE: dict[ProbeKind, float] = {"continuous": 0.0, "binary": 0.5, "ordinal": 0.5, "categorical": 0.5}
"""What a probe that learned nothing scores."""


@dataclass(frozen=True)
class Reading:
    """Out-of-fold predictions of one or more targets.

    Parameters
    ----------
    kind
        ``continuous``: scored by R²; ``binary``: by AUROC; ``ordinal``: by the concordance of levels;
        ``categorical``: by the mean over classes of the AUROC of one against the rest.
    truth, predicted, reference
        Image × target; the reference is the mean over the images that trained for each. A categorical target takes
        one column for each class, of zeros and ones in the truth.
    penalties
        Chosen in each fold, for the first target.
    log_p
        Image × class: log-probabilities, for classes and levels read by a probe of their own; ``None`` otherwise.
    classes
        Columns of one target.

    """

    kind: ProbeKind
    truth: Columns
    predicted: Columns
    reference: Columns
    penalties: tuple[float, ...] = ()
    log_p: Float[NDArray[np.float64], "image class"] | None = None
    classes: int = 1

    def scores(self) -> Float[NDArray[np.float64], " target"]:
        """Return the score of each target."""
        match self.kind:
            case "continuous":
                return r_squared(self.truth, self.predicted, self.reference)
            case "binary":
                return auroc(self.truth, self.predicted)
            case "ordinal":
                return concordance(self.truth, self.predicted)
            case "categorical":
                mean: NDArray[np.float64] = auroc(self.truth, self.predicted).reshape(-1, self.classes).mean(1)
                return mean

    def score_of(self, images: NDArray[np.int64]) -> float:
        """Return the first target's score over some images, each counted as often as it stands there."""
        part = Reading(
            self.kind,
            self.truth[images, : self.classes],
            self.predicted[images, : self.classes],
            self.reference[images, : self.classes],
            classes=self.classes,
        )
        return float(part.scores()[0])


def one_hot(codes: NDArray[np.int64], classes: int) -> Columns:
    """Return zeros and ones, image × class, of the class of each image."""
    found: Columns = (codes[:, None] == np.arange(classes)).astype(np.float64)
    return found


def r_squared(truth: Columns, predicted: Columns, reference: Columns) -> Float[NDArray[np.float64], " target"]:
    r"""Return :math:`1 - \sum (y - \hat y)^2 / \sum (y - \bar y_{train})^2` of each column.

    The reference is what the training images' mean predicts, so a probe that learned nothing gets exactly 0, also when
    a held-out block lies away from the others.
    """
    error, spread = ((truth - predicted) ** 2).sum(0), ((truth - reference) ** 2).sum(0)
    share: NDArray[np.float64] = np.divide(error, spread, out=np.full(len(error), np.nan), where=spread > 0)
    return 1 - share


def auroc(truth: Columns, predicted: Columns) -> Float[NDArray[np.float64], " target"]:
    """Return the chance that an image of class 1 is scored above one of class 0, ties counting half, of each column."""
    ranks = average_ranks(predicted.T).T
    positive = (truth > 0.5).sum(0)
    pairs = positive * (len(truth) - positive)
    above = (ranks * (truth > 0.5)).sum(0) - positive * (positive + 1) / 2
    share: NDArray[np.float64] = np.divide(above, pairs, out=np.full(len(above), np.nan), where=pairs > 0)
    return share


def concordance(truth: Columns, predicted: Columns) -> Float[NDArray[np.float64], " target"]:
    """Return the chance that, of two images of different levels, the higher one is scored higher; ties count half.

    Harrell's C-index of each column: with two levels it is the AUROC.
    """
    return np.array([_concordance(t, p) for t, p in zip(truth.T, predicted.T, strict=True)])


def _concordance(truth: NDArray[np.float64], predicted: NDArray[np.float64]) -> float:
    codes = np.unique(truth, return_inverse=True)[1].reshape(-1)
    ordered, rank = np.unique(predicted, return_inverse=True)
    counts = np.zeros((len(ordered), int(codes.max()) + 1))
    np.add.at(counts, (rank.reshape(-1), codes), 1)
    lower_levels = np.cumsum(counts, axis=1) - counts  # images of the same prediction and a lower level
    below = np.cumsum(lower_levels, axis=0) - lower_levels  # of a lower prediction and a lower level
    sizes = counts.sum(0)
    pairs = float((sizes.sum() ** 2 - (sizes**2).sum()) / 2)
    return float((counts * (below + lower_levels / 2)).sum() / pairs) if pairs else float("nan")


def rank_correlation(truth: Columns, predicted: Columns) -> Float[NDArray[np.float64], " target"]:
    """Return Spearman's rho of each column with its prediction."""
    a, b = unit_ranks(truth.T), unit_ranks(predicted.T)
    return np.where(a.any(1) & b.any(1), (a * b).sum(1), np.nan)
