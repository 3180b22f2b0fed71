r"""``defer``: whether a score says when not to trust a case, beside the model's own confidence.

Cases are handed over to a human in the order of a score. What is left has a risk; risk over the share that is left is the
risk–coverage curve, and its area the usual measure [1]_. The area that a perfect order leaves is taken from it.

References
----------
.. [1] Geifman, El-Yaniv. Selective classification for deep neural networks. NeurIPS 2017; Geifman, Uziel, El-Yaniv. Bias-reduced
   uncertainty estimation for deep neural classifiers. ICLR 2019 (excess area).

"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray

from mechinterp.errors import ShapeError
from mechinterp.statistics.bootstrap import Interval, bootstrap_groups

CONFIDENCE = "model's confidence"


@dataclass(frozen=True, eq=False)
class Deferral:
    """How well one score says which cases to hand over.

    Parameters
    ----------
    name
        Of the score.
    coverage, risk
        Share of cases that are kept, ascending, and the share of errors among them.
    area
        Under the curve.
    excess
        The area beyond that of a perfect order: 0 is perfect.
    gain
        Excess of the model's confidence minus this one's: above 0 the score defers better.
    interval
        Of the gain, over patients.

    """

    name: str
    coverage: Float[NDArray[np.float64], " case"]
    risk: Float[NDArray[np.float64], " case"]
    area: float
    excess: float
    gain: float
    interval: Interval

    def risk_at(self, coverage: float) -> float:
        """Return the share of errors when this share of the cases is kept."""
        return float(self.risk[max(int(np.ceil(round(coverage * len(self.risk), 9))) - 1, 0)])

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON, the curve at every twentieth of the cases."""
        shares = np.linspace(0.05, 1, 20).round(2).tolist()
        return {
            "name": self.name, "area": self.area, "excess": self.excess, "gain": self.gain,
            "interval": self.interval.to_json(), "coverage": shares, "risk": [self.risk_at(c) for c in shares],
        }  # fmt: skip


def risk_coverage(
    doubt: Float[NDArray[Any], " case"], errors: Bool[NDArray[np.bool_], " case"]
) -> tuple[Float[NDArray[np.float64], " case"], Float[NDArray[np.float64], " case"]]:
    """Return coverage and risk when cases are kept in the order of rising doubt; cases of equal doubt share their risk.

    Parameters
    ----------
    doubt
        High where a case should be handed over.
    errors
        Where the model errs.

    """
    values, inverse, counts = np.unique(np.asarray(doubt, dtype=np.float64), return_inverse=True, return_counts=True)
    mean = np.bincount(inverse.reshape(-1), weights=errors, minlength=len(values)) / counts
    kept = np.arange(1, len(errors) + 1)
    return kept / len(errors), np.cumsum(np.repeat(mean, counts)) / kept


def excess_area(doubt: Float[NDArray[Any], " case"], errors: Bool[NDArray[np.bool_], " case"]) -> float:
    """Return the area under the risk–coverage curve beyond that of a perfect order."""
    return float(risk_coverage(doubt, errors)[1].mean() - risk_coverage(errors.astype(np.float64), errors)[1].mean())


def defer(
    scores: Mapping[str, Float[NDArray[Any], " case"]],
    log_odds: Float[NDArray[Any], " case"],
    labels: Bool[NDArray[np.bool_], " case"],
    *,
    groups: Sequence[Any] | NDArray[Any] | None = None,
    units_are_patients: bool = True,
    n_boot: int = 1000,
    seed: int = 0,
) -> tuple[Deferral, ...]:
    """Compare scores of doubt with the model's own confidence (its largest probability).

    Parameters
    ----------
    scores
        High where a case should be handed over: the use of a shortcut's features in it, say.
    log_odds, labels
        What the model said, and what was true, of cases that set none of the scores.
    groups
        Patient of each case.
    units_are_patients
        Whether those groups are patients; the slices of one volume are not.
    n_boot, seed
        Of the intervals.

    Returns
    -------
    tuple of Deferral
        The model's confidence first.

    Raises
    ------
    ShapeError
        If there are not as many of each.

    """
    said = np.asarray(log_odds, dtype=np.float64)
    truth = np.asarray(labels, dtype=bool)
    patients = np.arange(len(said)) if groups is None else np.asarray(groups)
    named = {CONFIDENCE: -np.abs(said), **{name: np.asarray(s, dtype=np.float64) for name, s in scores.items()}}
    for name, values in (*named.items(), ("labels", truth), ("groups", patients)):
        if values.shape != said.shape:
            raise ShapeError(f"'{name}' has shape {values.shape} for {len(said)} cases: give one value each")
    errors = (said > 0) != truth

    def one(name: str) -> Deferral:
        def gain(rows: NDArray[np.int64]) -> float:
            return excess_area(named[CONFIDENCE][rows], errors[rows]) - excess_area(named[name][rows], errors[rows])

        coverage, risk = risk_coverage(named[name], errors)
        interval = bootstrap_groups(
            gain, patients, n_boot, seed, method="percentile", units_are_patients=units_are_patients
        )
        every = np.arange(len(said))
        return Deferral(
            name, coverage, risk, float(risk.mean()), excess_area(named[name], errors), gain(every), interval
        )

    return tuple(one(name) for name in named)
