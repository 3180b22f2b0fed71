"""What is measured of every feature and attribute beside the rank correlation: information, AUROC, R², p-values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray

from mechinterp.statistics.bootstrap import FEWEST_GROUPS
from mechinterp.statistics.discovery_rate import benjamini_hochberg
from mechinterp.statistics.information import mutual_information
from mechinterp.statistics.rank import missing_patterns, spearman_p_values
from mechinterp.statistics.separation import auroc

Units = tuple[NDArray[Any], NDArray[np.float64]]
"""Features and attributes of the same units, unit × feature and unit × attribute."""


@dataclass(frozen=True)
class PairMeasures:
    """Feature × attribute, all on the confirmation units.

    Parameters
    ----------
    p
        Two-sided, of the rank correlation alone, for independent units; NaN for the slices of one volume, which are not.
    q
        Adjusted for the share of false discoveries among the tested pairs (Benjamini and Hochberg); NaN elsewhere.
    information
        Mutual information in bits over eight bins of equal count, less its bias.
    auroc
        Of binary attributes; NaN for others, and where a patient's images disagree on the attribute.
    r2
        Of the attribute read as a line of the feature, slope and intercept from the discovery units: 0 is no better
        than the confirmation units' own mean, and a line that does not hold falls below.

    """

    p: Float[NDArray[np.float64], "feature attribute"]
    q: Float[NDArray[np.float64], "feature attribute"]
    information: Float[NDArray[np.float64], "feature attribute"]
    auroc: Float[NDArray[np.float64], "feature attribute"]
    r2: Float[NDArray[np.float64], "feature attribute"]

    def of(self, feature: int, attribute: int) -> dict[str, float]:
        """Return one pair's values by name, without the p-value of the single test."""
        return {name: float(getattr(self, name)[feature, attribute]) for name in ("q", "information", "auroc", "r2")}


def pair_measures(
    discovery: Units,
    confirmation: Units,
    rho: Float[NDArray[np.float64], "feature attribute"],
    tested: Bool[NDArray[np.bool_], "feature attribute"] | None,
    p_corrected: Float[NDArray[np.float64], "feature attribute"],
) -> PairMeasures:
    """Measure all pairs.

    Parameters
    ----------
    discovery, confirmation
        Features and attributes of the units to choose on and of those to test on.
    rho
        Rank correlations on the confirmation units.
    tested
        Which pairs belong to the family; ``None`` for slices of one volume, whose pairs have no p-values of their own.
    p_corrected
        By the maximum over all pairs: stands in for `q` where there are fewer than 10 units, for which Student's t
        is no approximation.

    """
    features, values = confirmation
    p = np.full(rho.shape, np.nan)
    q = np.full(rho.shape, np.nan)
    if tested is not None:
        n = (~np.isnan(values)).sum(0)
        p = spearman_p_values(rho, n[None])
        q = benjamini_hochberg(np.where(tested, p, np.nan))
        few = n < FEWEST_GROUPS
        q[:, few] = p_corrected[:, few]
    return PairMeasures(
        p, q, mutual_information(features, values), auroc(features, values)[0], held_out_r2(discovery, confirmation)
    )


def held_out_r2(discovery: Units, confirmation: Units) -> Float[NDArray[np.float64], "feature attribute"]:
    r"""R² of every attribute as a line of every feature, fitted on some units and judged on others.

    With :math:`\hat y = a + b x` from the discovery units, :math:`1 - \sum (y - \hat y)^2 / \sum (y - \bar y)^2` over the
    confirmation units. NaN where the attribute does not vary there; a feature that does not vary predicts the mean.
    """
    f0, a0 = discovery
    f1, a1 = confirmation
    found = np.full((f1.shape[1], a1.shape[1]), np.nan)
    # attributes that miss the same values on both sides share their sums
    both = np.concatenate([a0, a1])
    for kept, columns in missing_patterns(both):
        first, second = kept[kept < len(a0)], kept[kept >= len(a0)] - len(a0)
        if len(first) < 2 or len(second) < 2:
            continue
        y0, y1 = a0[first][:, columns], a1[second][:, columns]
        slope, mean_x = np.empty((f1.shape[1], len(columns))), np.empty(f1.shape[1])
        step = max(1, (1 << 22) // len(kept))
        for start in range(0, f1.shape[1], step):
            block = slice(start, start + step)
            x0 = f0[first, block].astype(np.float64)
            x1 = f1[second, block].astype(np.float64)
            mean_x[block] = x0.mean(0)
            x0 = x0 - mean_x[block]
            spread = np.square(x0).sum(0)[:, None]
            top = x0.T @ (y0 - y0.mean(0))
            slope[block] = np.divide(top, spread, out=np.zeros_like(top), where=spread > 0)
            x1 -= mean_x[block]
            rest = y1 - y0.mean(0)
            b = slope[block]
            squared = np.square(rest).sum(0) - 2 * b * (x1.T @ rest) + b**2 * np.square(x1).sum(0)[:, None]
            total = np.square(y1 - y1.mean(0)).sum(0)
            with np.errstate(divide="ignore", invalid="ignore"):
                found[block, columns] = np.where(total > 0, 1 - squared / total, np.nan)
    found[np.isnan(f0).any(0) | np.isnan(f1).any(0)] = np.nan
    return found
