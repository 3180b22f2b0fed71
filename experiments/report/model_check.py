"""Does the model do its task at all? A model at chance is not interpreted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from mechinterp.claims import Bound, Claim

MOST_OUTSIDE = Bound("at most", 0.2)
"""A fifth of the images outside where a twentieth is expected: four times as many."""

CheckState = Literal["does its task", "at chance", "not checked"]


@dataclass(frozen=True)
class OutOfDistribution:
    """Whether the images it is judged on look, to the model, like those it was fitted or explored on.

    Parameters
    ----------
    method
        In words: what was compared.
    share_outside
        Share of the judged images beyond the 95th percentile of the others; 0.05 is expected where nothing differs.
    bound
        What that share is held against.
    detail
        In words.

    """

    method: str
    share_outside: float | None
    bound: Bound = MOST_OUTSIDE
    detail: str = ""

    @property
    def inside(self) -> bool | None:
        """Whether the images are like those; ``None`` where it was not measured."""
        outcome = self.bound.outcome(self.share_outside)
        return None if outcome == "open" else outcome == "holds"

    def to_json(self) -> dict[str, Any]:
        """Return the check as plain JSON."""
        return {
            "method": self.method, "share_outside": self.share_outside, "bound": self.bound.to_json(),
            "detail": self.detail, "inside": self.inside,
        }  # fmt: skip

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> OutOfDistribution:
        """Read what :meth:`to_json` wrote."""
        return cls(record["method"], record["share_outside"], Bound.from_json(record["bound"]), record["detail"])


@dataclass(frozen=True)
class ModelCheck:
    """How well the model does its task, on patients it was not fitted to.

    Parameters
    ----------
    task
        What is measured: ``referable against not, per image``.
    metric, value
        ``AUROC`` for classes, ``R²`` or a correlation for quantities; ``None`` where it cannot be measured, which `note`
        explains.
    interval, interval_note
        Over patients, or why there is none.
    chance
        The metric of a model that knows nothing.
    n_images, n_groups
        What it rests on.
    calibration_error
        Expected calibration error: mean distance of stated and observed frequency.
    brier, brier_reference
        Mean squared error of the probability (of more than two classes summed over them), and that of always stating the
        observed frequency.
    out_of_distribution
        The check, or ``None``.
    trained
        False for random weights.
    note
        In words.
    claims
        What else was seen of the model's answers before it was looked into; no element's verdict rests on it.

    """

    task: str
    metric: str
    value: float | None
    interval: tuple[float, float] | None
    chance: float
    n_images: int
    n_groups: int
    interval_note: str = ""
    calibration_error: float | None = None
    brier: float | None = None
    brier_reference: float | None = None
    out_of_distribution: OutOfDistribution | None = None
    trained: bool = True
    note: str = ""
    claims: tuple[Claim, ...] = ()

    @property
    def state(self) -> CheckState:
        """``at chance`` unless the whole interval lies above chance, and for any model with random weights.

        Without an interval a value above chance is *not checked*: nobody can say whether it is more than luck.
        """
        if not self.trained or (self.value is not None and self.value <= self.chance):
            return "at chance"
        if self.value is None or self.interval is None:
            return "not checked"
        return "does its task" if self.interval[0] > self.chance else "at chance"

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why the model cannot be interpreted, or only with care; empty where nothing speaks against it."""
        found = []
        if not self.trained:
            found.append("the model is untrained (random weights): it is not interpreted")
        elif self.state == "at chance":
            found.append(
                f"the model is at chance on its task ({self.metric} not above {self.chance:g}): it is not interpreted"
            )
        elif self.state == "not checked":
            found.append(f"whether the model does its task could not be checked: {self._why_not}")
        if self.out_of_distribution is not None and self.out_of_distribution.inside is False:
            found.append(f"the images lie outside what the model knows: {self.out_of_distribution.method}")
        return tuple(found)

    @property
    def _why_not(self) -> str:
        return self.note or ("it was not measured" if self.value is None else self.interval_note or "no interval")

    def to_json(self) -> dict[str, Any]:
        """Return the check as plain JSON."""
        ood = self.out_of_distribution
        return {
            "task": self.task,
            "metric": self.metric,
            "value": self.value,
            "interval": None if self.interval is None else list(self.interval),
            "interval_note": self.interval_note,
            "chance": self.chance,
            "n_images": self.n_images,
            "n_groups": self.n_groups,
            "calibration_error": self.calibration_error,
            "brier": self.brier,
            "brier_reference": self.brier_reference,
            "out_of_distribution": None if ood is None else ood.to_json(),
            "trained": self.trained,
            "note": self.note,
            "claims": [claim.to_json() for claim in self.claims],
            "state": self.state,
            "reasons": list(self.reasons),
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> ModelCheck:
        """Read what :meth:`to_json` wrote; the state is reached anew."""
        known = {key: value for key, value in record.items() if key not in {"state", "reasons"}}
        interval, ood, claims = (known.pop(key) for key in ("interval", "out_of_distribution", "claims"))
        return cls(
            **known,
            claims=tuple(Claim.from_json(claim) for claim in claims),
            interval=None if interval is None else (interval[0], interval[1]),
            out_of_distribution=None if ood is None else OutOfDistribution.from_json(ood),
        )
