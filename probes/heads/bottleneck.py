"""A concept bottleneck: features predict concepts in their units, and nothing but those decides.

Koh et al., *Concept Bottleneck Models*, ICML 2020. With ``shape="linear"`` each concept adds its weight times its value;
with ``shape="spline"`` a curve of its own (a generalised additive model, Hastie and Tibshirani 1990; *GAM Changer*, Wang
et al. 2022, for their use in the clinic).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from probes.classifiers import STRENGTHS
from probes.heads.data import HeadData, folds_of
from probes.heads.terms import Explanation, Scale, Term
from probes.ridge import ALPHAS

Shape = Literal["linear", "spline"]
LearnsFrom = Literal["predicted", "true"]
Values = NDArray[np.float64]
_KNOTS = 5


@dataclass(frozen=True)
class ConceptBottleneck:
    """See :func:`fit_bottleneck`.

    Parameters
    ----------
    names, units
        Of the concepts.
    readers
        One fitted ridge regression for each concept.
    mean, deviation
        Of the true concepts of the training patients.
    shapes
        For each concept, a basis from standardised values to columns; ``None`` for the value itself.
    centre
        Mean over the training images of each column of the bases: a concept at its usual effect adds nothing.
    weights
        One array per concept, of its columns.
    base
        Log-odds where every concept adds nothing.

    """

    names: tuple[str, ...]
    units: tuple[str, ...]
    readers: tuple[Any, ...]
    mean: Float[Values, " concept"]
    deviation: Float[Values, " concept"]
    shapes: tuple[Any, ...]
    centre: tuple[Float[Values, " column"], ...]
    weights: tuple[Float[Values, " column"], ...]
    base: float

    def concepts(self, x: Float[Values, "image width"]) -> Float[Values, "image concept"]:
        """Return the concepts read off the features, in their units."""
        return np.stack([reader.predict(x) for reader in self.readers], axis=1)

    def parts(self, concepts: Float[Values, "image concept"]) -> Float[Values, "image concept"]:
        """Return what each concept's value adds, in log-odds."""
        z = (concepts - self.mean) / self.deviation
        columns = [_columns(shape, z[:, j]) - self.centre[j] for j, shape in enumerate(self.shapes)]
        return np.stack([c @ w for c, w in zip(columns, self.weights, strict=True)], axis=1)

    def decide(self, concepts: Float[Values, "image concept"]) -> Float[Values, " image"]:
        """Return the log-odds for given concepts: the one way from concepts to an answer."""
        z = (concepts - self.mean) / self.deviation
        columns = np.concatenate([_columns(shape, z[:, j]) for j, shape in enumerate(self.shapes)], axis=1)
        answer: Values = self.base + (columns - np.concatenate(self.centre)) @ np.concatenate(self.weights)
        return answer

    @property
    def scale(self) -> Scale:
        """Log-odds."""
        return "log-odds"

    def outputs(self, x: Float[Values, "image width"]) -> Float[Values, " image"]:
        """Return log-odds of class 1."""
        return self.decide(self.concepts(x))

    def explain(self, x: Float[Values, " width"]) -> Explanation:
        """Take the answer for one image apart, concept by concept."""
        seen = self.concepts(x[None])
        added = self.parts(seen)[0]
        terms = [
            Term(n, float(v), u, float(a)) for n, v, u, a in zip(self.names, seen[0], self.units, added, strict=True)
        ]
        return Explanation(tuple(terms), self.base, float(self.outputs(x[None])[0]), "log-odds")


def fit_bottleneck(
    data: HeadData, *, shape: Shape = "linear", learns_from: LearnsFrom = "predicted"
) -> ConceptBottleneck:
    """Fit the readers of the concepts, and what decides from them.

    Penalties are chosen over folds of whole patients. The readers' predictions that the decision learns from are those for
    patients whom the reader has not seen.

    Parameters
    ----------
    data
        Training patients.
    shape
        ``linear``, or ``spline``: a cubic spline for each concept, straight beyond the outer knots.
    learns_from
        Learn the decision from ``predicted`` concepts (Koh's sequential bottleneck) or from the ``true`` ones (the
        independent one, which no information beyond the concepts can leak into).

    """
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.model_selection import GridSearchCV, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    folds = folds_of(data.groups, data.y)
    readers, predicted = [], np.empty_like(data.concepts)
    for j in range(len(data.names)):
        search = GridSearchCV(make_pipeline(StandardScaler(), Ridge()), {"ridge__alpha": ALPHAS}, cv=folds)
        search.fit(data.x, data.concepts[:, j])
        readers.append(search.best_estimator_)
        predicted[:, j] = cross_val_predict(search.best_estimator_, data.x, data.concepts[:, j], cv=folds)
    mean, spread = data.concepts.mean(0), data.concepts.std(0)
    scale = np.where(spread > 0, spread, 1.0)
    z = ((predicted if learns_from == "predicted" else data.concepts) - mean) / scale
    shapes = tuple(_shape(shape, z[:, j]) for j in range(z.shape[1]))
    blocks = [_columns(s, z[:, j]) for j, s in enumerate(shapes)]
    centre = tuple(b.mean(0) for b in blocks)
    columns = np.concatenate([b - c for b, c in zip(blocks, centre, strict=True)], axis=1)
    found = GridSearchCV(LogisticRegression(max_iter=5000), {"C": STRENGTHS}, scoring="neg_log_loss", cv=folds)
    found.fit(columns, data.y)
    chosen = found.best_estimator_
    weights = np.split(chosen.coef_[0], np.cumsum([b.shape[1] for b in blocks])[:-1])
    return ConceptBottleneck(
        data.names, data.units, tuple(readers), mean, scale, shapes, centre, tuple(weights), float(chosen.intercept_[0])
    )


def _shape(shape: Shape, z: Float[Values, " image"]) -> Any:
    from sklearn.preprocessing import SplineTransformer

    if shape == "linear" or len(np.unique(z)) <= _KNOTS:  # a few values have no quantiles to put knots at
        return None
    splines = SplineTransformer(n_knots=_KNOTS, degree=3, knots="quantile", extrapolation="linear", include_bias=False)
    return splines.fit(z[:, None])


def _columns(shape: Any, z: Float[Values, " image"]) -> Float[Values, "image column"]:
    made: Values = z[:, None] if shape is None else shape.transform(z[:, None])
    return made
