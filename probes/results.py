"""What a probe found, with its interval, its p-value and its controls."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from mechinterp.claims import Claim, Control
from mechinterp.files import jsonable
from mechinterp.statistics.bootstrap import Interval
from probes.scores import ProbeKind


@dataclass(frozen=True)
class ProbeResult:
    """One attribute read from one site's activations, on images that did not train the probe.

    Parameters
    ----------
    attribute, unit
        What was read, and its unit.
    site
        Where from; may be empty.
    kind
        ``continuous`` (ridge) or ``binary`` (logistic).
    metric
        ``R²`` or ``AUROC``.
    score
        Its value over all out-of-fold predictions. For R², 0 is what the training images' mean gives.
    spearman
        Rank correlation of predictions and truth.
    mae
        Mean absolute error in the attribute's unit; ``None`` for a binary attribute.
    mae_of_mean
        The same of always predicting the training images' mean.
    interval
        Of the score, over patients.
    p_value
        Of the score, by permuting whole units and fitting again; ``None`` where it was not asked for.
    smallest_p
        The smallest p-value these units allow.
    p_scheme
        What was permuted, in words.
    truth, predicted, fold
        Per image with a value, in the order of `images`. Binary predictions are log-odds.
    images
        Positions of those images.
    penalties
        Penalty chosen in each fold (C for a binary attribute).
    n_units
        Number of patients, or of slices of one volume.
    controls
        Shuffled attribute, baselines, untrained network: all that were run.

    """

    attribute: str
    unit: str
    site: str
    kind: ProbeKind
    metric: str
    score: float
    spearman: float
    mae: float | None
    mae_of_mean: float | None
    interval: Interval
    p_value: float | None
    smallest_p: float
    p_scheme: str
    truth: Float[NDArray[np.float64], " image"]
    predicted: Float[NDArray[np.float64], " image"]
    fold: Int[NDArray[np.int64], " image"]
    images: Int[NDArray[np.int64], " image"]
    penalties: tuple[float, ...]
    n_units: int
    controls: tuple[Control, ...] = field(default_factory=tuple)

    @property
    def text(self) -> str:
        """One sentence with the numbers."""
        error = "" if self.mae is None else f", mean absolute error {self.mae:.3g}{_unit(self.unit)}"
        error += "" if self.mae_of_mean is None else f" (always the mean: {self.mae_of_mean:.3g}{_unit(self.unit)})"
        p = "" if self.p_value is None else f", p {self.p_value:.2g}"
        return f"{self.attribute}: {self.metric} {self.score:.2f}{error}; {self.interval.text}{p}"

    def claim(self, threshold: float | None = None, *, trained: bool = True, alpha: float = 0.05) -> Claim:
        """Return the claim that the attribute can be read here, to be judged by its controls.

        Parameters
        ----------
        threshold
            Score that was set beforehand; 0 for R² and 0.5 for AUROC by default.
        trained
            False when the activations are those of random weights.
        alpha
            Level of the p-value.

        """
        limit = threshold if threshold is not None else (0.0 if self.kind == "continuous" else 0.5)
        significant = self.p_value is not None and self.p_value <= alpha
        where = f" from {self.site}" if self.site else ""
        return Claim(
            statement=f"{self.attribute} can be read{where}: {self.metric} {self.score:.2f}",
            strength="correlational",
            value=self.score,
            unit="1",
            holds=bool(self.score > limit and significant),
            criterion=f"{self.metric} on held-out images above {limit:g}, p at most {alpha:g}",
            controls=self.controls,
            interval=self.interval.ends,
            interval_note=self.interval.reason or self.interval.warning,
            p_value=self.p_value,
            trained=trained,
        )

    def to_json(self) -> dict[str, Any]:
        """Return all of it as plain JSON."""
        controls = [{"name": c.name, "value": c.value, "passed": c.passed, "detail": c.detail} for c in self.controls]
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        found: dict[str, Any] = jsonable(
            {**values, "interval": self.interval.to_json(), "controls": controls, "text": self.text}
        )
        return found


def _unit(unit: str) -> str:
    return "" if unit in {"", "1"} else f" {unit}"
