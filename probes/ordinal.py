"""Proportional odds: one direction and ordered thresholds, for levels whose distances mean nothing."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from probes.classifiers import spread_over, standardised

Values = NDArray[np.float64]


def ordinal_path(
    x_train: Float[Values, "train width"],
    codes: Int[NDArray[np.int64], " train"],
    x_test: Float[Values, "test width"],
    strengths: tuple[float, ...],
    classes: int,
) -> Float[Values, "strength test class"]:
    r"""Return log-probabilities of the levels under the proportional-odds model [1]_, for every penalty.

    .. math:: P(y \le k \mid x) = \sigma(\theta_k - w^\top x), \quad \theta_0 < \theta_1 < \dots

    fitted by maximising :math:`C \sum \log p - \lVert w \rVert^2 / 2`, so that with two levels it is scikit-learn's
    ``LogisticRegression``.

    Parameters
    ----------
    x_train, codes
        What is learned from; at least two levels.
    x_test
        What is predicted.
    strengths
        Inverse penalties C, each fit starting from the last.
    classes
        Number of levels; one that did not train gets next to no probability.

    References
    ----------
    .. [1] McCullagh. Regression models for ordinal data. J. R. Stat. Soc. B 42, 1980.

    """
    from scipy.optimize import minimize

    x, t = standardised(x_train, x_test)
    present, levels = np.unique(codes, return_inverse=True)
    levels = levels.reshape(-1)
    parameters = _start(levels, x.shape[1])
    found = []
    for c in strengths:
        fitted = minimize(
            negative_log_posterior, parameters, args=(x, levels, c), jac=True, method="L-BFGS-B",
            options={"maxiter": 1000, "ftol": 1e-10, "gtol": 1e-6},
        )  # fmt: skip
        parameters = fitted.x
        w, thresholds = _split(parameters, x.shape[1])
        found.append(spread_over(log_probabilities(t @ w, thresholds), present, classes))
    return np.stack(found)


def log_probabilities(
    latent: Float[Values, " image"], thresholds: Float[Values, " cut"]
) -> Float[Values, "image level"]:
    r"""Return the log-probability of every level.

    Differences of neighbouring sigmoids are taken as
    :math:`\log(\sigma(a) - \sigma(b)) = \log\sigma(a) + \log\sigma(-b) + \log(1 - e^{b - a})`, which stays exact in
    the tails.
    """
    upper, lower = _cuts(latent, thresholds)
    # both ends are infinite at the outer levels, where the gap is closed by definition
    gap = np.concatenate([[np.inf], np.diff(thresholds), [np.inf]])
    found: Values = -np.logaddexp(0, -upper) - np.logaddexp(0, lower) + np.log(-np.expm1(-gap))
    return found


def negative_log_posterior(
    parameters: Values, x: Float[Values, "image width"], levels: Int[NDArray[np.int64], " image"], strength: float
) -> tuple[float, Values]:
    """Return what the fit minimises and its gradient: weights first, then the lowest threshold and log-distances."""
    width = x.shape[1]
    w, thresholds = _split(parameters, width)
    upper, lower = _cuts(x @ w, thresholds)
    rows = np.arange(len(x))
    a, b = upper[rows, levels], lower[rows, levels]
    gap = np.concatenate([[np.inf], np.diff(thresholds), [np.inf]])[levels]
    log_p = -np.logaddexp(0, -a) - np.logaddexp(0, b) + np.log(-np.expm1(-gap))
    closing = 1 / np.expm1(np.minimum(gap, 700))  # of the distance of both cuts
    to_a, to_b = _sigmoid(-a) + closing, -_sigmoid(b) - closing
    to_latent = -(_sigmoid(-a) - _sigmoid(b))
    to_thresholds = np.zeros(len(thresholds) + 2)
    np.add.at(to_thresholds, levels + 1, np.where(np.isfinite(a), to_a, 0))
    np.add.at(to_thresholds, levels, np.where(np.isfinite(b), to_b, 0))
    inner = to_thresholds[1:-1]
    after = np.cumsum(inner[::-1])[::-1]  # a threshold moves with every distance below it
    steps = np.exp(parameters[width + 1 :])
    gradient = np.concatenate([strength * (x.T @ to_latent), [strength * after[0]], strength * after[1:] * steps])
    gradient = -gradient
    gradient[:width] += w
    return float(0.5 * w @ w - strength * log_p.sum()), gradient


def _split(parameters: Values, width: int) -> tuple[Values, Values]:
    free = parameters[width:]
    return parameters[:width], free[0] + np.concatenate([[0.0], np.cumsum(np.exp(free[1:]))])


def _start(levels: NDArray[np.int64], width: int) -> Values:
    share = np.clip(np.cumsum(np.bincount(levels))[:-1] / len(levels), 1e-3, 1 - 1e-3)
    cuts = np.log(share / (1 - share))
    return np.concatenate([np.zeros(width), cuts[:1], np.log(np.maximum(np.diff(cuts), 1e-3))])


def _cuts(latent: Values, thresholds: Values) -> tuple[Values, Values]:
    upper = np.concatenate([thresholds, [np.inf]])[None] - latent[:, None]
    lower = np.concatenate([[-np.inf], thresholds])[None] - latent[:, None]
    return upper, lower


def _sigmoid(z: Values) -> Values:
    from scipy.special import expit

    found: Values = expit(z)
    return found
