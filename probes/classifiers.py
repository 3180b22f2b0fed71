"""The nested choice of a classifier's penalty, shared by all probes of classes and levels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from mechinterp.errors import AttributeTableError
from probes.folds import Folds

STRENGTHS: tuple[float, ...] = tuple(float(c) for c in np.logspace(-5, 1, 7))
"""Inverse penalties C tried, for standardised activations."""

RAREST = 1e-9
"""Probability of a class that no image of the training set had, so that its code length stays finite."""

Path = Callable[
    [NDArray[np.float64], NDArray[np.int64], NDArray[np.float64], tuple[float, ...], int], NDArray[np.float64]
]
"""From (train × width, classes, test × width, strengths, number of classes) to log-probabilities, strength × test × class."""


def nested_classes(
    path: Path,
    x: Float[NDArray[np.float64], "image width"],
    codes: Int[NDArray[np.int64], " image"],
    classes: int,
    folds: Folds,
    name: str,
) -> tuple[Float[NDArray[np.float64], "image class"], tuple[float, ...]]:
    """Return every image's out-of-fold log-probabilities, and the C chosen for each fold.

    Parameters
    ----------
    path
        :func:`~probes.logistic.logistic_path` or :func:`~probes.ordinal.ordinal_path`.
    x, codes, classes
        Activations, and each image's class among 0 … `classes` - 1.
    folds
        Outer folds; C is chosen by log-loss over those that train.
    name
        Of the attribute, for the error.

    Raises
    ------
    AttributeTableError
        If the images that train for a fold are all of one class.

    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    log_p = np.empty((len(codes), classes))
    chosen = []
    # Thousands of small products: threads would only wait for each other.
    with threadpool_limits(1, user_api="blas"):
        for k in range(folds.n):
            train, test = folds.split(k)
            if len(np.unique(codes[train])) < 2:
                raise AttributeTableError(
                    f"'{name}' has one class only among the images that train for fold {k}: use fewer folds"
                )
            c = choose_strength(path, x[train], codes[train], classes, folds.subset(train))
            log_p[test] = path(x[train], codes[train], x[test], (c,), classes)[0]
            chosen.append(c)
    return log_p, tuple(chosen)


def choose_strength(path: Path, x: NDArray[np.float64], codes: NDArray[np.int64], classes: int, folds: Folds) -> float:
    """Return the C with the least log-loss over some folds; the middle one where no fold can tell."""
    loss = np.zeros(len(STRENGTHS))
    for k in range(folds.n if folds.n > 1 else 0):
        train, test = folds.split(k)
        if len(np.unique(codes[train])) >= 2:
            log_p = path(x[train], codes[train], x[test], STRENGTHS, classes)
            loss -= np.take_along_axis(log_p, codes[test][None, :, None], axis=2).sum((1, 2))
    return STRENGTHS[int(loss.argmin())] if loss.any() else STRENGTHS[len(STRENGTHS) // 2]


def standardised(
    x_train: NDArray[np.float64], x_test: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Standardise both by the training rows' mean and deviation, and turn them into the training rows' span.

    What does not vary is left out. A ridge penalty is blind to rotations, so the span holds the solution.
    """
    mean, scale = x_train.mean(0), x_train.std(0)
    scale = np.where(scale > 1e-12 * np.maximum(np.abs(mean), 1), scale, np.inf)
    x, t = (x_train - mean) / scale, (x_test - mean) / scale
    if x.shape[1] > len(x):
        span = np.linalg.svd(x, full_matrices=False)[2]
        x, t = x @ span.T, t @ span.T
    return x, t


def spread_over(
    log_p: Float[NDArray[np.float64], "*rows present"], present: Int[NDArray[np.int64], " present"], classes: int
) -> Float[NDArray[np.float64], "*rows class"]:
    """Return log-probabilities over all classes from those over the classes that trained."""
    if len(present) == classes:
        return log_p
    whole = np.full((*log_p.shape[:-1], classes), np.log(RAREST))
    whole[..., present] = log_p
    return whole
