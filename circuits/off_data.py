"""How far off the data an intervened activation lies."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mechinterp.errors import ShapeError


@dataclass(frozen=True, eq=False)
class DataSpread:
    r"""Where a site's tokens usually lie: their mean and covariance, and the Mahalanobis distance from it.

    The covariance is shrunk towards a multiple of the identity as Ledoit and Wolf do [1]_, so that it can be inverted when
    tokens are few, or units are silent on all of them. An always-on unit with little spread that is set to zero lies many
    deviations off; its replacement by a mean or by another image's value does not. The distance is blind to one thing: an
    activation that is *too* average lies nearer to the mean than any real one, and gets a ratio below 1.

    Parameters
    ----------
    mean
        Mean token.
    precision
        Inverse of the shrunk covariance.
    shrinkage
        Weight of the identity, 0 to 1.

    References
    ----------
    .. [1] Ledoit, Wolf. A well-conditioned estimator for large-dimensional covariance matrices. 2004.

    """

    mean: Float[Tensor, " width"]
    precision: Float[Tensor, "width width"]
    shrinkage: float

    @classmethod
    def fit(cls, acts_bnd: Float[Tensor, "image token width"]) -> DataSpread:
        """Fit mean and covariance on all tokens of some images.

        Raises
        ------
        ShapeError
            If there are fewer than two tokens.

        """
        rows = acts_bnd.flatten(0, -2).double()
        n, width = rows.shape
        if n < 2:
            raise ShapeError(f"the spread of {n} token(s) cannot be estimated: give at least two")
        mean = rows.mean(0)
        centred = rows - mean
        covariance = centred.T @ centred / n
        # a floor for data that does not vary at all: any change of it is then very far off, not infinitely
        scale = covariance.diagonal().mean().clamp_min(1e-12 * float(rows.square().mean()) + 1e-20)
        identity = torch.eye(width, dtype=torch.float64, device=rows.device)
        distance = (covariance - scale * identity).square().sum()
        noise = (centred.square().sum(1).square().sum() / n - covariance.square().sum()) / n
        shrinkage = float((noise / distance.clamp_min(1e-300)).clamp(0, 1)) if float(distance) > 0 else 1.0
        # a floor keeps the inverse finite when many alike tokens make the formula's shrinkage vanish
        shrinkage = max(shrinkage, 1e-6)
        shrunk = (1 - shrinkage) * covariance + shrinkage * scale * identity
        precision = torch.linalg.inv(shrunk)
        return cls(mean.to(acts_bnd), ((precision + precision.T) / 2).to(acts_bnd), shrinkage)

    def distances(self, acts_bnd: Float[Tensor, "*rows width"]) -> Float[Tensor, " *rows"]:
        """Return every token's Mahalanobis distance from the mean, in standard deviations over all units together."""
        centred = acts_bnd - self.mean
        return ((centred @ self.precision) * centred).sum(-1).clamp_min(0).sqrt()

    def ratio(
        self, changed_bnd: Float[Tensor, "image token width"], natural_bnd: Float[Tensor, "image token width"]
    ) -> float:
        """Return the changed tokens' mean distance divided by that of the same images as they are: 1 is as usual."""
        natural = self.distances(natural_bnd).mean().clamp_min(torch.finfo(natural_bnd.dtype).tiny)
        return float(self.distances(changed_bnd).mean() / natural)

    def curvatures(self, directions: Float[Tensor, "feature width"]) -> Float[Tensor, " feature"]:
        """Return ``dᵀPd`` of every direction: how fast the squared distance grows along it."""
        return ((directions @ self.precision) * directions).sum(-1)

    def single_ratios(
        self,
        acts_nd: Float[Tensor, "token width"],
        change_nf: Float[Tensor, "token feature"],
        directions: Float[Tensor, "feature width"],
        curvatures: Float[Tensor, " feature"],
    ) -> Float[Tensor, " feature"]:
        """Return the ratio for each feature changed alone, without making the activations.

        ``(a + c d)ᵀ P (a + c d) = aᵀPa + 2 c dᵀPa + c² dᵀPd`` for a change ``c`` of a feature with direction ``d``.

        Parameters
        ----------
        acts_nd
            One image's tokens.
        change_nf
            Change of every feature's code at every token.
        directions
            What one unit of each feature adds.
        curvatures
            From :meth:`curvatures`, which need be computed only once.

        """
        centred = acts_nd - self.mean
        weighted = centred @ self.precision
        natural = (weighted * centred).sum(-1).clamp_min(0)
        along = weighted @ directions.T
        squared = natural[:, None] + 2 * change_nf * along + change_nf.square() * curvatures
        usual = natural.sqrt().mean().clamp_min(torch.finfo(acts_nd.dtype).tiny)
        return squared.clamp_min(0).sqrt().mean(0) / usual
