"""Fractional logistic regression: what share of a token's tile a structure covers, from 0 to 1."""

from __future__ import annotations

import warnings

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

Values = NDArray[np.float64]

STRENGTHS: tuple[float, ...] = (1e-3, 1e-1, 10.0)
"""Inverse penalties tried, for standardised activations: tokens are many, so little turns on it."""


def share_path(
    x: Float[Values, "row width"],
    shares: Float[Values, " row"],
    weights: Float[Values, " row"],
    strengths: tuple[float, ...] = STRENGTHS,
) -> Float[Values, "strength width_and_one"]:
    r"""Fit a share by a logistic curve of the activations, under every penalty.

    The quasi-likelihood of [1]_: a share :math:`y` is an event seen with weight :math:`y` and missed with weight
    :math:`1 - y`. Where :math:`E[y \mid x] = \sigma(w x + b)` it is consistent, whatever the shares' distribution, and on
    the rows that trained the predicted shares add up to the true ones: sums are what is wanted of it.

    Parameters
    ----------
    x
        Activations of tokens.
    shares
        Of each token's tile, 0 to 1; some of it must be covered, and some not.
    weights
        How many tokens each row stands for.
    strengths
        Inverse penalties :math:`C` on the weights for standardised activations; the intercept is free.

    Returns
    -------
    NDArray
        For every penalty the weights for the activations as they are, and last the intercept.

    References
    ----------
    .. [1] Papke, Wooldridge. Econometric methods for fractional response variables. Journal of Applied Econometrics 11,
       1996.

    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    mean = np.average(x, axis=0, weights=weights)
    scale = np.sqrt(np.average((x - mean) ** 2, axis=0, weights=weights))
    scale = np.where(scale > 1e-12 * np.maximum(np.abs(mean), 1), scale, np.inf)  # what does not vary is left out
    z = (x - mean) / scale
    some, not_all = shares > 0, shares < 1
    rows = np.concatenate([z[some], z[not_all]])
    event = np.repeat([1, 0], [some.sum(), not_all.sum()])
    counts = np.concatenate([(weights * shares)[some], (weights * (1 - shares))[not_all]])
    model = LogisticRegression(solver="newton-cholesky", max_iter=100, warm_start=True)
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # only the weakest penalties on separable tokens
        for strength in strengths:
            model.set_params(C=strength).fit(rows, event, sample_weight=counts)
            w = model.coef_[0] / scale
            found.append(np.append(w, model.intercept_[0] - w @ mean))
    return np.stack(found)
