"""Mean, variance and norms of a site's tokens, exact under any split into shards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mechinterp.store.norms import NormCounts


@dataclass(frozen=True)
class SiteStatistics:
    """Moments of a site's tokens, in float64.

    Parameters
    ----------
    rows
        Number of tokens.
    mean
        Per unit.
    scatter
        Per unit, the sum of squared deviations from the mean.
    norms
        How many rows have which Euclidean norm.

    """

    rows: int
    mean: Float[Tensor, " width"]
    scatter: Float[Tensor, " width"]
    norms: NormCounts = field(default_factory=NormCounts)

    @classmethod
    def of(cls, x: Float[Tensor, "row width"]) -> SiteStatistics:
        """Return the moments of some tokens, always the same for the same rows, however they were read."""
        if len(x) == 0:
            return cls.none(x.shape[1])
        from mechinterp.store.moments import moments  # compiled code is slow to import

        whole = x.cpu() if x.dtype in {torch.float32, torch.float64} else x.cpu().float()
        rows = whole.contiguous().numpy()
        mean, scatter, norms = np.empty(rows.shape[1]), np.empty(rows.shape[1]), np.empty(len(rows))
        moments(rows, mean, scatter, norms)
        return cls(len(rows), torch.from_numpy(mean), torch.from_numpy(scatter), NormCounts.of(norms))

    @classmethod
    def none(cls, width: int) -> SiteStatistics:
        """Return the moments of no token."""
        return cls(0, torch.zeros(width, dtype=torch.float64), torch.zeros(width, dtype=torch.float64))

    def merged(self, other: SiteStatistics) -> SiteStatistics:
        """Return the moments of both sets of tokens (Chan, Golub, LeVeque 1982)."""
        if other.rows == 0:
            return self
        if self.rows == 0:
            return other
        rows = self.rows + other.rows
        shift = other.mean - self.mean
        return SiteStatistics(
            rows,
            self.mean + shift * (other.rows / rows),
            self.scatter + other.scatter + shift.square() * (self.rows * other.rows / rows),
            self.norms.merged(other.norms),
        )

    @property
    def variance(self) -> Float[Tensor, " width"]:
        """Per unit, the mean squared deviation."""
        return self.scatter / max(self.rows, 1)

    def to_json(self) -> dict[str, Any]:
        """Return the moments as plain JSON."""
        return {
            "rows": self.rows,
            "mean": self.mean.tolist(),
            "scatter": self.scatter.tolist(),
            "norms": self.norms.to_json(),
        }

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> SiteStatistics:
        """Undo :meth:`to_json`."""
        mean, scatter = (torch.tensor(raw[name], dtype=torch.float64) for name in ("mean", "scatter"))
        return cls(int(raw["rows"]), mean, scatter, NormCounts.from_json(raw["norms"]))


def merge(parts: list[SiteStatistics]) -> SiteStatistics:
    """Return the moments of all parts, merged in their order.

    Raises
    ------
    ValueError
        If there is no part.

    """
    if not parts:
        raise ValueError("no statistics to merge")
    total = parts[0]
    for part in parts[1:]:
        total = total.merged(part)
    return total
