"""A known dictionary: more features than neurons, with directions that are as far from each other as they can be."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


def spread_directions(n: int, width: int, seed: int, steps: int = 300) -> Float[Tensor, "feature width"]:
    """Return `n` unit vectors in `width` dimensions with small mutual products; orthogonal where ``n <= width``.

    Parameters
    ----------
    n, width
        How many features share how many neurons.
    seed
        The same seed gives the same directions.
    steps
        Of gradient descent on the fourth power of the products.

    """
    generator = torch.Generator().manual_seed(seed)
    raw = torch.randn(n, width, generator=generator, dtype=torch.float64)
    if n <= width:
        orthogonal: Tensor = torch.linalg.qr(raw.T)[0]
        return orthogonal.T.contiguous()
    for _ in range(steps):
        raw = torch.nn.functional.normalize(raw, dim=1)
        gram = raw @ raw.T
        gram.fill_diagonal_(0)
        raw = raw - 0.2 * gram**3 @ raw
    return torch.nn.functional.normalize(raw, dim=1)


@dataclass(frozen=True, eq=False)
class KnownDictionary:
    """The features of a site in superposition, read by a clipped projection as an SAE reads them.

    Parameters
    ----------
    site
        Name of the site.
    directions
        Unit vector of each feature.
    bias
        Subtracted from each projection: what other features leak into it.
    kind
        How pages call it.

    """

    site: str
    directions: Float[Tensor, "feature d_in"]
    bias: float = 0.0
    kind: str = "dictionary"

    @property
    def d_in(self) -> int:
        """Width of the site."""
        return int(self.directions.shape[1])

    @property
    def width(self) -> int:
        """Number of features."""
        return int(self.directions.shape[0])

    @property
    def weights_hash(self) -> str:
        """Hash of site, directions and bias."""
        raw = self.directions.detach().cpu().contiguous().numpy().tobytes()
        return hashlib.sha256(f"{self.kind} {self.site} {self.bias}".encode() + raw).hexdigest()

    def encode(self, x: Float[Tensor, "*rows d_in"]) -> Float[Tensor, "*rows feature"]:
        """Return clipped projections."""
        return (x @ self.directions.to(x).T - self.bias).relu()

    def decode(self, z: Float[Tensor, "*rows feature"]) -> Float[Tensor, "*rows d_in"]:
        """Return the sum of the directions, weighted with the codes."""
        return z @ self.directions.to(z)
