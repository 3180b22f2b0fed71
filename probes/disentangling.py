"""How neatly features and attributes belong together: one feature an attribute, one attribute a feature, how often twice."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from mechinterp.attributes.table import AttributeTable
from mechinterp.errors import ConfigError
from mechinterp.statistics.information import entropy_bits
from probes.matrix_result import AttributeMatrix


@dataclass(frozen=True)
class DCI:
    """Disentanglement and completeness of a matrix of importances [1]_.

    Parameters
    ----------
    disentanglement
        Mean over features, weighted by their importance, of 1 less the entropy of the attributes that each serves: 1 where
        every feature serves one attribute.
    completeness
        The same over attributes: 1 where every attribute is served by one feature.
    by_feature, by_attribute
        The single values; NaN for what has no importance at all.

    References
    ----------
    .. [1] Eastwood, Williams. A framework for the quantitative evaluation of disentangled representations. ICLR 2018.

    """

    disentanglement: float
    completeness: float
    by_feature: Float[NDArray[np.float64], " feature"]
    by_attribute: Float[NDArray[np.float64], " attribute"]


@dataclass(frozen=True)
class Match:
    """One feature for one attribute.

    Parameters
    ----------
    feature, attribute
        Number and name.
    rho_discovery, rho_confirmation
        Rank correlation on the images that decided the matching, and on the others.

    """

    feature: int
    attribute: str
    rho_discovery: float
    rho_confirmation: float


@dataclass(frozen=True)
class Disentanglement:
    """What a matrix says of features and attributes as a whole.

    Parameters
    ----------
    dci
        From held-out mutual information as importance, which counts what is not monotone too.
    gaps
        Attribute → mutual information gap [2]_: that of the best feature less that of the second, over the attribute's
        entropy. NaN where the attribute does not vary.
    matching
        The one-to-one matching with the highest sum of |rho| on the discovery images.
    redundancy
        Attribute → number of surviving features that follow it.

    References
    ----------
    .. [2] Chen, Li, Grosse, Duvenaud. Isolating sources of disentanglement in variational autoencoders. NeurIPS 2018.

    """

    dci: DCI
    gaps: dict[str, float]
    matching: tuple[Match, ...]
    redundancy: dict[str, int]

    @property
    def mig(self) -> float:
        """Mean of the attributes' gaps."""
        known = [g for g in self.gaps.values() if np.isfinite(g)]
        return float(np.mean(known)) if known else float("nan")


def disentanglement(matrix: AttributeMatrix, attributes: AttributeTable) -> Disentanglement:
    """Measure how neatly the features of a matrix and its attributes belong together.

    Parameters
    ----------
    matrix
        Made with its other measures.
    attributes
        Of the confirmation images: how much there is to know of each.

    Raises
    ------
    ConfigError
        If the matrix was made without its other measures.

    """
    if matrix.measures is None:
        raise ConfigError("the matrix has rank correlations alone: make it with measures=True")
    information = matrix.measures.information
    names = [a.name for a in matrix.attributes]
    entropy = np.array([entropy_bits(attributes.column(name)) for name in names])
    followed = matrix.best[matrix.surviving]
    return Disentanglement(
        dci(np.nan_to_num(information).clip(0)),
        dict(zip(names, map(float, information_gaps(information, entropy)), strict=True)),
        best_matching(matrix),
        {name: int((followed == j).sum()) for j, name in enumerate(names)},
    )


def dci(importance: Float[NDArray[np.float64], "feature attribute"]) -> DCI:
    """Return disentanglement and completeness of importances, which are 0 or above.

    Raises
    ------
    ConfigError
        If an importance is negative or missing.

    """
    r = np.asarray(importance, dtype=np.float64)
    if r.ndim != 2 or not (r >= 0).all():
        raise ConfigError("importances must be a matrix, feature × attribute, of numbers from 0 up")
    by_feature, by_attribute = _one_less_entropy(r), _one_less_entropy(r.T)
    total = r.sum()
    if total == 0:
        return DCI(float("nan"), float("nan"), by_feature, by_attribute)
    weights, weights_of_attributes = r.sum(1) / total, r.sum(0) / total
    return DCI(
        float(np.nansum(weights * by_feature)), float(np.nansum(weights_of_attributes * by_attribute)),
        by_feature, by_attribute,
    )  # fmt: skip


def information_gaps(
    information: Float[NDArray[np.float64], "feature attribute"], entropy: Float[NDArray[np.float64], " attribute"]
) -> Float[NDArray[np.float64], " attribute"]:
    """Return each attribute's information gap between its best and its second best feature, over its entropy, bits."""
    known = np.nan_to_num(information).clip(0)
    if len(known) < 2:
        return np.full(known.shape[1], np.nan)
    top = np.sort(np.partition(known, -2, axis=0)[-2:], axis=0)
    gaps: NDArray[np.float64] = np.divide(
        top[1] - top[0], entropy, out=np.full(known.shape[1], np.nan), where=entropy > 0
    )
    return gaps


def best_matching(matrix: AttributeMatrix) -> tuple[Match, ...]:
    """Return the one-to-one matching of features and attributes that the discovery images give, scored on the others."""
    from scipy.optimize import linear_sum_assignment

    strength = np.nan_to_num(np.abs(matrix.rho_discovery))
    features, attributes = linear_sum_assignment(-strength)
    found = [
        Match(
            int(i), matrix.attributes[j].name, float(matrix.rho_discovery[i, j]), float(matrix.rho_confirmation[i, j])
        )
        for i, j in zip(features, attributes, strict=True)
        if strength[i, j] > 0
    ]
    return tuple(sorted(found, key=lambda m: -abs(m.rho_discovery)))


def _one_less_entropy(r: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return 1 less the entropy of each row's shares, in units of the highest there can be."""
    total = r.sum(1, keepdims=True)
    shares = np.divide(r, total, out=np.zeros_like(r), where=total > 0)
    logs = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
    entropy = -(shares * logs).sum(1) / np.log(max(2, r.shape[1]))
    found: NDArray[np.float64] = np.where(total[:, 0] > 0, 1 - entropy, np.nan)
    return found
