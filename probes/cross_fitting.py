"""What held-out predictions from confounders leave of some targets, refitted quickly for every resample."""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from probes.folds import Folds

Values = NDArray[np.float64]
Learner = Literal["spline", "linear"]
LEARNERS: tuple[Learner, ...] = ("spline", "linear")
_KNOTS, _RIDGE = 6, 1e-3


class BasisResiduals:
    """Residuals of least squares on a fixed basis of the confounders, fitted on the other folds.

    A resample only changes how often an image counts, so its normal equations are one product with what is computed
    here once; the images of a patient stay in their fold however often they are drawn.

    Parameters
    ----------
    c, targets
        Image × confounder, image × target.
    folds
        For the cross-fitting.
    learner
        ``linear``, or ``spline``: cubic splines of each confounder with knots at quantiles, straight beyond the outer
        ones, and the products of every two confounders.

    """

    def __init__(
        self,
        c: Float[Values, "image confounder"],
        targets: Float[Values, "image target"],
        folds: Folds,
        learner: Learner,
    ) -> None:
        self.targets = targets
        self.basis = _basis(c, learner)
        self.fold = folds.fold
        self.n_folds = folds.n
        width = self.basis.shape[1]
        self._products = (self.basis[:, :, None] * self.basis[:, None, :]).reshape(len(c), width * width)
        self._moments = (self.basis[:, :, None] * targets[:, None, :]).reshape(len(c), -1)
        self._penalty = _RIDGE * np.eye(width)

    def __call__(self, images: NDArray[np.int64]) -> Float[Values, "drawn target"]:
        """Return the residuals of the images drawn, each as often as it stands there."""
        counts = np.bincount(images, minlength=len(self.fold)).astype(np.float64)
        width = self.basis.shape[1]
        by_fold = np.zeros((self.n_folds, len(counts)))
        by_fold[self.fold, np.arange(len(counts))] = counts
        products, moments = by_fold @ self._products, by_fold @ self._moments
        # a fold is predicted from all but itself
        gram = (products.sum(0) - products).reshape(-1, width, width) + self._penalty
        right = (moments.sum(0) - moments).reshape(self.n_folds, width, -1)
        coefficients = np.linalg.solve(gram, right)
        predicted = np.einsum("ip,ipt->it", self.basis[images], coefficients[self.fold[images]])
        left: Values = self.targets[images] - predicted
        return left


def _basis(c: Float[Values, "image confounder"], learner: Learner) -> Float[Values, "image basis"]:
    scale = c.std(0)
    z = (c - c.mean(0)) / np.where(scale > 0, scale, 1.0)
    if learner == "linear":
        return np.column_stack([np.ones(len(z)), z])
    from sklearn.preprocessing import SplineTransformer

    splines = SplineTransformer(n_knots=_KNOTS, degree=3, knots="quantile", extrapolation="linear", include_bias=False)
    columns = [np.ones((len(z), 1))]
    for j in range(z.shape[1]):
        # a confounder of a few values has no quantiles to put knots at
        few = len(np.unique(z[:, j])) <= _KNOTS
        columns.append(z[:, [j]] if few else splines.fit_transform(z[:, [j]]))
    for j in range(z.shape[1]):
        columns += [z[:, [j]] * z[:, [i]] for i in range(j)]
    return np.concatenate(columns, axis=1)
