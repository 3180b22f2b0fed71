"""How well out-of-fold predictions meet the truth; NaN where that has no answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from mechinterp.statistics.rank import average_ranks, unit_ranks

Columns = Float[NDArray[np.float64], "image target"]
ProbeKind = Literal["continuous", "binary"]


@dataclass(frozen=True)
class Reading:
    """Out-of-fold predictions of one or more targets.

    Parameters
    ----------
    kind
        ``continuous``: scored by R²; ``binary``: by AUROC.
    truth, predicted, reference
        Image × target; the reference is the mean over the images that trained for each.
    penalties
        Chosen in each fold, for the first target.

    """

    kind: ProbeKind
    truth: Columns
    predicted: Columns
    reference: Columns
    penalties: tuple[float, ...] = ()

    def scores(self) -> Float[NDArray[np.float64], " target"]:
        """Return the score of each target."""
        if self.kind == "continuous":
            return r_squared(self.truth, self.predicted, self.reference)
        return auroc(self.truth, self.predicted)

    def score_of(self, images: NDArray[np.int64]) -> float:
        """Return the first target's score over some images, each counted as often as it stands there."""
        part = Reading(
            self.kind, self.truth[images, :1], self.predicted[images, :1], self.reference[images, :1], self.penalties
        )
        return float(part.scores()[0])


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


def rank_correlation(truth: Columns, predicted: Columns) -> Float[NDArray[np.float64], " target"]:
    """Return Spearman's rho of each column with its prediction."""
    a, b = unit_ranks(truth.T), unit_ranks(predicted.T)
    return np.where(a.any(1) & b.any(1), (a * b).sum(1), np.nan)
