"""What a trained SAE has to beat: PCA, raw neurons and a frozen-random SAE of the same size and sparsity."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from mechinterp.errors import ConfigError
from mechinterp.feature_encoder import Directions, FeatureEncoder, Neurons
from mechinterp.progress import SILENT, Progress
from sparse_autoencoders.autoencoder import SparseAutoencoder, only_site
from sparse_autoencoders.initialisation import start
from sparse_autoencoders.metrics import evaluate_sae, training_images

if TYPE_CHECKING:
    from mechinterp.store import ActivationStore

_BLOCK = 64


@dataclass(frozen=True, eq=False)
class LargestOf:
    """An encoder that keeps the `k` largest codes of another, by absolute value, in each row.

    Parameters
    ----------
    encoder
        Its codes are thinned out; it decodes.
    k
        How many stay.

    Raises
    ------
    ConfigError
        If `k` is not between 1 and the encoder's width.

    """

    encoder: FeatureEncoder
    k: int

    def __post_init__(self) -> None:
        if not 1 <= self.k <= self.encoder.width:
            raise ConfigError(f"k is {self.k}: the {self.encoder.kind} have {self.encoder.width} features")

    @property
    def kind(self) -> str:
        """Of the other encoder."""
        return self.encoder.kind

    @property
    def site(self) -> str:
        """Of the other encoder."""
        return self.encoder.site

    @property
    def d_in(self) -> int:
        """Width of the site."""
        return self.encoder.d_in

    @property
    def width(self) -> int:
        """Number of features, not of those kept."""
        return self.encoder.width

    @property
    def weights_hash(self) -> str:
        """Hash of the other encoder's and `k`."""
        return hashlib.sha256(f"largest {self.k} {self.encoder.weights_hash}".encode()).hexdigest()

    @property
    def directions(self) -> Float[Tensor, "feature d_in"]:
        """Of the other encoder."""
        return self.encoder.directions

    def encode(self, x: Float[Tensor, "*rows d_in"]) -> Float[Tensor, "*rows feature"]:
        """Return the codes, all but the `k` largest of a row zero."""
        z = self.encoder.encode(x)
        kept = z.abs().topk(self.k, dim=-1).indices
        return torch.zeros_like(z).scatter_(-1, kept, z.gather(-1, kept))

    def decode(self, z: Float[Tensor, "*rows feature"]) -> Float[Tensor, "*rows d_in"]:
        """Decode as the other encoder does."""
        return self.encoder.decode(z)


def principal_components(
    store: ActivationStore, site: str, images: NDArray[np.int64], components: int | None = None
) -> Directions:
    """Return the principal components of a site's tokens, strongest first; all by default.

    Raises
    ------
    ConfigError
        If more components are asked for than the site is wide.

    """
    width = store.width(site)
    if components is not None and not 1 <= components <= width:
        raise ConfigError(f"{components} components asked for: site '{site}' has {width}")
    mean = store.statistics(site, images).mean
    covariance = torch.zeros(width, width, dtype=torch.float64)
    rows = 0
    for first in range(0, len(images), _BLOCK):
        x = store.rows(site, images[first : first + _BLOCK]).double() - mean
        covariance += x.T @ x
        rows += len(x)
    vectors = torch.linalg.eigh(covariance / rows).eigenvectors.flip(1).T
    return Directions(site, vectors[:components].float().contiguous(), mean.float(), kind="pca")


def random_sae(
    store: ActivationStore, site: str, images: NDArray[np.int64], width: int, k: int, seed: int = 0
) -> SparseAutoencoder:
    """Return a TopK SAE that was never trained: random unit directions, tied encoder, scaled to reconstruct best.

    Features of such an SAE score close to trained ones on many interpretability metrics (arXiv 2501.17727), so it stands
    beside every result.
    """
    moments = store.statistics(site, images)
    scale = float(moments.variance.mean().sqrt())
    generator = torch.Generator().manual_seed(seed)
    drawn = images[torch.randperm(len(images), generator=generator)[:_BLOCK].numpy()]
    rows = (store.rows(site, np.sort(drawn)) - moments.mean.float()) / scale
    begin = start("random", rows[torch.randperm(len(rows), generator=generator)], width, k, generator)
    return SparseAutoencoder(
        site, "topk", begin.W_enc, torch.zeros(width), begin.W_dec, moments.mean.float(), k=k, provenance={}
    )


def control_encoders(
    store: ActivationStore,
    *,
    k: int,
    width: int,
    site: str | None = None,
    images: Sequence[int] | NDArray[np.int64] | None = None,
    seed: int = 0,
) -> dict[str, FeatureEncoder]:
    """Return the controls of an SAE with `width` features of which `k` are active.

    Parameters
    ----------
    store
        Activations.
    k, width
        Of the SAE.
    site
        May be left out where the store has one.
    images
        Positions of the SAE's training images; by default those of split ``train``.
    seed
        Of the frozen-random SAE.

    Returns
    -------
    dict
        ``frozen-random SAE``; ``PCA, first k``; ``PCA, largest k`` (of all components, token by token); ``neurons, largest
        k`` (the others zero); ``neurons about the mean, largest k`` (the others at their mean).

    """
    name = only_site(store, site)
    chosen = training_images(store) if images is None else np.asarray(images, dtype=np.int64)
    d_in = store.width(name)
    few = min(k, d_in)
    components = principal_components(store, name, chosen)
    about_mean = Directions(name, torch.eye(d_in), components.mean, kind="neurons")
    return {
        "frozen-random SAE": random_sae(store, name, chosen, width, k, seed),
        f"PCA, first {few}": Directions(name, components.unit_directions[:few], components.mean, kind="pca"),
        f"PCA, largest {few}": LargestOf(components, few),
        f"neurons, largest {few}": LargestOf(Neurons(name, d_in), few),
        f"neurons about the mean, largest {few}": LargestOf(about_mean, few),
    }


def metrics_table(
    encoders: Mapping[str, FeatureEncoder],
    store: ActivationStore,
    images: Sequence[int] | NDArray[np.int64] | None = None,
    *,
    progress: Progress = SILENT,
) -> pd.DataFrame:
    """Measure several encoders on the same images.

    Parameters
    ----------
    encoders
        Name → encoder: the SAEs, and :func:`control_encoders` beside them.
    store, images
        As for :func:`evaluate_sae`.
    progress
        Sees one step per block of images and encoder.

    Returns
    -------
    pandas.DataFrame
        One row for each, indexed by name: ``features`` and the scalars of :class:`SAEMetrics`.

    """
    rows = {
        name: {"features": encoder.width, **evaluate_sae(encoder, store, images, progress=progress).to_json()}
        for name, encoder in encoders.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index")
