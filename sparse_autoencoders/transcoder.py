"""A trained transcoder: it reads one site and writes what another holds, through few features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechinterp.errors import ShapeError
from mechinterp.feature_encoder import check_width
from sparse_autoencoders.autoencoder import InferenceArchitecture, activated, check_activation, hash_of_tensors


@dataclass(frozen=True, eq=False)
class Transcoder:
    r"""A sparse map from the tokens of one site to those of another, with unit decoder directions.

    .. math:: z = \mathrm{act}(x W_{enc} + b_{enc}), \qquad \hat y = z W_{dec} + b_{dec} + W_{skip} x

    with *act* as :class:`~sparse_autoencoders.autoencoder.SparseAutoencoder` has it. Codes are in the scale of the site that is
    written: one unit of a feature adds a unit vector there.

    Parameters
    ----------
    site, to_site
        Names of the site that is read and of the one that is written: what goes into a block's MLP, and what it adds.
    architecture
        ``topk`` or ``jumprelu``; a BatchTopK is a ``jumprelu`` once trained. ``standard``: no threshold.
    W_enc, b_enc, W_dec, b_dec
        Weights. Rows of `W_dec` have unit norm.
    W_skip
        Linear path beside the features; none where there is none.
    k
        Features of a row, for ``topk``.
    threshold
        Per feature, for ``jumprelu``.
    provenance
        As a :class:`~sparse_autoencoders.autoencoder.SparseAutoencoder` has it.

    Raises
    ------
    ShapeError, ConfigError
        If the weights do not fit each other, or `k` or the threshold is missing.

    """

    site: str
    to_site: str
    architecture: InferenceArchitecture
    W_enc: Float[Tensor, "d_in feature"]
    b_enc: Float[Tensor, " feature"]
    W_dec: Float[Tensor, "feature d_out"]
    b_dec: Float[Tensor, " d_out"]
    W_skip: Float[Tensor, "d_out d_in"] | None = None
    k: int | None = None
    threshold: Float[Tensor, " feature"] | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        (d_in, width), d_out = self.W_enc.shape, self.W_dec.shape[1]
        shapes = {
            "b_enc": (width,), "W_dec": (width, d_out), "b_dec": (d_out,), "W_skip": (d_out, d_in), "threshold": (width,),
        }  # fmt: skip
        for name, shape in shapes.items():
            tensor = getattr(self, name)
            if tensor is not None and tuple(tensor.shape) != shape:
                raise ShapeError(
                    f"{name} has shape {tuple(tensor.shape)}, {shape} fits the encoder: the transcoder is damaged"
                )
        check_activation(self.kind, self.architecture, self.k, width, self.threshold)

    @property
    def kind(self) -> str:
        """``transcoder``."""
        return "transcoder"

    @property
    def d_in(self) -> int:
        """Width of the site that is read."""
        return int(self.W_enc.shape[0])

    @property
    def d_out(self) -> int:
        """Width of the site that is written."""
        return int(self.W_dec.shape[1])

    @property
    def width(self) -> int:
        """Number of features."""
        return int(self.W_enc.shape[1])

    @property
    def directions(self) -> Float[Tensor, "feature d_out"]:
        """What one unit of each feature adds at the site that is written; unit vectors."""
        return self.W_dec

    @cached_property
    def weights_hash(self) -> str:
        """SHA-256 of everything that decides what is written."""
        return hash_of_tensors(f"{self.architecture} {self.site} {self.to_site} {self.k}", self.tensors())

    def preactivations(self, x: Float[Tensor, "*rows d_in"]) -> Float[Tensor, "*rows feature"]:
        """Return what the features see before any is set to zero.

        Raises
        ------
        ShapeError
            If `x` is of another width.

        """
        check_width(x, self.d_in, self.site)
        return x @ self.W_enc.to(x) + self.b_enc.to(x)

    def encode(self, x: Float[Tensor, "*rows d_in"]) -> Float[Tensor, "*rows feature"]:
        """Return the codes of some tokens of `site`."""
        return activated(self.preactivations(x), self.k if self.architecture == "topk" else None, self.threshold)

    def encode_sparse(
        self, x: Float[Tensor, "*rows d_in"], k: int | None = None
    ) -> tuple[Float[Tensor, "*rows k"], Int[Tensor, "*rows k"]]:
        """Return the `k` largest codes of each row and the features they belong to, largest first."""
        values, columns = self.encode(x).topk(k or self.k or self.width, dim=-1)
        return values, columns

    def decode(self, z: Float[Tensor, "*rows feature"]) -> Float[Tensor, "*rows d_out"]:
        """Return what the codes write; the linear path, which knows no codes, comes on top (:meth:`skipped`)."""
        return z @ self.W_dec.to(z) + self.b_dec.to(z)

    def skipped(self, x: Float[Tensor, "*rows d_in"]) -> Float[Tensor, "*rows d_out"]:
        """Return what the linear path writes; zero where there is none."""
        if self.W_skip is None:
            return x.new_zeros(*x.shape[:-1], self.d_out)
        return x @ self.W_skip.to(x).t()

    def __call__(self, x: Float[Tensor, "*rows d_in"]) -> Float[Tensor, "*rows d_out"]:
        """Return what is written for some tokens of `site`."""
        return self.decode(self.encode(x)) + self.skipped(x)

    def to(self, device: torch.device | str) -> Transcoder:
        """Return a copy whose weights lie on another device."""
        moved: dict[str, Any] = {name: tensor.to(device) for name, tensor in self.tensors().items()}
        return replace(self, **moved)

    def tensors(self) -> dict[str, Tensor]:
        """Return the weights by name."""
        named = {"W_enc": self.W_enc, "b_enc": self.b_enc, "W_dec": self.W_dec, "b_dec": self.b_dec}
        more = {"W_skip": self.W_skip, "threshold": self.threshold}
        return named | {name: tensor for name, tensor in more.items() if tensor is not None}

    def save(self, folder: str | Path) -> Path:
        """Save into a folder; ``sae_lens.SAE.load_from_disk`` reads it too, unless it is a TopK."""
        from sparse_autoencoders.joint_format import save_transcoder

        return save_transcoder(self, Path(folder))

    @classmethod
    def load(cls, folder: str | Path) -> Transcoder:
        """Load one saved here, or by SAELens with both sites in its metadata."""
        from sparse_autoencoders.joint_format import load_transcoder

        return load_transcoder(Path(folder))
