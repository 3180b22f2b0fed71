"""A head that decides by likeness to a few training images of each class.

After Chen et al., *This Looks Like That*, NeurIPS 2019: the likeness is their equation for a prototype's score. Here the
prototypes are whole training images in the space of frozen features, so that each can be looked at as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from mechinterp.errors import ConfigError
from probes.classifiers import STRENGTHS
from probes.heads.data import HeadData, folds_of
from probes.heads.terms import Explanation, Scale, Term

Values = NDArray[np.float64]
_EPSILON = 1e-4
_MOST_AXES = 32


@dataclass(frozen=True)
class PrototypeHead:
    """See :func:`fit_prototypes`.

    Parameters
    ----------
    space
        From features to the space in which distances are measured.
    prototypes
        There, in units in which two training images are 1 apart (their median distance).
    unit_distance
        That median, in the space.
    images, ids, classes
        Which training images they are, among those it was fitted on.
    weights, base
        Of the logistic regression on the likenesses.
    usual
        Mean likeness over the training images: a term is what a likeness adds beyond its usual one.

    """

    space: Any
    prototypes: Float[Values, "prototype axis"]
    unit_distance: float
    images: tuple[int, ...]
    ids: tuple[str, ...]
    classes: tuple[int, ...]
    weights: Float[Values, " prototype"]
    base: float
    usual: Float[Values, " prototype"]

    @property
    def scale(self) -> Scale:
        """Log-odds."""
        return "log-odds"

    def likeness(self, x: Float[Values, "image width"]) -> Float[Values, "image prototype"]:
        """Return ``log((d² + 1) / (d² + ε))`` to every prototype: large for the same, 0 for the far."""
        return likeness(self.space.transform(x) / self.unit_distance, self.prototypes)

    def outputs(self, x: Float[Values, "image width"]) -> Float[Values, " image"]:
        """Return log-odds of class 1."""
        answer: Values = self.base + (self.likeness(x) - self.usual) @ self.weights
        return answer

    def explain(self, x: Float[Values, " width"]) -> Explanation:
        """Take the answer for one image apart, prototype by prototype."""
        seen = self.likeness(x[None])[0]
        added = (seen - self.usual) * self.weights
        terms = [
            Term(f"like {name} (class {c})", float(s), "", float(a), image)
            for name, c, s, a, image in zip(self.ids, self.classes, seen, added, self.images, strict=True)
        ]
        return Explanation(tuple(terms), self.base, float(self.outputs(x[None])[0]), "log-odds")


def fit_prototypes(data: HeadData, *, per_class: int = 5, seed: int = 0) -> PrototypeHead:
    """Choose training images that stand for each class, and how much likeness to them counts.

    They are the images nearest to the centres that k-means finds in a class, of different patients.

    Parameters
    ----------
    data
        Training patients.
    per_class
        Prototypes of each class.
    seed
        Of k-means.

    Raises
    ------
    ConfigError
        If a class has fewer patients than prototypes.

    """
    from sklearn.cluster import KMeans
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV

    space = feature_space(data.x, _MOST_AXES)
    points = space.transform(data.x)
    unit = median_distance(points, seed)
    points = points / unit
    chosen: list[int] = []
    for label in (0, 1):
        members = np.flatnonzero(data.y == label)
        patients = len(set(data.groups[members].tolist()))
        if per_class < 1:
            raise ConfigError(f"{per_class} prototypes of a class stand for nothing: ask for at least 1")
        if patients < per_class:
            raise ConfigError(
                f"class {label} has {patients} patients: ask for at most as many prototypes of it, not {per_class}"
            )
        centres = KMeans(per_class, n_init=4, random_state=seed).fit(points[members]).cluster_centers_
        taken: set[Any] = set()
        for centre in centres:
            nearest = members[np.argsort(((points[members] - centre) ** 2).sum(1), kind="stable")]
            image = next(int(i) for i in nearest if data.groups[i] not in taken)
            taken.add(data.groups[image])
            chosen.append(image)
    prototypes = points[chosen]
    seen = likeness(points, prototypes)
    usual = seen.mean(0)
    search = GridSearchCV(
        LogisticRegression(max_iter=5000), {"C": STRENGTHS}, scoring="neg_log_loss", cv=folds_of(data.groups, data.y)
    )
    found = search.fit(seen - usual, data.y).best_estimator_
    return PrototypeHead(
        space, prototypes, unit, tuple(chosen), tuple(data.ids[i] for i in chosen), tuple(int(data.y[i]) for i in chosen),
        found.coef_[0], float(found.intercept_[0]), usual,
    )  # fmt: skip


def likeness(
    points: Float[Values, "image axis"], prototypes: Float[Values, "prototype axis"]
) -> Float[Values, "image prototype"]:
    """Return each point's likeness to each prototype (Chen et al. 2019, section 2.1)."""
    squared = ((points[:, None] - prototypes[None]) ** 2).sum(2)
    found: Values = np.log((squared + 1) / (squared + _EPSILON))
    return found


def feature_space(x: Float[Values, "image width"], most: int) -> Any:
    """Return the fitted way from features to the main axes of their standardised values."""
    from sklearn.decomposition import PCA
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    axes = min(most, x.shape[1], len(x) - 1)
    return make_pipeline(StandardScaler(), PCA(axes, svd_solver="full")).fit(x)


def median_distance(points: Float[Values, "image axis"], seed: int) -> float:
    """Return the median distance of two points, over pairs drawn at random where there are many; 1 if they coincide."""
    rng = np.random.default_rng(seed)
    one, other = rng.integers(0, len(points), (2, 20_000))
    apart = one != other
    median = float(np.median(np.linalg.norm(points[one[apart]] - points[other[apart]], axis=1)))
    return median if median > 0 else 1.0
