"""A trained sparse autoencoder of one site: encode, decode, save and load, without importing SAELens."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechinterp.errors import ConfigError, HashMismatchError, ShapeError, SiteError

if TYPE_CHECKING:
    from mechinterp.feature_encoder import FeatureEncoder
    from mechinterp.store import ActivationStore

InferenceArchitecture = Literal["topk", "jumprelu", "standard", "matching_pursuit"]


@dataclass(frozen=True, eq=False)
class SparseAutoencoder:
    r"""A sparse autoencoder in the site's own scale, with unit decoder directions.

    .. math:: z = \mathrm{act}((x - b_{dec}) W_{enc} + b_{enc}), \qquad \hat x = z W_{dec} + b_{dec}

    with *act* the ReLU of the `k` largest pre-activations of a row (``topk``), of those above their latent's threshold
    (``jumprelu``), or of all (``standard``). ``matching_pursuit`` has no encoder of its own: `k` times it takes the direction that
    explains most of what is left.

    Parameters
    ----------
    site
        Name of the site whose tokens it reads.
    architecture
        Which *act* it has. A BatchTopK is a ``jumprelu`` once trained.
    W_enc, b_enc, W_dec, b_dec
        Weights. Rows of `W_dec` have unit norm.
    k
        Latents of a row, for ``topk``; rounds, for ``matching_pursuit``.
    threshold
        Per latent, for ``jumprelu``.
    provenance
        Where it comes from, as it stands in ``mechinterp.json``: ``model`` (spec, weights_hash, trained),
        ``preparation_hash``, ``store_hash``, ``seed``, ``config``, ``curve``, ``metrics``, ``versions``. Empty for an SAE
        trained elsewhere.

    """

    site: str
    architecture: InferenceArchitecture
    W_enc: Float[Tensor, "d_in feature"]
    b_enc: Float[Tensor, " feature"]
    W_dec: Float[Tensor, "feature d_in"]
    b_dec: Float[Tensor, " d_in"]
    k: int | None = None
    threshold: Float[Tensor, " feature"] | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        d_in, width = self.W_enc.shape
        shapes = {"b_enc": (width,), "W_dec": (width, d_in), "b_dec": (d_in,), "threshold": (width,)}
        for name, shape in shapes.items():
            tensor = getattr(self, name)
            if tensor is not None and tuple(tensor.shape) != shape:
                raise ShapeError(
                    f"{name} has shape {tuple(tensor.shape)}, {shape} fits the encoder: the SAE is damaged"
                )
        if self.architecture in {"topk", "matching_pursuit"} and not (self.k and 1 <= self.k <= width):
            what = "TopK" if self.architecture == "topk" else "matching-pursuit"
            raise ConfigError(f"k is {self.k}: a {what} SAE of {width} features wants 1 to {width}")
        if self.architecture == "jumprelu" and self.threshold is None:
            raise ConfigError("a JumpReLU SAE wants a threshold per feature")

    @property
    def kind(self) -> str:
        """``sae``."""
        return "sae"

    @property
    def d_in(self) -> int:
        """Width of the site."""
        return int(self.W_enc.shape[0])

    @property
    def width(self) -> int:
        """Number of features."""
        return int(self.W_enc.shape[1])

    @property
    def directions(self) -> Float[Tensor, "feature d_in"]:
        """What one unit of each feature adds to the activation; unit vectors."""
        return self.W_dec

    @cached_property
    def weights_hash(self) -> str:
        """SHA-256 of everything that decides the codes and the reconstruction."""
        digest = hashlib.sha256(f"{self.architecture} {self.site} {self.k}".encode())
        for tensor in self._tensors().values():
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    @property
    def trained_model(self) -> bool:
        """False when the model whose activations it was trained on had random weights."""
        return bool(self.provenance.get("model", {}).get("trained", True))

    def encode(self, x: Float[Tensor, "*rows d_in"]) -> Float[Tensor, "*rows feature"]:
        """Return the codes of some tokens, in the site's own scale.

        Raises
        ------
        ShapeError
            If `x` is of another width.

        """
        if self.architecture == "matching_pursuit":
            from sparse_autoencoders.architectures.matching_pursuit import pursuit_codes

            self._require_width(x)
            return pursuit_codes(x - self.b_dec.to(x), self.W_dec.to(x), self.k or 1)
        return activated(self.preactivations(x), self.k if self.architecture == "topk" else None, self.threshold)

    def encode_sparse(
        self, x: Float[Tensor, "*rows d_in"], k: int | None = None
    ) -> tuple[Float[Tensor, "*rows k"], Int[Tensor, "*rows k"]]:
        """Return the `k` largest codes of each row and the features they belong to, largest first."""
        hidden = self.encode(x) if self.architecture == "matching_pursuit" else self.preactivations(x)
        values, columns = hidden.topk(k or self.k or self.width, dim=-1)
        kept = values > (0 if self.threshold is None else self.threshold.to(values)[columns])
        return values.relu() * kept, columns

    def preactivations(self, x: Float[Tensor, "*rows d_in"]) -> Float[Tensor, "*rows feature"]:
        """Return what the latents see before any is set to zero; of matching pursuit, what the first round sees."""
        self._require_width(x)
        return (x - self.b_dec.to(x)) @ self.W_enc.to(x) + self.b_enc.to(x)

    def decode(self, z: Float[Tensor, "*rows feature"]) -> Float[Tensor, "*rows d_in"]:
        """Return the activation that the codes stand for."""
        return z @ self.W_dec.to(z) + self.b_dec.to(z)

    def to(self, device: torch.device | str) -> SparseAutoencoder:
        """Return a copy whose weights lie on another device."""
        moved = {name: tensor.to(device) for name, tensor in self._tensors().items()}
        return SparseAutoencoder(self.site, self.architecture, **moved, k=self.k, provenance=self.provenance)

    def save(self, folder: str | Path) -> Path:
        """Save into a folder that ``sae_lens.SAE.load_from_disk`` reads too; see :mod:`.saved_format`."""
        from sparse_autoencoders.saved_format import save

        return save(self, Path(folder))

    @classmethod
    def load(cls, folder: str | Path, *, site: str | None = None) -> SparseAutoencoder:
        """Load one saved here or by SAELens; see :mod:`.saved_format`."""
        from sparse_autoencoders.saved_format import load

        return load(Path(folder), site=site)

    def _require_width(self, x: Tensor) -> None:
        if x.shape[-1] != self.d_in:
            raise ShapeError(
                f"activations are {x.shape[-1]} wide, the SAE of site '{self.site}' reads {self.d_in}: capture that site"
            )

    def _tensors(self) -> dict[str, Tensor]:
        named = {"W_enc": self.W_enc, "b_enc": self.b_enc, "W_dec": self.W_dec, "b_dec": self.b_dec}
        return named if self.threshold is None else {**named, "threshold": self.threshold}


def activated(
    hidden: Float[Tensor, "*rows feature"], k: int | None, threshold: Float[Tensor, " feature"] | None
) -> Float[Tensor, "*rows feature"]:
    """Return the ReLU of the `k` largest pre-activations of a row, of those above their threshold, or of all."""
    if k is not None:
        values, columns = hidden.topk(k, dim=-1, sorted=False)
        return torch.zeros_like(hidden).scatter_(-1, columns, values.relu())
    if threshold is not None:
        return hidden.relu() * (hidden > threshold.to(hidden))
    return hidden.relu()


def hash_of_tensors(said: str, tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of some words, and of tensors with their names."""
    digest = hashlib.sha256(said.encode())
    for name, tensor in tensors.items():
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def check_activation(
    what: str, architecture: InferenceArchitecture, k: int | None, width: int, threshold: Tensor | None
) -> None:
    """Refuse a transcoder or crosscoder whose activation function lacks what it is made of.

    Raises
    ------
    ConfigError
        If a TopK one has no `k` up to `width`, or a JumpReLU one no threshold, or it is a matching pursuit.

    """
    if architecture == "matching_pursuit":
        raise ConfigError(f"a {what} is one product and an activation function, which a matching pursuit is not")
    if architecture == "topk" and not (k and 1 <= k <= width):
        raise ConfigError(f"k is {k}: a TopK {what} of {width} features wants 1 to {width}")
    if architecture == "jumprelu" and threshold is None:
        raise ConfigError(f"a JumpReLU {what} wants a threshold per feature")


def require_same_source(encoder: FeatureEncoder, store: ActivationStore, *, allow_mismatch: bool = False) -> None:
    """Refuse an encoder on activations of another site, width, model or preparation.

    Parameters
    ----------
    encoder
        Any encoder; the model and the preparation are known of SAEs trained here only.
    store
        Activations it shall read.
    allow_mismatch
        Let another model or preparation pass, to measure how an SAE transfers.

    Raises
    ------
    SiteError
        If the store does not hold the encoder's site.
    ShapeError
        If the site has another width.
    HashMismatchError
        If the activations come from other weights or another preparation.

    """
    width = store.width(encoder.site)
    if width != encoder.d_in:
        raise ShapeError(
            f"site '{encoder.site}' is {width} wide in this store, the {encoder.kind} reads {encoder.d_in}"
        )
    provenance = getattr(encoder, "provenance", None)
    if allow_mismatch or not provenance:
        return
    theirs = {
        "model weights": (provenance.get("model", {}).get("weights_hash"), store.manifest.weights_hash),
        "preparation": (provenance.get("preparation_hash"), store.manifest.preparation_hash),
    }
    for what, (expected, found) in theirs.items():
        if expected is not None and expected != found:
            raise HashMismatchError(
                f"the SAE of site '{encoder.site}' was trained on other {what} ({expected[:12]}) than these activations "
                f"come from ({found[:12]}): train one on them, or allow the mismatch to measure the transfer"
            )


def only_site(store: ActivationStore, site: str | None) -> str:
    """Return `site`, or the store's only one.

    Raises
    ------
    SiteError
        If the store has none of that name, or several and none was named.

    """
    if site is None and len(store.sites) != 1:
        raise SiteError(f"the store holds {len(store.sites)} sites: name one of {', '.join(store.sites)}")
    name = site or store.sites[0]
    store.width(name)  # raises with the nearest names
    return name
