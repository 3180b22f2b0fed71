"""Does a small set of features drive the answer? A pure function of the experiment's numbers, with its reasons in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from circuits.set_results import DECIDING

if TYPE_CHECKING:
    from circuits.set_results import Curve, DirectionResult, SetExperiment, SetResult

Word = Literal["drives", "no small set does"]

_MATCHED = (0.9, 1.1)
_DISTINCT = 20
_FAR = 1.2


def verdict(experiment: SetExperiment, kind: str | None = None) -> tuple[Word, tuple[str, ...]]:
    """Say whether a small set of features drives the target's answer.

    *drives* needs, both ways, one set no larger than the stated share of the alive features that under replacement by the
    mean of reference images *and* under resampling from them

    - turns at least the stated share of the tested images,
    - does more than random sets that remove the same norm (Holm's correction [1]_ over the small sizes; both ways and both
      ablations have to succeed, which needs no correction),
    - leaves reference images their answer, and moves them clearly less.

    Zeroing never decides: what only zeroing shows is named an artefact of zeroing.

    Parameters
    ----------
    experiment
        The numbers and the thresholds that were set beforehand.
    kind
        Which features; the primary ones by default.

    Returns
    -------
    word
        ``drives`` or ``no small set does``.
    reasons
        Sentences with the numbers that decided.

    References
    ----------
    .. [1] Holm. A simple sequentially rejective multiple test procedure. 1979.

    """
    kind = kind or experiment.unit_kinds[0]
    ways = [_Judged(experiment, d) for d in experiment.select(kind, "reference")]
    reasons: list[str] = []
    if len(ways) == 2 and all(w.passing is not None for w in ways):
        for w in ways:
            reasons += w.success()
        return "drives", tuple(reasons)
    if len(ways) < 2:
        reasons.append(f"{len(ways)} of 2 directions was run with '{kind}'")
    for w in ways:
        reasons += w.success() if w.passing is not None else w.failure()
    zeroed = {w.way.name: w for w in (_Judged(experiment, d) for d in experiment.select(kind, "zero"))}
    for w in ways:
        # ranked by zeroing it shows most clearly; once is enough
        reasons += (w.way.name in zeroed and zeroed[w.way.name].artefact()) or w.artefact()
    return "no small set does", tuple(reasons)


def holm(p_values: Float[NDArray[np.float64], " test"]) -> Float[NDArray[np.float64], " test"]:
    """Return Holm's adjusted p-values: compared with α they keep the chance of any false rejection below it."""
    order = np.argsort(p_values, kind="stable")
    n = len(p_values)
    adjusted = np.empty(n)
    adjusted[order] = np.minimum(np.maximum.accumulate(p_values[order] * (n - np.arange(n))), 1.0)
    return adjusted


@dataclass(eq=False)
class _Judged:
    """One direction, judged size by size."""

    experiment: SetExperiment
    way: DirectionResult

    def __post_init__(self) -> None:
        self.config = self.experiment.config
        self.unit = {"sae": "SAE features", "neurons": "raw channels"}.get(self.way.kind, f"features ({self.way.kind})")
        sizes = [r.size for r in self.way.curves[0].results]
        self.small = [s for s in sizes if s <= self.config.share * self.way.alive]
        self.corrected = {name: self._corrected(self.way.curve(name)) for name in DECIDING}
        self.passing = next((s for s in self.small if not self.failures(s)), None)

    def _corrected(self, curve: Curve | None) -> dict[int, float]:
        p = [] if curve is None else [curve.at(s).p_value() for s in self.small]
        known = np.asarray([1.0 if v is None else v for v in p])
        return dict(zip(self.small, holm(known).tolist(), strict=False))

    def failures(self, size: int) -> list[str]:
        """Say what speaks against the set of this size, both ablations together; nothing when it passes."""
        results = {n: c.at(size) for n in DECIDING if (c := self.way.curve(n)) is not None}
        found = [f"{name} was not run" for name in DECIDING if name not in results]
        for what in (self._too_few_turned, self._not_beyond_controls, self._side_effects):
            said = [sentence for name, r in results.items() for sentence in what(name, r)]
            if said:
                found.append("; ".join(said))
        return found

    def _too_few_turned(self, name: str, r: SetResult) -> list[str]:
        if r.flipped < self.config.flip:
            return [
                f"{name} turns {r.flipped:.0%} of the '{self.experiment.target}' images ({self.config.flip:.0%} asked for)"
            ]
        return [f"{name} does not lower the logit difference ({r.delta:+.2f})"] if r.delta >= 0 else []

    def _not_beyond_controls(self, name: str, r: SetResult) -> list[str]:
        ratio = r.control_ratio
        if r.controls is None or ratio is None:
            return [f"{name} has no random sets beside it"]
        if not _MATCHED[0] <= ratio <= _MATCHED[1]:
            return [f"the random sets for {name} remove {ratio:.2f} times the norm, so they are no fair control"]
        if r.controls.distinct < _DISTINCT:
            return [
                f"only {r.controls.distinct} different random sets remove the norm of {name}, too few for a control"
            ]
        p = self.corrected[name].get(r.size, 1.0)
        if p <= self.config.alpha:
            return []
        # nothing turned and nothing to beat: that has been said already
        if r.flipped == 0:
            return []
        median = np.median(r.controls.flipped)
        return [f"not beyond random sets of the same norm under {name} (they turn {median:.0%}, corrected p = {p:.3f})"]

    def _side_effects(self, name: str, r: SetResult) -> list[str]:
        found, reference = [], self.experiment.reference
        if r.reference_kept is not None and r.reference_kept < self.config.kept:
            found.append(f"{name} leaves only {r.reference_kept:.0%} of the '{reference}' images their answer")
        if r.reference_delta is not None and abs(r.reference_delta) > self.config.side_share * abs(r.delta):
            found.append(
                f"{name} moves '{reference}' images too (logit difference {r.reference_delta:+.2f}, '{self.experiment.target}' "
                f"images {r.delta:+.2f})"
            )
        return found

    def success(self) -> list[str]:
        """Say with numbers that the smallest passing set drives the answer, this way."""
        size = self.passing or self.small[-1]
        parts = []
        for name in DECIDING:
            curve = self.way.curve(name)
            if curve is None:
                continue
            r = curve.at(size)
            median = 0.0 if r.controls is None else float(np.median(r.controls.flipped))
            scaled = (
                ""
                if r.controls is None or r.controls.scale == 1
                else f", their change scaled by {r.controls.scale:.1f}"
            )
            parts.append(
                f"{r.flipped:.0%} under {name} (random sets of the same norm{scaled}: {median:.0%}, corrected p = "
                f"{self.corrected[name][size]:.3f})"
            )
        said = [f"{self.way.name}: {size} of {self.way.alive} alive {self.unit} turn {' and '.join(parts)}"]
        opposite = self.way.curve("towards")
        if opposite is not None:
            r = opposite.at(size)
            said.append(
                f"{self.way.name}: put into '{self.experiment.reference}' images, the same {size} turn {r.flipped:.0%} of them "
                f"to '{self.experiment.target}' ({r.delta:+.2f} in the logit difference)"
            )
        return said

    def failure(self) -> list[str]:
        """Say what failed for the small set that came nearest, and which size would be needed."""
        if not self.small:
            return [
                f"{self.way.name}: the smallest set asked for is more than {self.config.share:.0%} of the {self.way.alive} "
                f"alive {self.unit}"
            ]
        size = max(self.small, key=lambda s: (self._worst_flip(s), -self._mean_delta(s)))
        said = [f"{self.way.name}, {size} of {self.way.alive} alive {self.unit}: {why}" for why in self.failures(size)]
        larger = [r.size for r in self.way.curves[0].results if r.size > self.small[-1]]
        enough = next((s for s in larger if self._worst_flip(s) >= self.config.flip), None)
        if enough is not None:
            said.append(
                f"{self.way.name}: {self.config.flip:.0%} of the images turn under both only from {enough} {self.unit} on, "
                f"{enough / self.way.alive:.0%} of the alive ones, which is no small set"
            )
        elif larger:
            said.append(
                f"{self.way.name}: no set of up to {larger[-1]} {self.unit} turns {self.config.flip:.0%} of the images under both"
            )
        return said + self._even_all()

    def _even_all(self) -> list[str]:
        """Say so where even all features together do not turn the answer: then they are not what carries it."""
        whole = {n: c.everything for n in DECIDING if (c := self.way.curve(n)) is not None and c.everything is not None}
        if not whole or min(r.flipped for r in whole.values()) >= self.config.flip:
            return []
        turned = " and ".join(f"{r.flipped:.0%} under {name}" for name, r in whole.items())
        return [
            f"{self.way.name}: even all {self.way.alive} alive {self.unit} together turn only {turned}: "
            "what they do not reconstruct carries the rest"
        ]

    def _worst_flip(self, size: int) -> float:
        curves = [self.way.curve(name) for name in DECIDING]
        return min((c.at(size).flipped for c in curves if c is not None), default=0.0)

    def _mean_delta(self, size: int) -> float:
        curves = [self.way.curve(name) for name in DECIDING]
        return float(np.mean([c.at(size).delta for c in curves if c is not None]))

    def artefact(self) -> list[str]:
        """Name small sets that turn the answer when set to zero, and not when replaced by reference values."""
        curve = self.way.curve("zero")
        if curve is None:
            return []
        sizes = [s for s in self.small if curve.at(s).flipped >= self.config.flip > self._worst_flip(s)]
        if not sizes:
            return []
        size = max(sizes, key=lambda s: curve.at(s).flipped - self._worst_flip(s))
        r = curve.at(size)
        others = ", ".join(
            f"{c.at(size).flipped:.0%} under {n}" for n in DECIDING if (c := self.way.curve(n)) is not None
        )
        ranking = "" if self.way.ranked_by == "reference" else " ranked by zeroing"
        also = []
        if r.off_data >= _FAR:
            also.append(f"it takes the activation {r.off_data:.1f} times as far off the data as usual")
        if r.reference_delta is not None and abs(r.reference_delta) > self.config.side_share * abs(r.delta):
            also.append(f"it moves '{self.experiment.reference}' images too, by {r.reference_delta:+.2f}")
        return [
            f"{self.way.name}: setting the first {size} {self.unit}{ranking} to zero turns {r.flipped:.0%}, but {others}: "
            f"an artefact of zeroing{' (' + ', and '.join(also) + ')' if also else ''}"
        ]
