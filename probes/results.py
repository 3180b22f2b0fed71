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
from probes.calibration import Calibration
from probes.description_length import DescriptionLength
from probes.scores import CHANCE, ProbeKind


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
        ``continuous``, ``binary``, ``ordinal`` or ``categorical``.
    metric
        ``R²``, ``AUROC``, ``C-index`` or ``mean one-vs-rest AUROC``.
    score
        Its value over all out-of-fold predictions. For R², 0 is what the training images' mean gives.
    spearman
        Rank correlation of predictions and truth.
    mae
        Mean absolute error in the attribute's unit, in levels for an ordinal one; ``None`` for classes.
    mae_of_mean
        The same of always predicting the training images' mean, or the median level.
    interval
        Of the score, over patients.
    p_value
        Of the score, by permuting whole units and fitting again; ``None`` where it was not asked for.
    smallest_p
        The smallest p-value these units allow.
    p_scheme
        What was permuted, in words.
    truth, predicted, fold
        Per image with a value, in the order of `images`. Binary predictions are log-odds, ordinal ones expected levels,
        categorical ones the likeliest class.
    images
        Positions of those images.
    penalties
        Penalty chosen in each fold (C for a binary attribute).
    n_units
        Number of patients, or of slices of one volume.
    controls
        Shuffled attribute, baselines, untrained network, control task, description length: all that were run.
    calibration
        Of the out-of-fold predictions.
    description
        The attribute's description length; ``None`` where it was not asked for or there are too few patients.
    log_p, levels
        Image × class: log-probabilities of the values in `levels`; ``None`` for a continuous attribute.

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
    calibration: Calibration | None = None
    description: DescriptionLength | None = None
    log_p: Float[NDArray[np.float64], "image class"] | None = None
    levels: tuple[float, ...] | None = None

    @property
    def text(self) -> str:
        """One sentence with the numbers."""
        unit = " levels" if self.kind == "ordinal" else _unit(self.unit)
        always = "median" if self.kind == "ordinal" else "mean"
        error = "" if self.mae is None else f", mean absolute error {self.mae:.3g}{unit}"
        error += "" if self.mae_of_mean is None else f" (always the {always}: {self.mae_of_mean:.3g}{unit})"
        p = "" if self.p_value is None else f", p {self.p_value:.2g}"
        return f"{self.attribute}: {self.metric} {self.score:.2f}{error}; {self.interval.text}{p}"

    @property
    def selectivity(self) -> float | None:
        """Score minus that of the control tasks; ``None`` where none were run."""
        of_tasks = next((c.value for c in self.controls if c.name == "control task"), None)
        return None if of_tasks is None else self.score - of_tasks

    def claim(self, threshold: float | None = None, *, trained: bool = True, alpha: float = 0.05) -> Claim:
        """Return the claim that the attribute can be read here, to be judged by its controls.

        Parameters
        ----------
        threshold
            Score that was set beforehand; 0 for R² and 0.5 for the others by default.
        trained
            False when the activations are those of random weights.
        alpha
            Level of the p-value.

        """
        limit = threshold if threshold is not None else CHANCE[self.kind]
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
            {
                **values,
                "interval": self.interval.to_json(),
                "controls": controls,
                "text": self.text,
                "calibration": None if self.calibration is None else vars(self.calibration),
                "description": None if self.description is None else vars(self.description),
                "selectivity": self.selectivity,
            }
        )
        return found


def _unit(unit: str) -> str:
    return "" if unit in {"", "1"} else f" {unit}"
