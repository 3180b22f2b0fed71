"""Mean and variance of a site's tokens, exact under any split into shards."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


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
        """Return the moments of some tokens."""
        x = x.double()
        mean = x.mean(0)
        return cls(len(x), mean, (x - mean).square().sum(0))

    def merged(self, other: SiteStatistics) -> SiteStatistics:
        """Return the moments of both sets of tokens (Chan, Golub, LeVeque 1982)."""
        if self.rows == 0:
            return other
        if other.rows == 0:
            return self
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
