r"""Retrain the head only: the log-odds of the target are read anew from what the last layer reads [1]_.

References
----------
.. [1] Kirichenko, Izmailov, Wilson. Last layer re-training is sufficient for robustness to spurious correlations. ICLR 2023
   (deep feature reweighting): on images of which as many are of each class with and without the shortcut. Here groups are
   weighted instead of thinned out, so that no image is lost.

"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from circuits.acting.decision import Decision

PENALTY = 1.0


@dataclass(frozen=True, eq=False)
class HeadEdit:
    """The target's logit is shifted so that its log-odds become those of a new linear head.

    The model's weights stay; for two classes the result is exactly that of the new head.

    Parameters
    ----------
    decision
        The target.
    weight, bias
        Log-odds per unit of what the head reads.
    strength
        Share of the way from the old log-odds to the new.

    """

    decision: Decision
    weight: Float[Tensor, " width"]
    bias: float
    strength: float = 1.0

    def acts(self, acts_bnd: Float[Tensor, "batch token width"]) -> Float[Tensor, "batch token width"]:
        """Return the same tensor."""
        return acts_bnd

    def logits(
        self, logits: Float[Tensor, "batch output"], head: Float[Tensor, "batch width"]
    ) -> Float[Tensor, "batch output"]:
        """Return the logits with the target's shifted."""
        if self.strength == 0:
            return logits
        new = head @ self.weight.to(head) + self.bias
        out = logits.clone()
        out[:, self.decision.output] += self.strength * (new - self.decision.log_odds(logits))
        return out

    def at_strength(self, strength: float) -> HeadEdit:
        """Return the same edit with another strength."""
        return replace(self, strength=strength)


def retrained_head(
    head: Float[NDArray[np.float32], "image width"],
    labels: Bool[NDArray[np.bool_], " image"],
    shortcut: Bool[NDArray[np.bool_], " image"],
    decision: Decision,
) -> HeadEdit:
    """Fit a logistic regression in which every class with and without the shortcut weighs the same.

    Parameters
    ----------
    head
        What the old head reads.
    labels, shortcut
        Of each image.
    decision
        The target.

    """
    from sklearn.linear_model import LogisticRegression

    mean, scale = head.mean(0, dtype=np.float64), head.std(0, dtype=np.float64)
    scale = np.where(scale > 0, scale, 1.0)
    group = 2 * labels.astype(np.int64) + shortcut
    weights = (len(group) / np.maximum(np.bincount(group, minlength=4), 1) / 4)[group]
    fitted = LogisticRegression(C=PENALTY, max_iter=2000).fit((head - mean) / scale, labels, sample_weight=weights)
    weight = fitted.coef_[0] / scale
    return HeadEdit(decision, torch.from_numpy(weight), float(fitted.intercept_[0] - weight @ mean))
