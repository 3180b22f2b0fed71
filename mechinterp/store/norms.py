"""Quantiles of the rows' norms from counts that merge exactly, in any order and however the rows were split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

# Equal steps within each power of two: a step is at most 1/128 of the norms in it, so its middle is off by 1/256 at most.
_STEPS = 128
QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)


@dataclass(frozen=True)
class NormCounts:
    """How many rows have a norm in which step.

    Step ``128 e + s`` holds the norms from ``2^(e-1) (1 + s/128)`` up to the next step's: exponent and leading bits of the
    number itself, so that no rounding of a logarithm decides where a row counts. Integers add up to the same sum in any
    order (the idea of HdrHistogram).

    Parameters
    ----------
    steps
        Step → number of rows.
    zeros
        Rows whose norm is 0.
    least, most
        Smallest and largest norm, exactly; ``inf`` and 0 where there is no row.

    """

    steps: Mapping[int, int] = field(default_factory=dict)
    zeros: int = 0
    least: float = float("inf")
    most: float = 0.0

    @classmethod
    def of(cls, norms: Float[NDArray[np.float64], " row"]) -> NormCounts:
        """Count some norms."""
        if len(norms) == 0:
            return cls()
        mantissa, exponent = np.frexp(norms[(norms > 0) & np.isfinite(norms)])
        step = exponent.astype(np.int64) * _STEPS + ((mantissa - 0.5) * 2 * _STEPS).astype(np.int64)
        values, counts = np.unique(step, return_counts=True)
        steps = dict(zip(values.tolist(), counts.tolist(), strict=True))
        return cls(steps, int((norms == 0).sum()), float(norms.min()), float(norms.max()))

    def merged(self, other: NormCounts) -> NormCounts:
        """Return the counts of both sets of rows."""
        steps = dict(self.steps)
        for step, count in other.steps.items():
            steps[step] = steps.get(step, 0) + count
        return NormCounts(
            dict(sorted(steps.items())),
            self.zeros + other.zeros,
            min(self.least, other.least),
            max(self.most, other.most),
        )

    @property
    def rows(self) -> int:
        """Number of rows that were counted."""
        return self.zeros + sum(self.steps.values())

    def quantiles(self, at: Sequence[float] = QUANTILES) -> dict[float, float]:
        """Return the smallest norm that at least this fraction of the rows does not exceed.

        Exact at 0 and 1, elsewhere within 0.4 %. NaN where there is no row.
        """
        steps = np.array([0, *sorted(self.steps)], dtype=np.int64)
        upto = np.cumsum([self.zeros, *(self.steps[s] for s in steps[1:].tolist())])
        exponent, within = np.divmod(steps[1:], _STEPS)
        middles = np.concatenate([[0.0], np.ldexp(0.5 + (within + 0.5) / (2 * _STEPS), exponent)])
        found = {}
        for fraction in at:
            if self.rows == 0:
                found[fraction] = float("nan")
            elif fraction in {0, 1}:
                found[fraction] = self.most if fraction else self.least
            else:
                wanted = int(np.searchsorted(upto, max(1, np.ceil(fraction * self.rows))))
                found[fraction] = float(np.clip(middles[wanted], self.least, self.most))
        return found

    def to_json(self) -> dict[str, Any]:
        """Return the counts as plain JSON; pairs of step and count, in the order of steps."""
        return {
            "steps": [[s, self.steps[s]] for s in sorted(self.steps)],
            "zeros": self.zeros,
            "least": self.least if self.rows else None,
            "most": self.most,
        }

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> NormCounts:
        """Undo :meth:`to_json`."""
        least = float("inf") if raw["least"] is None else float(raw["least"])
        return cls({int(s): int(n) for s, n in raw["steps"]}, int(raw["zeros"]), least, float(raw["most"]))
