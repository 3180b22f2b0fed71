"""Logistic regression with a nested choice of its penalty."""

from __future__ import annotations

import warnings

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from mechinterp.errors import AttributeTableError
from probes.folds import Folds

STRENGTHS: tuple[float, ...] = tuple(float(c) for c in np.logspace(-5, 1, 7))
"""Inverse penalties C tried, for standardised activations."""


def nested_logistic(
    x: Float[NDArray[np.float64], "image width"], y: Float[NDArray[np.float64], " image"], folds: Folds, name: str
) -> tuple[Float[NDArray[np.float64], " image"], tuple[float, ...]]:
    """Return every image's out-of-fold log-odds, and the C chosen for each fold by log-loss over the other folds.

    Raises
    ------
    AttributeTableError
        If the images that train for a fold are all of one class.

    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    # Thousands of small products: threads would only wait for each other.
    with threadpool_limits(1, user_api="blas"):
        return _nested(x, y, folds, name)


def _nested(
    x: NDArray[np.float64], y: NDArray[np.float64], folds: Folds, name: str
) -> tuple[NDArray[np.float64], tuple[float, ...]]:
    logits = np.empty(len(y))
    chosen = []
    for k in range(folds.n):
        train, test = folds.split(k)
        if len(np.unique(y[train])) < 2:
            raise AttributeTableError(
                f"'{name}' has one class only among the images that train for fold {k}: use fewer folds"
            )
        c = _choose(x[train], y[train], folds.subset(train))
        logits[test] = _logits(x[train], y[train], x[test], (c,))[0]
        chosen.append(c)
    return logits, tuple(chosen)


def _choose(x: NDArray[np.float64], y: NDArray[np.float64], folds: Folds) -> float:
    loss = np.zeros(len(STRENGTHS))
    for k in range(folds.n if folds.n > 1 else 0):
        train, test = folds.split(k)
        if len(np.unique(y[train])) == 2:
            z = _logits(x[train], y[train], x[test], STRENGTHS)
            loss += np.logaddexp(0, np.where(y[test] > 0.5, -z, z)).sum(1)
    return STRENGTHS[int(loss.argmin())] if loss.any() else STRENGTHS[len(STRENGTHS) // 2]


def _logits(
    x_train: NDArray[np.float64],
    y_train: NDArray[np.float64],
    x_test: NDArray[np.float64],
    strengths: tuple[float, ...],
) -> NDArray[np.float64]:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    mean, scale = x_train.mean(0), x_train.std(0)
    scale = np.where(scale > 1e-12 * np.maximum(np.abs(mean), 1), scale, np.inf)
    x, t = (x_train - mean) / scale, (x_test - mean) / scale
    if x.shape[1] > len(x):
        # The penalty is blind to rotations, so the span of the training images holds the solution.
        span = np.linalg.svd(x, full_matrices=False)[2]
        x, t = x @ span.T, t @ span.T
    model = LogisticRegression(max_iter=2000, warm_start=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # only the weakest penalties on separable classes
        return np.stack([model.set_params(C=c).fit(x, y_train).decision_function(t) for c in strengths])
