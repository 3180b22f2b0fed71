"""A claim with its evidence; the verdict is a pure function of the metric and the controls."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Strength = Literal["correlational", "interventional", "ground-truth-verified"]
Verdict = Literal["met", "not met", "inconclusive"]
Outcome = Literal["holds", "open", "fails"]

_Z_95 = 1.959964
_Z_POWER = 0.841621
"""80 % power."""
_SIGNED_ZERO = re.compile(r"(?<![\w.,])[-−](?=0(?:\.0+)?(?!\.?\d)(?!\w))")


def without_signed_zero(text: str) -> str:
    """Return a sentence in which no number that is rounded to zero has a minus.

    Examples
    --------
    >>> without_signed_zero("moves it by -0.00 (-0.01 to -0.0)")
    'moves it by 0.00 (-0.01 to 0.0)'

    """
    return _SIGNED_ZERO.sub("", text)


@dataclass(frozen=True)
class Bound:
    """The number a metric is held against, set beforehand, and the side of it on which it must lie.

    Parameters
    ----------
    side
        ``at least`` or ``at most``.
    threshold
        The number, in the metric's unit.

    """

    side: Literal["at least", "at most"]
    threshold: float

    def outcome(self, value: float | None, interval: tuple[float, float] | None = None) -> Outcome:
        """Return whether a metric keeps the bound; ``open`` where its interval lies on both sides, or it has no value.

        Parameters
        ----------
        value
            The metric.
        interval
            Its interval over patients. All of it must lie on the right side. Without one the value alone decides.

        """
        if value is None or not math.isfinite(value):
            return "open"
        worst, best = (value, value) if interval is None else (min(interval), max(interval))
        if self.side == "at most":
            worst, best = -best, -worst
        threshold = self.threshold if self.side == "at least" else -self.threshold
        return "holds" if worst >= threshold else "fails" if best < threshold else "open"

    def smallest_visible(self, interval: tuple[float, float] | None) -> float | None:
        """Return the value nearest to the threshold that this study would have told from it in four of five repetitions.

        Parameters
        ----------
        interval
            The 95 % interval that was found; its width says how well the study sees.

        Returns
        -------
        float or None
            Threshold plus (or minus) (1.96 + 0.84) standard errors: the usual smallest detectable effect at two-sided
            5 % and a power of 80 %, the standard error being a 1.96th of half the interval. ``None`` without an interval.

        """
        if interval is None:
            return None
        error = abs(interval[1] - interval[0]) / (2 * _Z_95)
        step = (_Z_95 + _Z_POWER) * error
        return self.threshold + step if self.side == "at least" else self.threshold - step

    def to_json(self) -> dict[str, Any]:
        """Return the bound as plain JSON."""
        return {"side": self.side, "threshold": self.threshold}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Bound:
        """Read what :meth:`to_json` wrote."""
        return cls(record["side"], record["threshold"])


@dataclass(frozen=True)
class Control:
    """Something that must not show the effect if the claim is true.

    Parameters
    ----------
    name
        What was put in the claim's place, for example ``200 random sets of the same norm``.
    value
        The control's value of the claim's metric, or the number that decides it.
    passed
        Whether the control behaved as the claim needs; ``None`` where it was not run. Where `bound` is given, the value
        decides and what is passed here is ignored.
    detail
        In words, with numbers.
    bound
        What the value is held against.
    measure
        What the value is, where it is not the claim's own metric: such a control is not drawn on the claim's axis.

    """

    name: str
    value: float | None
    passed: bool | None = None
    detail: str = ""
    bound: Bound | None = None
    measure: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "detail", without_signed_zero(self.detail))
        if self.bound is not None:
            outcome = self.bound.outcome(self.value)
            object.__setattr__(self, "passed", None if outcome == "open" else outcome == "holds")

    def to_json(self) -> dict[str, Any]:
        """Return the control as plain JSON."""
        record: dict[str, Any] = {
            "name": self.name, "value": self.value, "passed": self.passed, "detail": self.detail
        }  # fmt: skip
        if self.bound is not None:
            record["bound"] = self.bound.to_json()
        if self.measure:
            record["measure"] = self.measure
        return record

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Control:
        """Read what :meth:`to_json` wrote."""
        bound = record.get("bound")
        return cls(
            record["name"], record["value"], record["passed"], record.get("detail", ""),
            None if bound is None else Bound.from_json(bound), record.get("measure", ""),
        )  # fmt: skip


@dataclass(frozen=True)
class Claim:
    """One statement about a model, with what is needed to believe or reject it.

    Parameters
    ----------
    statement
        What is claimed, in plain words with its numbers.
    strength
        How the evidence was won.
    value, unit
        The metric.
    interval
        95 % interval over patients, or ``None`` with `interval_note` saying why there is none.
    interval_note
        For example ``not estimable (n = 1)``.
    p_value
        After correction, or ``None``.
    holds
        Whether the metric itself meets the criterion set beforehand. Where `bound` is given, value and interval decide and
        what is passed here is ignored.
    criterion
        That criterion, in words.
    controls
        All of them, failed ones too. A claim without controls is never met.
    trained
        False when the model has random weights.
    bound
        The criterion as a number. With it, a metric whose interval lies on both sides is *inconclusive*.
    largest_p
        With `bound`: a larger `p_value`, or none, leaves the claim open too.
    numbers
        Further numbers that the statement and the controls' details speak of, by name.
    test
        Name of the test in the analysis plan that this claim answers; empty for what was found by looking.

    """

    statement: str
    strength: Strength
    value: float | None
    unit: str
    holds: bool
    criterion: str
    controls: tuple[Control, ...] = field(default_factory=tuple)
    interval: tuple[float, float] | None = None
    interval_note: str = ""
    p_value: float | None = None
    trained: bool = True
    bound: Bound | None = None
    largest_p: float | None = None
    numbers: Mapping[str, float | None] = field(default_factory=dict, hash=False)
    test: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "statement", without_signed_zero(self.statement))
        if self.bound is not None:
            object.__setattr__(self, "holds", self.outcome == "holds")

    @classmethod
    def measured(
        cls,
        statement: str,
        strength: Strength,
        value: float | None,
        unit: str,
        bound: Bound,
        criterion: str,
        *,
        controls: tuple[Control, ...],
        **more: Any,
    ) -> Claim:
        """Return a claim whose metric decides by a bound; what else a claim has is passed by name."""
        return cls(statement, strength, value, unit, False, criterion, controls, bound=bound, **more)

    @property
    def outcome(self) -> Outcome:
        """Whether the metric meets its criterion, controls aside."""
        if self.bound is None:
            return "holds" if self.holds else "fails"
        found = self.bound.outcome(self.value, self.interval)
        seen = self.largest_p is None or (self.p_value is not None and self.p_value <= self.largest_p)
        return "open" if found == "holds" and not seen else found

    @property
    def smallest_visible(self) -> float | None:
        """The smallest value that would have been told from the criterion, where the metric was not."""
        return self.bound.smallest_visible(self.interval) if self.bound is not None and self.outcome == "open" else None

    @property
    def verdict(self) -> Verdict:
        """``met`` only for a trained model whose metric holds and whose controls all passed.

        ``inconclusive`` where nothing speaks against the claim, but its metric cannot be told from the criterion or a control
        was not run.
        """
        if not self.reasons:
            return "met"
        return "not met" if self._against else "inconclusive"

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why the claim is not met; empty when it is."""
        found = list(self._against)
        if self.outcome == "open":
            found.append(f"the metric cannot be told from the criterion: {self.criterion}")
        found += [f"control not run: {_named(c)}" for c in self.controls if c.passed is None]
        return tuple(found)

    @property
    def _against(self) -> tuple[str, ...]:
        found = []
        if not self.trained:
            found.append("the model is untrained (random weights)")
        if self.outcome == "fails":
            found.append(f"the criterion does not hold: {self.criterion}")
        if not self.controls:
            found.append("no control was run")
        found += [f"control failed: {_named(c)}" for c in self.controls if c.passed is False]
        return tuple(found)

    def to_json(self) -> dict[str, Any]:
        """Return the claim with its verdict as plain JSON; what a claim without a bound does not have is left out."""
        record: dict[str, Any] = {
            "statement": self.statement,
            "strength": self.strength,
            "value": self.value,
            "unit": self.unit,
            "interval": None if self.interval is None else list(self.interval),
            "interval_note": self.interval_note,
            "p_value": self.p_value,
            "criterion": self.criterion,
            "holds": self.holds,
            "trained": self.trained,
            "controls": [c.to_json() for c in self.controls],
            "verdict": self.verdict,
            "reasons": list(self.reasons),
        }
        if self.bound is not None:
            record |= {"bound": self.bound.to_json(), "smallest_visible": self.smallest_visible}
        if self.largest_p is not None:
            record["largest_p"] = self.largest_p
        if self.numbers:
            record["numbers"] = dict(self.numbers)
        return record | ({"test": self.test} if self.test else {})

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Claim:
        """Read what :meth:`to_json` wrote; the verdict is reached anew."""
        interval, bound = record.get("interval"), record.get("bound")
        return cls(
            statement=record["statement"],
            strength=record["strength"],
            value=record["value"],
            unit=record["unit"],
            holds=record["holds"],
            criterion=record["criterion"],
            controls=tuple(Control.from_json(c) for c in record["controls"]),
            interval=None if interval is None else (interval[0], interval[1]),
            interval_note=record.get("interval_note", ""),
            p_value=record.get("p_value"),
            trained=record.get("trained", True),
            bound=None if bound is None else Bound.from_json(bound),
            largest_p=record.get("largest_p"),
            numbers=record.get("numbers", {}),
            test=record.get("test", ""),
        )


def _named(control: Control) -> str:
    return control.name + (f" ({control.detail})" if control.detail else "")
