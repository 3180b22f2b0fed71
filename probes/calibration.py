"""Whether predictions can be taken at their word: slope and intercept, expected calibration error, what a figure draws."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from probes.scores import Reading

Values = NDArray[np.float64]
BINS = 10


@dataclass(frozen=True)
class Calibration:
    """Out-of-fold predictions against what was true.

    Parameters
    ----------
    slope, intercept
        Of the truth over the prediction, by least squares, in the attribute's unit; for a binary attribute of the
        log-odds, by logistic regression (Cox's recalibration [1]_). 1 and 0 are perfect; a slope below 1 says that
        predictions are too extreme. ``None`` for levels and classes.
    error
        Expected calibration error [2]_: mean distance of predicted and true share over bins, weighted by their size;
        of the predicted class for levels and classes. ``None`` for a continuous attribute.
    predicted, observed, count
        Per bin: mean prediction (a probability for classes), mean truth (a share for classes), number of images.

    References
    ----------
    .. [1] Cox. Two further applications of a model for binary regression. Biometrika 45, 1958.
    .. [2] Guo, Pleiss, Sun, Weinberger. On calibration of modern neural networks. ICML 2017, equation 5.

    """

    slope: float | None
    intercept: float | None
    error: float | None
    predicted: tuple[float, ...]
    observed: tuple[float, ...]
    count: tuple[int, ...]

    @property
    def text(self) -> str:
        """In one line, with numbers."""
        parts = []
        if self.slope is not None and self.intercept is not None:
            parts.append(f"calibration slope {self.slope:.2f}, intercept {self.intercept:.3g}")
        if self.error is not None:
            parts.append(f"expected calibration error {self.error:.3f}")
        return ", ".join(parts)


def calibration_of(reading: Reading) -> Calibration:
    """Return the calibration of a reading's first target.

    Continuous predictions are binned into tenths of the images; probabilities into ten bins of equal width.
    """
    if reading.kind == "continuous":
        truth, predicted = reading.truth[:, 0], reading.predicted[:, 0]
        slope, intercept = _line(predicted, truth)
        order = np.argsort(predicted, kind="stable")
        tenth = np.empty(len(truth), dtype=np.int64)
        tenth[order] = np.arange(len(truth)) * min(BINS, len(truth)) // len(truth)
        return Calibration(slope, intercept, None, *_binned(tenth, predicted, truth))
    if reading.kind == "binary":
        truth, logits = reading.truth[:, 0], reading.predicted[:, 0]
        slope, intercept = _recalibration(logits, truth)
        p = 1 / (1 + np.exp(-np.clip(logits, -500, 500)))
    else:
        # levels and classes: the class that was predicted, and whether it was right
        log_p = reading.predicted if reading.log_p is None else reading.log_p
        codes = np.unique(_true_classes(reading), return_inverse=True)[1].reshape(-1)
        p, truth = np.exp(log_p.max(1)), (log_p.argmax(1) == codes).astype(np.float64)
        slope = intercept = None
    bins = np.minimum((p * BINS).astype(np.int64), BINS - 1)
    shown = _binned(bins, p, truth)
    error = float(sum(n * abs(a - b) for a, b, n in zip(*shown, strict=True)) / len(truth))
    return Calibration(slope, intercept, error, *shown)


def _true_classes(reading: Reading) -> Values:
    if reading.kind == "categorical":
        found: Values = reading.truth[:, : reading.classes].argmax(1).astype(np.float64)
        return found
    return reading.truth[:, 0]


def _binned(
    bins: NDArray[np.int64], predicted: Values, truth: Values
) -> tuple[tuple[float, ...], tuple[float, ...], tuple[int, ...]]:
    rows = [(predicted[bins == b].mean(), truth[bins == b].mean(), int((bins == b).sum())) for b in np.unique(bins)]
    return (
        tuple(float(a) for a, _, _ in rows),
        tuple(float(b) for _, b, _ in rows),
        tuple(n for _, _, n in rows),
    )


def _line(x: Float[Values, " image"], y: Float[Values, " image"]) -> tuple[float | None, float | None]:
    spread = float(((x - x.mean()) ** 2).sum())
    if spread <= 0:
        return None, None
    slope = float(((x - x.mean()) * (y - y.mean())).sum() / spread)
    return slope, float(y.mean() - slope * x.mean())


def _recalibration(
    logits: Float[Values, " image"], truth: Float[Values, " image"]
) -> tuple[float | None, float | None]:
    from scipy.optimize import minimize

    scale = float(np.abs(logits).max()) or 1.0
    sign = 2 * truth - 1

    def loss(ab: Values) -> tuple[float, Values]:
        z = ab[0] + ab[1] * logits / scale
        wrong = 1 / (1 + np.exp(np.clip(sign * z, -500, 500)))
        gradient = np.array([-(sign * wrong).sum(), -(sign * wrong * logits / scale).sum()])
        return float(np.logaddexp(0, -sign * z).sum()), gradient

    fitted = minimize(loss, np.zeros(2), jac=True, method="L-BFGS-B", options={"maxiter": 500})
    # separated classes have no finite slope
    if fitted.fun < 1e-3 * len(truth):
        return None, None
    return float(fitted.x[1] / scale), float(fitted.x[0])
