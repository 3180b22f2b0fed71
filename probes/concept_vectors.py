"""Concept vectors: the direction of a site along which a concept comes, or an attribute grows, by several estimators."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray

from mechinterp.errors import AttributeTableError, ConfigError, ShapeError, nearest
from mechinterp.feature_encoder import Directions
from mechinterp.statistics.bootstrap import groups_to_positions
from probes.folds import make_folds
from probes.scores import auroc

Values = NDArray[np.float64]
Estimator = Literal["svm", "ridge", "mean_difference", "pattern", "haufe"]
ESTIMATORS: tuple[Estimator, ...] = ("svm", "ridge", "mean_difference", "pattern", "haufe")
_SVM_C, _RIDGE = 0.01, 0.1
_THIRD = 1 / 3


@dataclass(frozen=True)
class ConceptVector:
    """A unit direction of a site's activations and what one step along it means.

    Parameters
    ----------
    name, unit
        The concept or attribute, and its unit.
    estimator
        How it was found.
    direction
        Of norm 1, towards more of it; as wide as the activations that it was fitted on.
    mean
        Mean of those activations.
    step
        How far along the direction the activations move per unit of the attribute (from one class to the other).
    site
        Whose activations; may be empty.

    """

    name: str
    unit: str
    estimator: Estimator
    direction: Float[Values, " width"]
    mean: Float[Values, " width"]
    step: float
    site: str = ""

    def project(self, x: Float[NDArray[Any], "image width"]) -> Float[Values, " image"]:
        """Return how far along the direction activations lie, from the mean."""
        found: Values = (np.asarray(x, dtype=np.float64) - self.mean) @ self.direction
        return found

    def cosine(self, other: ConceptVector) -> float:
        """Return the cosine with another vector."""
        return float(self.direction @ other.direction)


def fit_concept_vector(
    x: Float[NDArray[Any], "image width"],
    y: Float[NDArray[Any], " image"],
    *,
    estimator: Estimator = "pattern",
    name: str = "concept",
    unit: str = "1",
    site: str = "",
) -> ConceptVector:
    r"""Find the direction of a concept (classes 0 and 1) or of a continuous attribute.

    Parameters
    ----------
    x, y
        Activations (pooled, or all tokens side by side) and values; images with a missing value are left out.
    estimator
        ``svm``: normal of a linear SVM, as in TCAV [1]_. ``ridge``: weights of a ridge regression, for continuous
        attributes the regression concept vector [2]_. ``mean_difference``: from the mean of class 0 to that of class 1,
        of the lowest third to the highest. ``pattern``: :math:`\mathrm{cov}(x, y) / \mathrm{var}(y)`, what activations
        do when the attribute changes [3]_; of two classes, the mean difference. ``haufe``: the ridge's pattern
        :math:`\Sigma_x w` [4]_. The first two are filters: they turn away from what disturbs the reading and may point
        where no image lies; the others are patterns, for steering and for sensitivities.
    name, unit, site
        For texts and for what is made of the vector.

    Raises
    ------
    ConfigError
        If there is no such estimator, or the SVM is asked for a continuous attribute.
    AttributeTableError
        If the values do not vary.
    ShapeError
        If lengths differ.

    References
    ----------
    .. [1] Kim et al. Interpretability beyond feature attribution: TCAV. ICML 2018.
    .. [2] Graziani, Andrearczyk, Müller. Regression concept vectors for bidirectional explanations in histopathology.
       iMIMIC 2018.
    .. [3] Pahde et al. Navigating neural space: revisiting concept activation vectors to overcome directional
       divergence. ICLR 2025, equation 4.
    .. [4] Haufe et al. On the interpretation of weight vectors of linear models in multivariate neuroimaging.
       NeuroImage 87, 2014, theorem 1.

    """
    acts, values = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if acts.ndim != 2 or len(acts) != len(values):
        raise ShapeError(f"activations have shape {acts.shape} for {len(values)} values of '{name}': one row per image")
    if estimator not in ESTIMATORS:
        raise ConfigError(f"estimator is '{estimator}': {nearest(str(estimator), ESTIMATORS)}")
    known = ~np.isnan(values)
    acts, values = acts[known], values[known]
    if len(values) < 2 or np.ptp(values) == 0:
        raise AttributeTableError(f"'{name}' does not vary over {len(values)} images: there is no direction to find")
    raw = _direction(acts, values, estimator, name)
    norm = float(np.linalg.norm(raw))
    if norm < 1e-12:
        raise AttributeTableError(f"the activations do not go along with '{name}': there is no direction to find")
    direction, mean = raw / norm, acts.mean(0)
    along = (acts - mean) @ direction
    step = float(along @ (values - values.mean()) / ((values - values.mean()) ** 2).sum())
    return ConceptVector(name, unit, estimator, direction, mean, step, site)


def concept_directions(vectors: Sequence[ConceptVector]) -> Directions:
    """Return vectors of one site as an encoder, so that interventions and matrices take them.

    Raises
    ------
    ConfigError
        If there are none, or they are of several sites.

    """
    if not vectors or len({v.site for v in vectors}) > 1:
        raise ConfigError("concept vectors of one site make an encoder: give one at least, all of the same site")
    stacked = np.stack([v.direction for v in vectors])
    mean = np.mean([v.mean for v in vectors], axis=0)
    return Directions(vectors[0].site, torch.from_numpy(stacked).float(), torch.from_numpy(mean).float())


@dataclass(frozen=True)
class VectorQuality:
    """Whether a concept vector can be trusted: it separates unseen patients, and other patients give the same one.

    Parameters
    ----------
    score
        Held-out AUROC of the projection for classes, squared correlation within held-out patients for a continuous
        attribute.
    metric
        Its name.
    stability
        Mean cosine between vectors fitted on resampled patients, and the lowest.

    """

    score: float
    metric: str
    stability: tuple[float, float]


def concept_quality(
    x: Float[NDArray[Any], "image width"],
    y: Float[NDArray[Any], " image"],
    *,
    estimator: Estimator = "pattern",
    groups: Sequence[Any] | NDArray[Any] | None = None,
    folds: int = 5,
    n_resamples: int = 30,
    seed: int = 0,
) -> VectorQuality:
    """Score a concept vector on held-out patients, and compare the vectors of resampled ones.

    Parameters
    ----------
    x, y, estimator
        As for :func:`fit_concept_vector`.
    groups
        Patient of each image; whole patients are held out and resampled.
    folds
        Of the held-out score.
    n_resamples
        Vectors fitted on patients drawn with replacement.
    seed
        Of folds and draws.

    """
    values = np.asarray(y, dtype=np.float64)
    known = np.flatnonzero(~np.isnan(values))
    acts, values = np.asarray(x, dtype=np.float64)[known], values[known]
    units = np.arange(len(values)) if groups is None else np.asarray(groups, dtype=object)[known]
    binary = _is_binary(values)
    made = make_folds(len(values), folds, groups=units, classes=values if binary else None, seed=seed)
    along = np.empty(len(values))
    for k in range(made.n):
        train, test = made.split(k)
        found = fit_concept_vector(acts[train], values[train], estimator=estimator)
        spread = float(found.project(acts[train]).std()) or 1.0
        along[test] = found.project(acts[test]) / spread
    if binary:
        score, metric = float(auroc(values[:, None], along[:, None])[0]), "AUROC"
    else:
        score, metric = float(np.corrcoef(along, values)[0, 1] ** 2), "r²"
    _, members = groups_to_positions(units)
    rng = np.random.default_rng(seed)
    vectors: list[Values] = []
    while len(vectors) < n_resamples:
        drawn = np.concatenate([members[u] for u in rng.integers(0, len(members), len(members))])
        if np.ptp(values[drawn]) > 0:
            vectors.append(fit_concept_vector(acts[drawn], values[drawn], estimator=estimator).direction)
    cosines = np.stack(vectors) @ np.stack(vectors).T
    pairs = cosines[np.triu_indices(len(vectors), 1)]
    return VectorQuality(score, metric, (float(pairs.mean()), float(pairs.min())))


def _direction(x: Values, y: Values, estimator: Estimator, name: str) -> Values:
    found: Values
    match estimator:
        case "svm":
            found = _svm(x, y, name)
        case "ridge":
            found = _ridge(x, y)
        case "haufe":
            centred = x - x.mean(0)
            found = centred.T @ (centred @ _ridge(x, y)) / len(x)
        case "pattern":
            t = y - y.mean()
            found = (x - x.mean(0)).T @ t / (t @ t)
        case "mean_difference":
            low, high = (0.0, 1.0) if _is_binary(y) else np.quantile(y, [_THIRD, 1 - _THIRD])
            found = x[y >= high].mean(0) - x[y <= low].mean(0)
    return found


def _svm(x: Values, y: Values, name: str) -> Values:
    from sklearn.svm import LinearSVC

    if not _is_binary(y):
        raise ConfigError(f"'{name}' is continuous: an SVM needs classes 0 and 1, take ridge or pattern")
    z, scale = _scaled(x)
    weights: Values = LinearSVC(C=_SVM_C, random_state=0, max_iter=20_000).fit(z, y).coef_[0] / scale
    return weights


def _ridge(x: Values, y: Values) -> Values:
    from sklearn.linear_model import Ridge

    z, scale = _scaled(x)
    weights: Values = Ridge(alpha=_RIDGE * len(x)).fit(z, y).coef_ / scale
    return weights


def _scaled(x: Values) -> tuple[Values, Values]:
    scale = x.std(0)
    scale = np.where(scale > 1e-12 * np.maximum(np.abs(x.mean(0)), 1), scale, np.inf)
    return (x - x.mean(0)) / scale, scale


def _is_binary(y: Values) -> bool:
    return set(np.unique(y)) == {0.0, 1.0}
