"""The interval of an AUROC over patients, for few of them too: what true AUROCs the observed one does not speak against."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from mechinterp.errors import ConfigError, ShapeError
from mechinterp.statistics.bootstrap import FEWEST_GROUPS, Interval, few_groups_warning, groups_to_positions
from mechinterp.statistics.rank import average_ranks

FEWEST_OF_A_CLASS = 4
"""So many patients must have images of each class: under this an AUROC rests on single ones."""

_TRUSTED = 20.0
"""Degrees of freedom that the model of the variance counts for beside the patients' own."""
_EDGE = 1e-9


def auroc_interval(
    scores: Float[NDArray[Any], " image"],
    truth: Float[NDArray[Any], " image"],
    groups: Sequence[Any] | NDArray[Any],
    *,
    level: float = 0.95,
    units_are_patients: bool = True,
) -> Interval:
    r"""Interval of an AUROC over patients, by inverting a test, without draws.

    Parameters
    ----------
    scores
        Of each image; only their order counts.
    truth
        0 or 1 of each image; a patient may have images of both.
    groups
        Patient of each image.
    level
        Nominal cover.
    units_are_patients
        False where the groups are parts of one subject: then nothing can be estimated.

    Returns
    -------
    Interval
        Not estimable with fewer than 10 patients, or fewer than 4 with images of either class; with a warning under 30.
        Between 0 and 1, and not of width 0 where the classes are apart.

    Raises
    ------
    ShapeError
        If the three are not of the same images.
    ConfigError
        If the truth has other values than 0 and 1.

    Notes
    -----
    An end is the true AUROC :math:`\theta` at which the observed one lies 1.96 standard errors away, as in Wilson's
    interval of a share and Newcombe's of an AUROC [1]_; a standard error taken at the observed AUROC is far too small
    where the classes are nearly apart. The variance at :math:`\theta` is that of two normal distributions of equal spread,

    .. math:: V(\theta) = \frac{\theta (1 - \theta) + (m + n - 2)(Q - \theta^2)}{m n},
        \quad Q = \theta - 2\,T\!\left(\Phi^{-1}(\theta), 1/\sqrt{3}\right),

    with Owen's :math:`T`; :math:`Q` is the chance that an image of one class lies beyond two of the other. The sizes
    :math:`m, n` are those of independent images: a patient's :math:`k` images count :math:`k / (1 + (k - 1) r)`, with the
    intraclass correlation :math:`r` of normal scores. What the model does not know (other spreads, patients with images of
    both classes) is in Obuchowski's variance [2]_ of the placements summed over patients. From few patients that is rough,
    so :math:`V` is scaled by a mean of its ratio to the model's and 1, weighted by the patients' degrees of freedom and 20:
    with more and more patients their own variance decides. The evidence page counts how often it covers. Far from the
    model it covers less with few patients: 91 to 92 % with 12 of whom 5 are ill, half of these easily seen and half hardly.

    References
    ----------
    .. [1] Newcombe. Confidence intervals for an effect size measure based on the Mann-Whitney statistic. Part 2.
       Statistics in Medicine 25, 2006, method 5.
    .. [2] Obuchowski. Nonparametric analysis of clustered ROC curve data. Biometrics 53, 1997, equation 5.

    """
    values, ill = np.asarray(scores, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    labels, members = groups_to_positions(groups)
    if values.ndim != 1 or values.shape != ill.shape or sum(map(len, members)) != len(values):
        raise ShapeError(
            f"scores have shape {values.shape}, the truth {ill.shape}: one of each, and a group, per image"
        )
    if not np.isin(ill, (0, 1)).all():
        raise ConfigError("the truth has values besides 0 and 1: an AUROC is of two classes")
    n = len(labels)
    if not units_are_patients:
        return Interval.not_estimable(1, level)
    if n < FEWEST_GROUPS:
        return Interval.not_estimable(n, level)
    patient = np.empty(len(values), dtype=np.int64)
    for p, positions in enumerate(members):
        patient[positions] = p
    counts = np.stack([np.bincount(patient[ill == c], minlength=n) for c in (1, 0)])
    fewest = int((counts > 0).sum(1).min())
    if fewest < FEWEST_OF_A_CLASS:
        why = f"not estimable ({fewest} of {n} patients have images of one of the classes)"
        return Interval(None, None, level, n, reason=why)
    low, high = _ends(values, ill == 1, patient, counts, level)
    return Interval(low, high, level, n, warning=few_groups_warning(n))


def _ends(
    scores: NDArray[np.float64],
    ill: NDArray[np.bool_],
    patient: NDArray[np.int64],
    counts: NDArray[np.int64],
    level: float,
) -> tuple[float, float]:
    from scipy.optimize import brentq
    from scipy.special import ndtri

    area, own = _area_and_variance(scores, ill, patient, counts)
    sizes = _independent_images(scores, ill, patient, counts)
    edge = 1 / (2 * sizes[0] * sizes[1])  # where the classes are apart neither variance is known
    n = counts.shape[1]
    ratio = own / _model_variance(float(np.clip(area, edge, 1 - edge)), sizes)
    design = ((n - 2) * ratio + _TRUSTED) / (n - 2 + _TRUSTED)
    reach = float(ndtri((1 + level) / 2)) ** 2 * design

    def beyond(true: float) -> float:
        return float((true - area) ** 2 - reach * _model_variance(true, sizes))

    inside = float(np.clip(area, _EDGE, 1 - _EDGE))
    low = 0.0 if area <= _EDGE else float(brentq(beyond, _EDGE / 10, inside))
    high = 1.0 if area >= 1 - _EDGE else float(brentq(beyond, inside, 1 - _EDGE / 10))
    return low, high


def _area_and_variance(
    scores: NDArray[np.float64], ill: NDArray[np.bool_], patient: NDArray[np.int64], counts: NDArray[np.int64]
) -> tuple[float, float]:
    """Return the AUROC and Obuchowski's variance of it over patients."""
    ranks = average_ranks(scores[None, :])[0]
    m, n = int(ill.sum()), int((~ill).sum())
    placed = np.empty(len(scores))  # share of the other class's images that an image is on the right side of
    placed[ill] = (ranks[ill] - average_ranks(scores[None, ill])[0]) / n
    placed[~ill] = 1 - (ranks[~ill] - average_ranks(scores[None, ~ill])[0]) / m
    area = float(placed[ill].mean())
    sums = [np.bincount(patient, np.where(ill == c, placed - area, 0.0)) for c in (True, False)]
    parts = np.stack([sums[0] / m, sums[1] / n])
    patients = (counts > 0).sum(1)
    both = counts.shape[1]
    variance = (patients / (patients - 1) * (parts**2).sum(1)).sum() + 2 * both / (both - 1) * (parts[0] @ parts[1])
    return area, max(0.0, float(variance))


def _independent_images(
    scores: NDArray[np.float64], ill: NDArray[np.bool_], patient: NDArray[np.int64], counts: NDArray[np.int64]
) -> tuple[float, float]:
    """Return as how many independent images those of each class count, by the intraclass correlation of normal scores."""
    from scipy.special import ndtri

    z = ndtri((average_ranks(scores[None, :])[0] - 0.5) / len(scores))
    between = within = 0.0
    between_df = within_df = 0
    usual = 0.0
    for images, of in zip((ill, ~ill), counts, strict=True):
        there = of > 0
        k, total = of[there], int(of.sum())
        sums = np.bincount(patient[images], z[images], minlength=len(of))[there]
        means = sums / k
        between += float((k * (means - z[images].mean()) ** 2).sum())
        within += float((z[images] ** 2).sum() - (sums**2 / k).sum())
        between_df += len(k) - 1
        within_df += total - len(k)
        usual += total - float((k**2).sum()) / total
    correlation = 1.0  # one image a patient, or none that differ
    if within_df:
        first, second, k0 = between / between_df, max(0.0, within) / within_df, usual / between_df
        spread = first + (k0 - 1) * second
        correlation = float(np.clip((first - second) / spread, 0, 1)) if spread > 0 else 1.0
    found = (counts / (1 + np.maximum(counts - 1, 0) * correlation)).sum(1)
    return float(found[0]), float(found[1])


def _model_variance(true: float, sizes: tuple[float, float]) -> float:
    """Return the variance of an AUROC of two normal distributions of equal spread, see :func:`auroc_interval`."""
    from scipy.special import ndtri, owens_t

    m, n = sizes
    beyond_two = true - 2 * float(owens_t(ndtri(true), 1 / np.sqrt(3)))
    return (true * (1 - true) + (m + n - 2) * (beyond_two - true**2)) / (m * n)
