"""A claim with its evidence; the verdict is a pure function of the metric and the controls."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Strength = Literal["correlational", "interventional", "ground-truth-verified"]
Verdict = Literal["met", "not met"]


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
        Whether the control behaved as the claim needs.
    detail
        In words, with numbers.

    """

    name: str
    value: float | None
    passed: bool
    detail: str = ""


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
        Whether the metric itself meets the criterion set beforehand.
    criterion
        That criterion, in words.
    controls
        All of them, failed ones too. A claim without controls is never met.
    trained
        False when the model has random weights.

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

    @property
    def verdict(self) -> Verdict:
        """``met`` only for a trained model whose metric holds and whose controls all passed."""
        return "met" if not self.reasons else "not met"

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why the claim is not met; empty when it is."""
        found = []
        if not self.trained:
            found.append("the model is untrained (random weights)")
        if not self.holds:
            found.append(f"the criterion does not hold: {self.criterion}")
        if not self.controls:
            found.append("no control was run")
        found += [
            f"control failed: {c.name}" + (f" ({c.detail})" if c.detail else "") for c in self.controls if not c.passed
        ]
        return tuple(found)

    def to_json(self) -> dict[str, Any]:
        """Return the claim with its verdict as plain JSON."""
        return {
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
            "controls": [
                {"name": c.name, "value": c.value, "passed": c.passed, "detail": c.detail} for c in self.controls
            ],
            "verdict": self.verdict,
            "reasons": list(self.reasons),
        }
