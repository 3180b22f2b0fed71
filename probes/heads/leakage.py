"""Whether a bottleneck's concepts carry more about the label than the concepts themselves.

Mahinpei et al., *Promises and Pitfalls of Black-Box Concept Learning Models*, 2021; Havasi et al., *Addressing Leakage in
Concept Bottleneck Models*, NeurIPS 2022.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from mechinterp.statistics.bootstrap import Interval
from mechinterp.statistics.equivalence import mean_interval, patient_means
from probes.heads.bottleneck import fit_bottleneck
from probes.heads.data import HeadData, folds_of
from probes.heads.opaque import fitted_logistic
from probes.scores import auroc

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Leakage:
    """Three looks at the same question; all on held-out patients.

    Parameters
    ----------
    bits
        What the concepts read add to the true ones, in bits of log-loss of the label per patient; above 0 is leakage.
    interval
        Of `bits`, 95 % over patients.
    auroc_predicted, auroc_true
        Of a bottleneck whose decision learned from the concepts read, and from the true ones.
    auroc_shuffled
        Of one whose "concepts" are other patients' values: what it reaches above 0.5 came through them, not from them.

    """

    bits: float
    interval: Interval
    auroc_predicted: float
    auroc_true: float
    auroc_shuffled: float

    @property
    def text(self) -> str:
        """One line."""
        found = (
            "not estimable" if not self.interval.ends
            else "leak" if self.interval.ends[0] > 0
            else "no leak seen"
        )  # fmt: skip
        return (
            f"the concepts read add {self.bits:+.3f} bits a patient to the true ones ({self.interval.text}): {found}; "
            f"with other patients' values for concepts it reaches AUROC {self.auroc_shuffled:.2f} against {self.auroc_predicted:.2f}"
            + (
                "; so its score is no sign that its concepts mean what they are called"
                if self.auroc_shuffled > 0.7
                else ""
            )
        )


def concept_leakage(train: HeadData, held_out: HeadData, *, units_are_patients: bool = True, seed: int = 0) -> Leakage:
    """Measure leakage of a linear bottleneck.

    Parameters
    ----------
    train, held_out
        Different patients.
    units_are_patients
        False where the groups are parts of one subject: then there is no interval.
    seed
        Of the shuffled concepts.

    """
    from sklearn.model_selection import cross_val_predict

    head = fit_bottleneck(train)
    folds = folds_of(train.groups, train.y)
    read = np.stack(
        [cross_val_predict(r, train.x, train.concepts[:, j], cv=folds) for j, r in enumerate(head.readers)], axis=1
    )
    truth = held_out.y[:, None].astype(np.float64)
    alone = _log_loss(train.concepts, train, held_out.concepts, held_out)
    both = _log_loss(
        np.hstack([train.concepts, read]), train, np.hstack([held_out.concepts, head.concepts(held_out.x)]), held_out
    )
    gained = patient_means(alone - both, held_out.groups)
    scores = [
        float(auroc(truth, fitted.outputs(held_out.x)[:, None])[0])
        for fitted in (
            head, fit_bottleneck(train, learns_from="true"), fit_bottleneck(train.with_shuffled_concepts(seed)),
        )
    ]  # fmt: skip
    return Leakage(float(gained.mean()), mean_interval(gained, units_are_patients=units_are_patients), *scores)


def _log_loss(
    x: Float[Values, "train column"], train: HeadData, asked: Float[Values, "image column"], held_out: HeadData
) -> Float[Values, " image"]:
    """Return each held-out image's log-loss in bits."""
    from scipy.special import log_expit

    odds = fitted_logistic(x, train).decision_function(asked)
    bits: Values = -log_expit(np.where(held_out.y == 1, odds, -odds)) / np.log(2)  # finite where a probability is not
    return bits
