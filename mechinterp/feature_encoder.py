"""What SAEs, raw neurons, PCA and concept directions have in common, so that every tool takes any of them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from mechinterp.errors import ShapeError


@runtime_checkable
class FeatureEncoder(Protocol):
    """An encoder of one site's tokens into features, with a linear decoder back to the site.

    All values are in the site's own scale: any normalisation is folded in. ``decode`` is affine, so a change of the
    codes from ``z`` to ``z'`` changes the activation by ``(z' - z) @ directions`` whatever the reconstruction error.
    """

    @property
    def kind(self) -> str:
        """What it is, in one word: ``sae``, ``neurons``, ``pca``, ``directions``."""
        ...

    @property
    def site(self) -> str:
        """Name of the site whose tokens it reads."""
        ...

    @property
    def d_in(self) -> int:
        """Width of the site."""
        ...

    @property
    def width(self) -> int:
        """Number of features."""
        ...

    @property
    def weights_hash(self) -> str:
        """SHA-256 of everything that decides the codes."""
        ...

    @property
    def directions(self) -> Float[Tensor, "feature d_in"]:
        """What one unit of each feature adds to the activation."""
        ...

    def encode(self, x: Float[Tensor, "*rows d_in"]) -> Float[Tensor, "*rows feature"]:
        """Return the codes of some tokens."""
        ...

    def decode(self, z: Float[Tensor, "*rows feature"]) -> Float[Tensor, "*rows d_in"]:
        """Return the activation that the codes stand for."""
        ...


@dataclass(frozen=True)
class Neurons:
    """The site's own units as features: the baseline every decomposition has to beat.

    Parameters
    ----------
    site
        Name of the site.
    d_in
        Its width.

    """

    site: str
    d_in: int
    kind: str = "neurons"

    @property
    def width(self) -> int:
        """Number of neurons."""
        return self.d_in

    @property
    def weights_hash(self) -> str:
        """Hash of the site's name and width: there are no weights."""
        return hashlib.sha256(f"neurons {self.site} {self.d_in}".encode()).hexdigest()

    @property
    def directions(self) -> Float[Tensor, "feature d_in"]:
        """The identity."""
        return torch.eye(self.d_in)

    def encode(self, x: Float[Tensor, "*rows d_in"]) -> Float[Tensor, "*rows feature"]:
        """Return `x` itself."""
        check_width(x, self.d_in, self.site)
        return x

    def decode(self, z: Float[Tensor, "*rows feature"]) -> Float[Tensor, "*rows d_in"]:
        """Return `z` itself."""
        _check_codes(z, self.width, self.site)
        return z


@dataclass(frozen=True, eq=False)
class Directions:
    """Unit directions read by projection: PCA components, concept vectors, random directions.

    Parameters
    ----------
    site
        Name of the site.
    unit_directions
        One unit vector per feature.
    mean
        What is subtracted before projecting.
    kind
        ``pca``, ``random`` or ``directions``.

    Raises
    ------
    ShapeError
        If the mean is not as wide as the directions.

    """

    site: str
    unit_directions: Float[Tensor, "feature d_in"]
    mean: Float[Tensor, " d_in"]
    kind: str = "directions"

    def __post_init__(self) -> None:
        if self.unit_directions.dim() != 2 or self.mean.shape != self.unit_directions.shape[1:]:
            raise ShapeError(
                f"directions of shape {tuple(self.unit_directions.shape)} and a mean of shape {tuple(self.mean.shape)} do not "
                f"belong together: give (feature, d_in) and (d_in,) of site '{self.site}'"
            )

    @property
    def d_in(self) -> int:
        """Width of the site."""
        return int(self.unit_directions.shape[1])

    @property
    def width(self) -> int:
        """Number of directions."""
        return int(self.unit_directions.shape[0])

    @property
    def weights_hash(self) -> str:
        """Hash of the directions and the mean."""
        digest = hashlib.sha256(f"{self.kind} {self.site}".encode())
        for tensor in (self.unit_directions, self.mean):
            digest.update(f" {tuple(tensor.shape)} {tensor.dtype}\n".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    @property
    def directions(self) -> Float[Tensor, "feature d_in"]:
        """The unit vectors."""
        return self.unit_directions

    def encode(self, x: Float[Tensor, "*rows d_in"]) -> Float[Tensor, "*rows feature"]:
        """Return the projections of ``x - mean``."""
        check_width(x, self.d_in, self.site)
        return (x - self.mean.to(x)) @ self.unit_directions.to(x).T

    def decode(self, z: Float[Tensor, "*rows feature"]) -> Float[Tensor, "*rows d_in"]:
        """Return ``mean + z @ directions``: exact where the directions are an orthonormal basis."""
        _check_codes(z, self.width, self.site)
        return z @ self.unit_directions.to(z) + self.mean.to(z)


def check_width(x: Tensor, d_in: int, site: str) -> None:
    """Raise :class:`ShapeError` for activations that are not as wide as what reads them."""
    if x.shape[-1] != d_in:
        raise ShapeError(
            f"activations are {x.shape[-1]} wide, the features of site '{site}' read {d_in}: capture that site"
        )


def _check_codes(z: Tensor, width: int, site: str) -> None:
    if z.shape[-1] != width:
        raise ShapeError(f"codes of {z.shape[-1]} features given to an encoder of {width} for site '{site}'")
