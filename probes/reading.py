"""Predict every image from the other folds, whatever the kind of the attribute: one place that knows the models."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from mechinterp.errors import AttributeTableError
from probes.classifiers import Path, choose_strength, nested_classes
from probes.folds import Folds
from probes.logistic import logistic_path
from probes.ordinal import ordinal_path
from probes.ridge import ALPHAS, choose_penalty, nested_ridge, ridge_path
from probes.scores import ProbeKind, Reading, one_hot

Values = NDArray[np.float64]


def path_of(kind: ProbeKind) -> Path:
    """Return the classifier of a kind: proportional odds for levels, logistic regression for classes."""
    return ordinal_path if kind == "ordinal" else logistic_path


def read_attribute(
    x: Float[Values, "image width"], y: Float[Values, " image"], folds: Folds, kind: ProbeKind, name: str
) -> Reading:
    """Read one attribute: ridge, logistic regression of two or more classes, or proportional odds.

    Parameters
    ----------
    x, y
        Activations and values, without missing ones.
    folds
        Every image is predicted from the other folds; the penalty is chosen inside them.
    kind
        Of the attribute. Levels and classes may be any numbers.
    name
        For errors.

    Returns
    -------
    Reading
        Predictions are values for a continuous attribute, log-odds for a binary one, the expected level for an ordinal
        one, and log-probabilities of the classes for a categorical one.

    """
    if kind == "continuous":
        predicted, reference, chosen = nested_ridge(x, y[:, None], folds)
        return Reading(kind, y[:, None], predicted, reference, tuple(ALPHAS[i] for i in chosen[:, 0]))
    levels, codes = np.unique(y, return_inverse=True)
    codes = codes.reshape(-1)
    log_p, strengths = nested_classes(path_of(kind), x, codes, len(levels), folds, name)
    return classified(kind, y, levels, codes, log_p, strengths)


def classified(
    kind: ProbeKind,
    y: Float[Values, " image"],
    levels: Float[Values, " class"],
    codes: NDArray[np.int64],
    log_p: Float[Values, "image class"],
    strengths: tuple[float, ...] = (),
) -> Reading:
    """Return the reading of classes or levels from their log-probabilities."""
    match kind:
        case "binary":
            truth, predicted = codes[:, None].astype(np.float64), (log_p[:, 1] - log_p[:, 0])[:, None]
        case "ordinal":
            truth, predicted = y[:, None], (np.exp(log_p) @ levels)[:, None]
        case _:
            truth, predicted = one_hot(codes, len(levels)), log_p
    columns = len(levels) if kind == "categorical" else 1
    return Reading(kind, truth, predicted, np.zeros(truth.shape), strengths, log_p, columns)


def read_new(
    x_train: Float[Values, "train width"],
    y_train: Float[Values, " train"],
    x_test: Float[Values, "test width"],
    inner: Folds,
    kind: ProbeKind,
    levels: Float[Values, " class"],
    name: str,
) -> Float[Values, "test column"]:
    """Fit on some images, the penalty chosen over `inner` folds of them, and predict others.

    Parameters
    ----------
    x_train, y_train, x_test
        Activations and values.
    inner
        Folds of the training images.
    kind
        Of the attribute.
    levels
        All classes or levels there are, in order; unused for a continuous attribute.
    name
        For errors.

    Returns
    -------
    NDArray
        Values in one column for a continuous attribute, else log-probabilities of `levels`.

    Raises
    ------
    AttributeTableError
        If the training images are all of one class.

    """
    if kind == "continuous":
        alpha = ALPHAS[int(choose_penalty(x_train, y_train[:, None], inner, ALPHAS)[0])]
        values: Values = ridge_path(x_train, y_train[:, None], x_test, (alpha,))[0]
        return values
    codes = np.searchsorted(levels, y_train)
    if len(np.unique(codes)) < 2:
        raise AttributeTableError(f"'{name}' has one class only among {len(codes)} images that train")
    path = path_of(kind)
    strength = choose_strength(path, x_train, codes, len(levels), inner)
    log_p: Values = path(x_train, codes, x_test, (strength,), len(levels))[0]
    return log_p
