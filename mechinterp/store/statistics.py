"""Mean and variance of a site's tokens, exact under any split into shards."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

_PIECE = 16_384


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

    """

    rows: int
    mean: Float[Tensor, " width"]
    scatter: Float[Tensor, " width"]

    @classmethod
    def of(cls, x: Float[Tensor, "row width"]) -> SiteStatistics:
        """Return the moments of some tokens.

        They are taken in pieces of a fixed number of rows and merged in order, so that a shard's float64 copy is never
        held whole and the result does not depend on memory.
        """
        total = cls.none(x.shape[1])
        for piece in torch.split(x, _PIECE):
            rows = piece.to(torch.float64, copy=True)
            mean = rows.mean(0)
            total = total.merged(cls(len(rows), mean, rows.sub_(mean).square_().sum(0)))
        return total

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
        )

    @property
    def variance(self) -> Float[Tensor, " width"]:
        """Per unit, the mean squared deviation."""
        return self.scatter / max(self.rows, 1)


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
