"""Logistic regression over two or more classes, for every penalty."""

from __future__ import annotations

import warnings

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from probes.classifiers import spread_over, standardised


def logistic_path(
    x_train: Float[NDArray[np.float64], "train width"],
    codes: Int[NDArray[np.int64], " train"],
    x_test: Float[NDArray[np.float64], "test width"],
    strengths: tuple[float, ...],
    classes: int,
) -> Float[NDArray[np.float64], "strength test class"]:
    """Return log-probabilities by ``sklearn.linear_model.LogisticRegression`` after standardising.

    Parameters
    ----------
    x_train, codes
        What is learned from; at least two classes.
    x_test
        What is predicted.
    strengths
        Inverse penalties C.
    classes
        Number of classes; one that did not train gets next to no probability.

    """
    from scipy.special import log_softmax
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    x, t = standardised(x_train, x_test)
    model = LogisticRegression(max_iter=2000, warm_start=True)
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # only the weakest penalties on separable classes
        for c in strengths:
            z = model.set_params(C=c).fit(x, codes).decision_function(t)
            log_p = -np.logaddexp(0, np.stack([z, -z], axis=1)) if z.ndim == 1 else log_softmax(z, axis=1)
            found.append(spread_over(log_p, np.asarray(model.classes_), classes))
    return np.stack(found)
