"""Whether a model uses a quantity through a direction: effects of moving along it beside the true ones, and the verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from mechinterp.claims import Claim, Control
from mechinterp.files import jsonable
from mechinterp.statistics.bootstrap import Interval, bootstrap_groups
from mechinterp.statistics.equivalence import Equivalence, equivalence_test
from probes.footprints import PARTS, Footprint

Verdict = Literal["used", "unused", "undecided"]
SIZE_RANGE = (0.5, 2.0)
"""How large a steered effect may be, as a multiple of the true one, to count as the same."""

Effects = Float[NDArray[np.float64], "image step"]


@dataclass(frozen=True)
class Calibration:
    """How a feature follows the attribute when nothing else changes: the physical calibration curve.

    Parameters
    ----------
    value
        Image × step: the attribute in its unit, the unchanged image among the steps.
    reading
        The feature, mean over the tokens, of the same images.
    patients
        Patient of each image.
    per_unit
        Mean over patients of the reading's slope, per unit of the attribute.
    interval
        95 % interval of it, over patients.
    footprint
        What of `per_unit` comes about where a structure grows, around it, and everywhere; ``None`` where every token is
        taken alike.

    """

    value: Effects
    reading: Effects
    patients: tuple[Any, ...]
    per_unit: float
    interval: Interval
    footprint: Footprint | None = None

    @property
    def follows_by(self) -> tuple[float, Interval]:
        """What must not be 0: the change on and around the tiles that grow, or of the mean token; and its interval."""
        if self.footprint is None:
            return self.per_unit, self.interval
        return self.footprint.local, self.footprint.local_interval

    @property
    def follows(self) -> bool:
        """Whether the feature moves with the attribute at all: the interval leaves out 0."""
        ends = self.follows_by[1].ends
        return ends is not None and ends[0] * ends[1] > 0


@dataclass(frozen=True)
class OffTarget:
    """What moving along the direction does to another objective, per unit of the attribute.

    Parameters
    ----------
    steered, true
        Mean over patients under steering, and under the true counterfactual.
    random
        95th percentile of the absolute mean under random directions of the same norm.

    """

    steered: float
    true: float
    random: float


@dataclass(frozen=True)
class UsageResult:
    """Moving along a direction, beside the true counterfactuals.

    Parameters
    ----------
    attribute, unit
        What was changed, and its unit.
    site, feature
        Where the direction is, and what it is called.
    objective
        Name of what was measured.
    steps
        Changes of the attribute, in its unit.
    patients
        Patient of each image.
    true, steered, swapped
        Change of the objective for each image and step: of the re-rendered image; with the activation moved along the
        direction by as much as the step moves it on calibration patients; with only the feature swapped, token by
        token, for its value on the re-rendered image.
    random
        Direction × image × step: as `steered`, along random directions of the same norm.
    calibration
        How the feature follows the attribute, on other patients.
    margin
        Slope, in the objective per unit, that still counts as nothing. Set beforehand.
    off_target
        Other objectives.
    alpha
        Level of all tests.
    trained
        False when the model has random weights.

    """

    attribute: str
    unit: str
    site: str
    feature: str
    objective: str
    steps: tuple[float, ...]
    patients: tuple[Any, ...]
    true: Effects
    steered: Effects
    swapped: Effects
    random: Float[NDArray[np.float64], "direction image step"]
    calibration: Calibration
    margin: float
    off_target: Mapping[str, OffTarget] = field(default_factory=dict)
    alpha: float = 0.05
    trained: bool = True

    @cached_property
    def true_slope(self) -> Equivalence:
        """Slope of the true effect per unit, over patients."""
        return self._slope(self.true)

    @cached_property
    def steered_slope(self) -> Equivalence:
        """Slope of the steered effect per unit, over patients."""
        return self._slope(self.steered)

    @cached_property
    def swapped_slope(self) -> Equivalence:
        """Slope of what goes through the feature of the true effect, per unit, over patients."""
        return self._slope(self.swapped)

    @property
    def ratio(self) -> float:
        """Steered over true slope; NaN where the true one is as good as nothing."""
        return float("nan") if self.true_slope.equivalent else _ratio(self.steered_slope.mean, self.true_slope.mean)

    @cached_property
    def ratio_interval(self) -> Interval:
        """95 % interval of :attr:`ratio`, by drawing patients."""
        steered, true = slopes(self.steered, self.steps), slopes(self.true, self.steps)
        return bootstrap_groups(
            lambda images: _ratio(float(steered[images].mean()), float(true[images].mean())), self.patients
        )

    @cached_property
    def random_slopes(self) -> Float[NDArray[np.float64], " direction"]:
        """Mean slope along each random direction."""
        return np.array([self._slope(effects).mean for effects in self.random])

    @property
    def p_random(self) -> float:
        """Share of random directions, this one among them, that move the objective as much."""
        reached = int((np.abs(self.random_slopes) >= abs(self.steered_slope.mean)).sum())
        return (reached + 1) / (len(self.random_slopes) + 1)

    @cached_property
    def dose_response(self) -> float:
        """Rank correlation of the patients' mean steered effect with the step: 1 where it always rises, -1 where it falls."""
        from scipy.stats import spearmanr

        mean = self.steered.mean(0)
        if np.ptp(mean) == 0 or len(self.steps) < 2:
            return float("nan")
        return float(spearmanr(self.steps, mean).statistic)

    @cached_property
    def shortfalls(self) -> tuple[str, ...]:
        """What speaks against "used", in words; empty where nothing does."""
        steered, true = self.steered_slope, self.true_slope
        found = []
        if not self.calibration.follows:
            found.append(f"the direction does not follow the attribute ({self.calibration.follows_by[1].text})")
        if not steered.beyond:
            found.append(f"the steered slope is not beyond the margin of {self.margin:g} ({steered.interval.text})")
        if not steered.mean * true.mean > 0:
            found.append(f"the sign is not the true one's ({steered.mean:.3g} against {true.mean:.3g})")
        if true.equivalent:
            found.append("the true counterfactual does nothing either, so there is no size to compare with")
        elif not SIZE_RANGE[0] <= self.ratio <= SIZE_RANGE[1]:
            found.append(f"the size is {self.ratio:.2f} times the true one's")
        if not abs(self.dose_response) >= 0.8:
            found.append(f"the effect does not follow the dose (rank correlation {self.dose_response:.2f})")
        if self.p_random > self.alpha:
            found.append(f"random directions of the same norm do as much (p {self.p_random:.2g})")
        return tuple(found)

    @property
    def verdict(self) -> Verdict:
        """``unused`` by the equivalence test, ``used`` where nothing speaks against it, ``undecided`` otherwise."""
        if not self.shortfalls:
            return "used"
        return "unused" if self.calibration.follows and self.steered_slope.equivalent else "undecided"

    @property
    def text(self) -> str:
        """One sentence with the numbers."""
        per = f"per {self.unit}" if self.unit not in {"", "1"} else "per unit"
        return (
            f"{self.attribute} is {self.verdict} at {self.site} ({self.feature}): {self.objective} moves by "
            f"{self.steered_slope.mean:.3g} {per} when steered, by {self.true_slope.mean:.3g} under the true counterfactual "
            f"({self.steered_slope.interval.text}; margin {self.margin:g})"
        )

    @property
    def claims(self) -> tuple[Claim, Claim]:
        """The two claims that can be made, each to be judged by its own controls: it is used, and it is not."""
        return self._used(), self._unused()

    def to_json(self) -> dict[str, Any]:
        """Return the numbers, the curves and the claims as plain JSON."""
        footprint = self.calibration.footprint
        found: dict[str, Any] = jsonable(
            {
                **{
                    n: getattr(self, n)
                    for n in ("attribute", "unit", "site", "feature", "objective", "steps", "margin")
                },
                "verdict": self.verdict,
                "text": self.text,
                "shortfalls": self.shortfalls,
                "true_slope": self.true_slope.mean,
                "true_interval": self.true_slope.interval.to_json(),
                "steered_slope": self.steered_slope.mean,
                "steered_interval": self.steered_slope.interval.to_json(),
                "p_equivalence": self.steered_slope.p_value,
                "swapped_slope": self.swapped_slope.mean,
                "ratio": self.ratio,
                "ratio_interval": self.ratio_interval.to_json(),
                "p_random": self.p_random,
                "random_slopes": self.random_slopes,
                "dose_response": self.dose_response,
                "calibration_per_unit": self.calibration.per_unit,
                "calibration_interval": self.calibration.interval.to_json(),
                "footprint": None if footprint is None else {name: getattr(footprint, name) for name in PARTS},
                "off_target": {name: vars(o) for name, o in self.off_target.items()},
                "mean_true": self.true.mean(0),
                "mean_steered": self.steered.mean(0),
                "claims": [c.to_json() for c in self.claims],
            }
        )
        return found

    def _slope(self, effects: Effects) -> Equivalence:
        return equivalence_test(slopes(effects, self.steps), self.patients, margin=self.margin, alpha=self.alpha)

    def _used(self) -> Claim:
        steered, true = self.steered_slope, self.true_slope
        low, high = SIZE_RANGE
        bound = float(np.quantile(np.abs(self.random_slopes), 1 - self.alpha))
        return Claim(
            statement=f"the model uses {self.attribute} through {self.feature} of {self.site}: {self.text}",
            strength="ground-truth-verified",
            value=steered.mean,
            unit=self._unit,
            holds=steered.beyond and low <= self.ratio <= high,
            criterion=f"steered slope beyond ±{self.margin:g}, and {low:g} to {high:g} times the true counterfactual's",
            controls=(
                Control(
                    "true counterfactual", true.mean, steered.mean * true.mean > 0 and not true.equivalent,
                    "as good as nothing" if true.equivalent else f"steered, {self.ratio:.2f} times its slope",
                ),
                Control(
                    f"{len(self.random_slopes)} random directions of the same norm", bound, self.p_random <= self.alpha,
                    f"95 % move it by less than {bound:.3g}; p {self.p_random:.2g}",
                ),
                Control(
                    "dose response", self.dose_response, abs(self.dose_response) >= 0.8, "rank correlation with the dose"
                ),
                self._follows(),
            ),
            interval=steered.interval.ends,
            interval_note=steered.interval.reason or steered.interval.warning,
            p_value=self.p_random,
            trained=self.trained,
        )  # fmt: skip

    def _unused(self) -> Claim:
        steered, true = self.steered_slope, self.true_slope
        return Claim(
            statement=f"the model does not use {self.attribute} through {self.feature} of {self.site}: {self.text}",
            strength="ground-truth-verified",
            value=steered.mean,
            unit=self._unit,
            holds=steered.equivalent,
            criterion=f"slope within ±{self.margin:g} by two one-sided tests at {self.alpha:g}",
            controls=(
                self._follows(),
                Control(
                    "true counterfactual", true.mean, true.equivalent,
                    "within the margin too" if true.equivalent
                    else f"moves the objective by {true.mean:.3g}: the model may use it through another direction",
                ),
            ),
            interval=steered.interval.ends,
            interval_note=steered.interval.reason or steered.interval.warning,
            p_value=steered.p_value,
            trained=self.trained,
        )  # fmt: skip

    def _follows(self) -> Control:
        value, interval = self.calibration.follows_by
        where = "" if self.calibration.footprint is None else " on and around the tiles that grow"
        return Control(
            "the direction follows the attribute", value, self.calibration.follows, f"per unit{where}, {interval.text}"
        )

    @property
    def _unit(self) -> str:
        return f"{self.objective}/{self.unit}" if self.unit not in {"", "1"} else self.objective


def slopes(effects: Effects, steps: tuple[float, ...] | NDArray[np.float64]) -> Float[NDArray[np.float64], " image"]:
    """Return the slope through the origin of each image's effects on the steps."""
    s = np.asarray(steps, dtype=np.float64)
    found: NDArray[np.float64] = effects @ s / (s @ s)
    return found


def _ratio(top: float, bottom: float) -> float:
    return top / bottom if bottom != 0 else float("nan")
