"""Ridge regression for many targets and penalties at once, and its nested cross-validation."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from probes.folds import Folds

ALPHAS: tuple[float, ...] = tuple(float(a) for a in np.logspace(-1, 6, 15))
"""Penalties tried, for standardised activations."""

_SMALL = 1 << 20
"""Numbers in the activations below which one thread is faster than two."""


def ridge_path(
    x_train: Float[NDArray[np.float64], "train width"],
    y_train: Float[NDArray[np.float64], "train target"],
    x_test: Float[NDArray[np.float64], "test width"],
    alphas: tuple[float, ...] = ALPHAS,
) -> Float[NDArray[np.float64], "alpha test target"]:
    r"""Predict every target under every penalty from one decomposition.

    Parameters
    ----------
    x_train, y_train
        What is learned from. Columns of `x_train` are standardised by their own mean and deviation, which are then
        applied to `x_test`; the intercept is not penalised.
    x_test
        What is predicted.
    alphas
        Penalties :math:`\alpha` of :math:`\lVert y - Xw \rVert^2 + \alpha \lVert w \rVert^2`.

    Returns
    -------
    NDArray
        As ``sklearn.linear_model.Ridge`` after a ``StandardScaler``, fitted anew for every penalty.

    Notes
    -----
    The smaller of :math:`XX^T` and :math:`X^TX` is decomposed once, after which a penalty costs one scaling: a
    hundred permuted targets cost little more than one.

    """
    mean, scale = x_train.mean(0), x_train.std(0)
    scale = np.where(scale > 1e-12 * np.maximum(np.abs(mean), 1), scale, np.inf)  # what does not vary is left out
    x, t = (x_train - mean) / scale, (x_test - mean) / scale
    centre = y_train.mean(0)
    y = y_train - centre
    if len(x) <= x.shape[1]:
        values, vectors = np.linalg.eigh(x @ x.T)
        left, right = (t @ x.T) @ vectors, vectors.T @ y
    else:
        values, vectors = np.linalg.eigh(x.T @ x)
        left, right = t @ vectors, vectors.T @ (x.T @ y)
    values = np.maximum(values, 0)
    return np.stack([(left / (values + alpha)) @ right + centre for alpha in alphas])


def nested_ridge(
    x: Float[NDArray[np.float64], "image width"],
    y: Float[NDArray[np.float64], "image target"],
    folds: Folds,
    alphas: tuple[float, ...] = ALPHAS,
) -> tuple[
    Float[NDArray[np.float64], "image target"],
    Float[NDArray[np.float64], "image target"],
    Int[NDArray[np.int64], "fold target"],
]:
    """Predict every image from the other folds, each target's penalty chosen inside them by the same kind of folds.

    Returns
    -------
    predictions
        Out-of-fold predictions.
    references
        Mean of the target over the images that trained, for each image: what an R² of 0 predicts.
    chosen
        Position of the penalty chosen in each outer fold.

    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    predictions, references = np.empty(y.shape), np.empty(y.shape)
    chosen = np.empty((folds.n, y.shape[1]), dtype=np.int64)
    # Over many small products threads only wait for each other.
    with threadpool_limits(1 if x.size < _SMALL else None, user_api="blas"):
        for k in range(folds.n):
            train, test = folds.split(k)
            best = choose_penalty(x[train], y[train], folds.subset(train), alphas)
            path = ridge_path(x[train], y[train], x[test], alphas)
            predictions[test] = np.take_along_axis(path, best[None, None, :], axis=0)[0]
            references[test] = y[train].mean(0)
            chosen[k] = best
    return predictions, references, chosen


def choose_penalty(
    x: NDArray[np.float64], y: NDArray[np.float64], folds: Folds, alphas: tuple[float, ...]
) -> NDArray[np.int64]:
    """Return, for each target, the penalty with the least squared error over the inner folds."""
    error = np.zeros((len(alphas), y.shape[1]))
    if folds.n < 2:
        return np.full(y.shape[1], len(alphas) // 2)
    for k in range(folds.n):
        train, test = folds.split(k)
        if len(train) < 2:
            continue
        error += ((ridge_path(x[train], y[train], x[test], alphas) - y[test]) ** 2).sum(1)
    best: NDArray[np.int64] = error.argmin(0)
    return best
