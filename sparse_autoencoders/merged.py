"""Find what features hold beside their own: another feature that fires only where they do, merged with them into one direction.

One direction that is a parent and half of its child saves a code wherever both are active. It leaves half of the child over, with one
sign where the child is and with the other where it is not. In a single row that is far below what else is left over; over all rows
on which the merged feature fires it is what is left over there more than anywhere else.

References
----------
Aharon, Elad, Bruckstein. K-SVD: an algorithm for designing overcomplete dictionaries. IEEE Trans. Signal Processing 54, 2006 (a direction
is learnt from what is left over of the rows it fires on, its own part added).
Chanin et al. A is for absorption: studying feature splitting and absorption in sparse autoencoders. arXiv 2409.14507.
Marchenko, Pastur. Distribution of eigenvalues for some sets of random matrices. Mathematics of the USSR-Sbornik 1, 1967.

"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

_ITERATIONS = 8  # of the power method
_LEAST = 32  # rows on which a feature must fire, so that anything can be said of what they leave over
_CLEAR = 1.5  # how far above the largest variance that chance gives
_TWIN = 0.7  # cosine above which there is such a direction already
_RIDGE = 1e-3  # of the covariance of what is left over, as a share of its mean variance


def held_beside(
    codes: Float[Tensor, "row feature"],
    left_over: Float[Tensor, "row width"],
    decoder: Float[Tensor, "feature width"],
    heard: Bool[Tensor, " feature"],
    n: int,
    generator: torch.Generator,
) -> Float[Tensor, "found width"]:
    """Return directions that some features hold beside their own, as long as what they stand for, the clearest first.

    The rows on which a feature fires are parted in two by the first principal direction of what is left over there, beside what is
    left over of all rows; what is found is the difference between the two parts' means of what the feature stands for: its own
    part and what is left over. It points to the part where that is larger. Nothing is found where the variance along the principal
    direction is what so few rows may show by chance (Marchenko and Pastur), or where a direction of the dictionary says it already.

    Parameters
    ----------
    codes
        Of some rows, as a sparse CSR tensor; what is not positive does not fire.
    left_over
        Of these rows by the whole reconstruction.
    decoder
        Directions of unit norm.
    heard
        The features that are looked at; all others' directions do not count as said already.
    n
        How many directions at most.
    generator
        Draws where the power method starts.

    """
    width = left_over.shape[1]
    fires = _Firing.of(codes)
    covariance = left_over.T @ left_over / len(left_over)
    covariance.diagonal().add_(
        _RIDGE * covariance.diagonal().mean().clamp_min(torch.finfo(left_over.dtype).tiny / _RIDGE)
    )
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(covariance), left_over.T, upper=False).T.contiguous()
    drawn = torch.randn(decoder.shape, generator=generator).to(decoder)
    principal = torch.nn.functional.normalize(drawn, dim=1)
    for _ in range(_ITERATIONS):
        principal = torch.nn.functional.normalize(fires.sums(fires.along(principal, white), white), dim=1)
    along = fires.along(principal, white)
    variance = fires.per_feature(along.square()) / fires.counts.clamp_min(1)
    by_chance = (1 + (width / fires.counts.clamp_min(1)).sqrt()).square()
    clear = fires.counts * (variance - _CLEAR * by_chance)
    looked_at = heard & (fires.counts >= _LEAST) & (clear > 0)
    order = clear.masked_fill(~looked_at, 0).argsort(descending=True)[: int(looked_at.sum())]
    one, other = (fires.stands_for(part.to(along.dtype), left_over, decoder)[order] for part in (along > 0, along <= 0))
    larger = one.square().sum(1) >= other.square().sum(1)
    found = torch.where(larger[:, None], one - other, other - one)
    unit = torch.nn.functional.normalize(found, dim=1)
    new = (unit @ decoder[heard].T).amax(1) < _TWIN
    found, unit = found[new], unit[new]
    first = ((unit @ unit.T).triu(1) < _TWIN).all(0)
    return found[first][:n]


class _Firing:
    """Which features fire in which rows, in the order of the features.

    Parameters
    ----------
    begins, rows, features, values
        Where each feature's entries begin; of each entry its row, its feature and its code.
    shape
        Features, rows.

    """

    def __init__(
        self,
        begins: Int[Tensor, " feature+1"],
        rows: Int[Tensor, " entry"],
        features: Int[Tensor, " entry"],
        values: Float[Tensor, " entry"],
        shape: tuple[int, int],
    ) -> None:
        self.begins, self.rows, self.features, self.values, self.shape = begins, rows, features, values, shape
        self.counts = begins.diff().to(values.dtype)

    @classmethod
    def of(cls, codes: Float[Tensor, "row feature"]) -> _Firing:
        """Take the positive entries of a sparse CSR tensor."""
        n, width = codes.shape
        rows = torch.repeat_interleave(torch.arange(n, device=codes.device), codes.crow_indices().diff())
        features, values = codes.col_indices().long(), codes.values()
        positive = (values > 0).nonzero().flatten()
        at = positive[features[positive].argsort(stable=True)]
        begins = torch.zeros(width + 1, dtype=torch.long, device=codes.device)
        begins[1:] = torch.bincount(features[at], minlength=width).cumsum(0)
        return cls(begins, rows[at], features[at], values[at], (width, n))

    def along(
        self, directions: Float[Tensor, "feature width"], x: Float[Tensor, "row width"]
    ) -> Float[Tensor, " entry"]:
        """Return the projection of each entry's row on its feature's direction."""
        nothing = self._table(torch.zeros_like(self.values))
        found: Tensor = torch.sparse.sampled_addmm(nothing, directions, x.T).values()
        return found

    def sums(self, factors: Float[Tensor, " entry"], x: Float[Tensor, "row width"]) -> Float[Tensor, "feature width"]:
        """Return for each feature the sum of its rows times their factors."""
        return self._table(factors) @ x

    def per_feature(self, amounts: Float[Tensor, " entry"]) -> Float[Tensor, " feature"]:
        """Return the sums of each feature's entries."""
        return torch.zeros_like(self.counts).index_add_(0, self.features, amounts)

    def stands_for(
        self,
        part: Float[Tensor, " entry"],
        left_over: Float[Tensor, "row width"],
        decoder: Float[Tensor, "feature width"],
    ) -> Float[Tensor, "feature width"]:
        """Return the means, over the entries of a part (1, others 0), of what a feature writes and what is left over."""
        written = self.per_feature(part * self.values)[:, None] * decoder
        return (self.sums(part, left_over) + written) / self.per_feature(part).clamp_min(1)[:, None]

    def _table(self, factors: Tensor) -> Tensor:
        return torch.sparse_csr_tensor(self.begins, self.rows, factors, self.shape, check_invariants=False)
