"""What a set experiment found, as plain data, and as JSON for the pages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from circuits.ablations import Ablation

if TYPE_CHECKING:
    from circuits.set_experiment import SetExperimentConfig


DECIDING = ("mean", "resample")
"""Ablations whose results decide: both put in place what reference images really have."""


@dataclass(frozen=True, eq=False)
class Controls:
    """The same measurement on random sets that remove the same norm.

    Parameters
    ----------
    flipped, delta
        As of the chosen set, per random set.
    norm
        Median norm that the random sets remove.
    scale
        Median factor by which their change was scaled to reach the norm: 1 where enough sets remove it as they are.
    distinct
        How many different sets were found.

    """

    flipped: Float[NDArray[np.float64], " set"]
    delta: Float[NDArray[np.float64], " set"]
    norm: float
    scale: float
    distinct: int


@dataclass(frozen=True, eq=False)
class SetResult:
    """One set under one ablation, on the test band.

    Parameters
    ----------
    size
        Number of features.
    flipped
        Fraction of images (and draws) whose answer changed: away from the target class, or, for an ablation of the opposite
        direction, to it.
    delta
        Mean change of the logit difference target − reference.
    reference_delta, reference_kept
        The same ablation on reference images: mean change of the logit difference, and the fraction still answered as
        before; ``None`` for the opposite direction, which changes reference images by design.
    norm
        Root mean square over images of the norm of the activation's change.
    off_data
        How far the changed tokens lie from usual ones, divided by how far these images' own tokens do.
    controls
        Random sets matched on the norm; ``None`` where they were not run.

    """

    size: int
    flipped: float
    delta: float
    reference_delta: float | None
    reference_kept: float | None
    norm: float
    off_data: float
    controls: Controls | None

    @property
    def control_ratio(self) -> float | None:
        """Median norm of the controls, divided by the chosen set's."""
        if self.controls is None:
            return None
        return self.controls.norm / self.norm if self.norm > 0 else 1.0

    def p_values(self, *, opposite: bool = False) -> tuple[float, float] | None:
        """Return the shares of controls that flip as many, and that move the logit difference as far.

        ``(1 + count) / (1 + controls)`` each, ties counted against the chosen set.

        Parameters
        ----------
        opposite
            Whether the logit difference should rise rather than fall.

        """
        if self.controls is None:
            return None
        n = len(self.controls.flipped)
        as_many = int((self.controls.flipped >= self.flipped).sum())
        sign = 1 if opposite else -1
        as_far = int((sign * self.controls.delta >= sign * self.delta).sum())
        return (1 + as_many) / (1 + n), (1 + as_far) / (1 + n)

    def p_value(self, *, opposite: bool = False) -> float | None:
        """Return the larger of both p-values: a set has to beat its controls on both, which needs no correction [1]_.

        References
        ----------
        .. [1] Berger. Multiparameter hypothesis testing and acceptance sampling. 1982 (intersection-union tests).

        """
        both = self.p_values(opposite=opposite)
        return None if both is None else max(both)


@dataclass(frozen=True, eq=False)
class Curve:
    """One ablation over all sizes.

    Parameters
    ----------
    ablation
        What was put in place.
    results
        One per size.
    everything
        All alive features changed at once: the most that any set can do. What is missing to the whole answer is carried by
        what the features do not reconstruct.

    """

    ablation: Ablation
    results: tuple[SetResult, ...]
    everything: SetResult | None = None

    def at(self, size: int) -> SetResult:
        """Return the result for one size; raises ``KeyError`` if it was not run."""
        for r in self.results:
            if r.size == size:
                return r
        raise KeyError(size)

    def to_json(self) -> dict[str, Any]:
        """Return the curve as plain JSON; lists run over sizes, controls give the 2.5, 50 and 97.5 percentiles."""
        opposite = self.ablation.opposite
        both = [r.p_values(opposite=opposite) for r in self.results]
        return {
            "ablation": self.ablation.name,
            "sentence": self.ablation.sentence,
            "sizes": [r.size for r in self.results],
            "flipped": [r.flipped for r in self.results],
            "delta": [r.delta for r in self.results],
            "control_flipped": _ribbon([r.controls.flipped for r in self.results if r.controls]),
            "control_delta": _ribbon([r.controls.delta for r in self.results if r.controls]),
            "p": [r.p_value(opposite=opposite) for r in self.results],
            "p_flipped": [None if p is None else p[0] for p in both],
            "p_delta": [None if p is None else p[1] for p in both],
            "notumor_delta": [r.reference_delta for r in self.results],
            "notumor_kept": [r.reference_kept for r in self.results],
            "everything": None
            if self.everything is None
            else {"size": self.everything.size, "flipped": self.everything.flipped, "delta": self.everything.delta},
            "norm_removed": [r.norm for r in self.results],
            "control_norm": [r.controls.norm if r.controls else None for r in self.results],
            "control_scale": [r.controls.scale if r.controls else None for r in self.results],
            "control_distinct": [r.controls.distinct if r.controls else None for r in self.results],
            "off_data": [r.off_data for r in self.results],
        }


@dataclass(frozen=True, eq=False)
class BeforeAfter:
    """Probability of the target class before and after, per image, with the set of the stated size."""

    ablation: str
    images: tuple[int, ...]
    before: tuple[float, ...]
    after: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class DirectionResult:
    """Features chosen on one band, tested on the other.

    Parameters
    ----------
    chosen_on, tested_on
        Names of the bands.
    kind
        What the features are: the encoder's kind.
    ranked_by
        ``reference`` (mean effect under mean and resample) or ``zero``.
    order
        Features from the strongest on, as far as the largest set.
    alive
        How many features change anything at all under replacement by reference values or zero: sets are drawn from these.
    size
        The largest size within the stated share: the set shown in detail.
    curves
        One per ablation.
    before_after
        One per ablation.
    rank_agreement
        Spearman correlation between the rankings by reference values and by zero.

    """

    chosen_on: str
    tested_on: str
    kind: str
    ranked_by: str
    order: tuple[int, ...]
    alive: int
    size: int
    curves: tuple[Curve, ...]
    before_after: tuple[BeforeAfter, ...]
    rank_agreement: float

    @property
    def name(self) -> str:
        """Which way."""
        return f"{self.chosen_on} → {self.tested_on}"

    def curve(self, ablation: str) -> Curve | None:
        """Return the curve of an ablation, or ``None`` if it was not run."""
        return next((c for c in self.curves if c.ablation.name == ablation), None)

    def to_json(self) -> dict[str, Any]:
        """Return the direction as plain JSON."""
        return {
            "name": self.name,
            "chosen_on": self.chosen_on,
            "tested_on": self.tested_on,
            "kind": self.kind,
            "ranked_by": self.ranked_by,
            "chosen": list(self.order[: self.size]),
            "order": list(self.order),
            "size": self.size,
            "alive": self.alive,
            "rank_agreement": self.rank_agreement,
            "curves": [c.to_json() for c in self.curves],
            "before_after": [
                {"ablation": b.ablation, "images": list(b.images), "before": list(b.before), "after": list(b.after)}
                for b in self.before_after
            ],
        }


@dataclass(frozen=True, eq=False)
class SetExperiment:
    """All directions of one experiment.

    Parameters
    ----------
    target, reference
        Names of the two classes.
    unit_kinds
        Kinds of features; the first was named the primary one beforehand and decides the verdict.
    directions
        Both ways, for every kind and ranking.
    config
        Sizes and thresholds, set beforehand.

    """

    target: str
    reference: str
    unit_kinds: tuple[str, ...]
    directions: tuple[DirectionResult, ...]
    config: SetExperimentConfig

    def select(self, kind: str, ranked_by: str) -> tuple[DirectionResult, ...]:
        """Return both ways for one kind of features and one ranking."""
        return tuple(d for d in self.directions if d.kind == kind and d.ranked_by == ranked_by)

    def to_json(self) -> dict[str, Any]:
        """Return the experiment with its verdicts as plain JSON."""
        from dataclasses import asdict

        from circuits.set_verdict import verdict

        verdicts = {kind: verdict(self, kind) for kind in self.unit_kinds}
        word, reasons = verdicts[self.unit_kinds[0]]
        return {
            "target": self.target,
            "reference": self.reference,
            "unit_kinds": list(self.unit_kinds),
            "directions": [d.to_json() for d in self.directions],
            "n_controls": self.config.n_controls,
            "config": asdict(self.config),
            "verdict": {"word": word, "reasons": list(reasons)},
            "verdicts": {kind: {"word": w, "reasons": list(r)} for kind, (w, r) in verdicts.items()},
        }


def _ribbon(values: Sequence[NDArray[np.float64]]) -> dict[str, list[float]]:
    if not values:
        return {"low": [], "median": [], "high": []}
    low, median, high = np.percentile(np.stack(values), [2.5, 50, 97.5], axis=1)
    return {"low": low.tolist(), "median": median.tolist(), "high": high.tolist()}
