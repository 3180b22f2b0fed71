"""A trained crosscoder: one dictionary for several sites of the same tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mechinterp.errors import ShapeError, SiteError, nearest
from mechinterp.feature_encoder import check_width
from sparse_autoencoders.autoencoder import InferenceArchitecture, activated, check_activation, hash_of_tensors


@dataclass(frozen=True, eq=False)
class Crosscoder:
    r"""One code for a token's activations at several sites, with a decoder for each.

    .. math:: z = \mathrm{act}\big(\sum_s (x_s - b_s) W_{enc}^s + b_{enc}\big), \qquad \hat x_s = z W_{dec}^s + b_s

    Codes are in units of training: with each site's activations divided by that site's scale, a feature's decoder directions have unit
    norm together.

    Parameters
    ----------
    sites, widths
        Names and widths of the sites.
    architecture
        ``topk`` or ``jumprelu``; a BatchTopK is a ``jumprelu`` once trained.
    W_enc, b_enc, W_dec, b_dec
        Weights, the sites' parts side by side.
    scales
        What each site's activations were divided by.
    k, threshold
        For ``topk`` and ``jumprelu``.
    provenance
        As a :class:`~sparse_autoencoders.autoencoder.SparseAutoencoder` has it.

    Raises
    ------
    ShapeError, ConfigError
        If the weights do not fit each other, or `k` or the threshold is missing.

    References
    ----------
    Lindsey et al. Sparse crosscoders for cross-layer features and model diffing. Transformer Circuits Thread, 2024.
    Minder et al. Overcoming sparsity artifacts in crosscoders to interpret chat-tuning. arXiv 2504.02922 (BatchTopK).

    """

    sites: tuple[str, ...]
    widths: tuple[int, ...]
    architecture: InferenceArchitecture
    W_enc: Float[Tensor, "d_all feature"]
    b_enc: Float[Tensor, " feature"]
    W_dec: Float[Tensor, "feature d_all"]
    b_dec: Float[Tensor, " d_all"]
    scales: Float[Tensor, " site"]
    k: int | None = None
    threshold: Float[Tensor, " feature"] | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        d_all, width = sum(self.widths), int(self.W_enc.shape[1])
        shapes = {
            "W_enc": (d_all, width), "b_enc": (width,), "W_dec": (width, d_all), "b_dec": (d_all,),
            "scales": (len(self.sites),), "threshold": (width,),
        }  # fmt: skip
        for name, shape in shapes.items():
            tensor = getattr(self, name)
            if tensor is not None and tuple(tensor.shape) != shape:
                raise ShapeError(f"{name} has shape {tuple(tensor.shape)}, {shape} fits: the crosscoder is damaged")
        check_activation(self.kind, self.architecture, self.k, width, self.threshold)

    @property
    def kind(self) -> str:
        """``crosscoder``."""
        return "crosscoder"

    @property
    def width(self) -> int:
        """Number of features."""
        return int(self.W_enc.shape[1])

    @cached_property
    def weights_hash(self) -> str:
        """SHA-256 of everything that decides codes and reconstructions."""
        return hash_of_tensors(f"crosscoder {self.architecture} {' '.join(self.sites)} {self.k}", self.tensors())

    def directions(self, site: str) -> Float[Tensor, "feature d_in"]:
        """Return what one unit of each feature adds at a site, in that site's own scale.

        Raises
        ------
        SiteError
            If it is none of the crosscoder's.

        """
        return self.W_dec[:, self._part(site)]

    @property
    def shares(self) -> Float[Tensor, "feature site"]:
        """Each site's share of a feature's squared decoder norm, sites in units of their scales; rows sum to one.

        A feature of one site alone has a share near 1 there; one that all sites hold, an even share in each.
        """
        parts = [self.directions(site).square().sum(1) for site in self.sites]
        squares = torch.stack(parts, dim=1) / self.scales.square()
        return squares / squares.sum(1, keepdim=True)

    def preactivations(self, x: Float[Tensor, "*rows d_all"]) -> Float[Tensor, "*rows feature"]:
        """Return what the features see before any is set to zero, of activations side by side in the order of the sites."""
        check_width(x, sum(self.widths), " + ".join(self.sites))
        return (x - self.b_dec.to(x)) @ self.W_enc.to(x) + self.b_enc.to(x)

    def encode(self, acts: Mapping[str, Float[Tensor, "*rows d_in"]]) -> Float[Tensor, "*rows feature"]:
        """Return the codes of tokens, from their activations at every site.

        Raises
        ------
        SiteError
            If a site is missing.
        ShapeError
            If activations have another width.

        """
        missing = [site for site in self.sites if site not in acts]
        if missing:
            raise SiteError(f"a crosscoder of {', '.join(self.sites)} reads all of them: '{missing[0]}' is missing")
        return self.encode_joined(torch.cat([acts[site] for site in self.sites], dim=-1))

    def encode_joined(self, x: Float[Tensor, "*rows d_all"]) -> Float[Tensor, "*rows feature"]:
        """Return the codes of activations that stand side by side in the order of the sites."""
        return activated(self.preactivations(x), self.k if self.architecture == "topk" else None, self.threshold)

    def decode(self, z: Float[Tensor, "*rows feature"]) -> dict[str, Float[Tensor, "*rows d_in"]]:
        """Return the activation at each site that the codes stand for."""
        joined = z @ self.W_dec.to(z) + self.b_dec.to(z)
        return {site: joined[..., self._part(site)] for site in self.sites}

    def tensors(self) -> dict[str, Tensor]:
        """Return the weights by name."""
        named = {
            "W_enc": self.W_enc,
            "b_enc": self.b_enc,
            "W_dec": self.W_dec,
            "b_dec": self.b_dec,
            "scales": self.scales,
        }
        return named if self.threshold is None else {**named, "threshold": self.threshold}

    def save(self, folder: str | Path) -> Path:
        """Save into a folder; SAELens has no crosscoders, so ours alone reads it."""
        from sparse_autoencoders.joint_format import save_crosscoder

        return save_crosscoder(self, Path(folder))

    @classmethod
    def load(cls, folder: str | Path) -> Crosscoder:
        """Load one saved here."""
        from sparse_autoencoders.joint_format import load_crosscoder

        return load_crosscoder(Path(folder))

    def _part(self, site: str) -> slice:
        if site not in self.sites:
            raise SiteError(f"no site '{site}' in this crosscoder: {nearest(site, self.sites)}")
        at = self.sites.index(site)
        begin = sum(self.widths[:at])
        return slice(begin, begin + self.widths[at])
