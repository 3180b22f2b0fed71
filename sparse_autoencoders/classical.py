"""Decompositions older than SAEs as baselines: ICA, NMF, k-means; and a random encoder whose decoder alone is trained."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from mechinterp.errors import ShapeError
from mechinterp.feature_encoder import Directions, FeatureEncoder, check_width
from sparse_autoencoders.autoencoder import SparseAutoencoder, only_site
from sparse_autoencoders.baselines import LargestOf, random_sae
from sparse_autoencoders.metrics import training_images

if TYPE_CHECKING:
    from mechinterp.store import ActivationStore

ROWS = 8192
MOST_COMPONENTS = 256
_STEPS = 60
_RIDGE = 1e-6


@dataclass(frozen=True, eq=False)
class LinearCodes(Directions):
    """Directions whose codes are not their projections: read by a matrix of their own (ICA), or fitted (NMF).

    Parameters
    ----------
    site, unit_directions, mean, kind
        As of :class:`~mechinterp.feature_encoder.Directions`; `mean` is what is subtracted, whatever it is called there.
    reading
        ``codes = (x - mean) @ reading``.
    positive
        Codes are instead the non-negative ones that reconstruct best (NMF), found by accelerated projected gradient [1]_.

    References
    ----------
    .. [1] Beck, Teboulle. A fast iterative shrinkage-thresholding algorithm for linear inverse problems. 2009.

    """

    reading: Float[Tensor, "d_in feature"] = field(kw_only=True)
    positive: bool = field(default=False, kw_only=True)

    @property
    def weights_hash(self) -> str:
        """Hash of everything that decides the codes."""
        digest = hashlib.sha256(f"{super().weights_hash} {self.positive}".encode())
        digest.update(self.reading.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def encode(self, x: Float[Tensor, "*rows d_in"]) -> Float[Tensor, "*rows feature"]:
        """Return the codes of some tokens."""
        check_width(x, self.d_in, self.site)
        away = x - self.mean.to(x)
        z = away @ self.reading.to(x)
        return self._non_negative(away, z.clamp_min(0)) if self.positive else z

    def _non_negative(self, x: Tensor, z: Tensor) -> Tensor:
        rows = self.unit_directions.to(x)
        gram = rows @ rows.T
        step = 1 / float(torch.linalg.matrix_norm(gram, 2))
        along = x @ rows.T
        ahead, t = z, 1.0
        for _ in range(_STEPS):
            new = (ahead - step * (ahead @ gram - along)).clamp_min(0)
            t_new = (1 + (1 + 4 * t * t) ** 0.5) / 2
            ahead, z, t = new + (t - 1) / t_new * (new - z), new, t_new
        return z


@dataclass(frozen=True, eq=False)
class NearestCentroid:
    """Which centroid a token is nearest to: k-means, one active feature for each token.

    Parameters
    ----------
    site
        Name of the site.
    centroids
        One for each cluster.
    offset
        Mean of the tokens; a feature's direction leads from there to its centroid, its code there is 1.

    """

    site: str
    centroids: Float[Tensor, "feature d_in"]
    offset: Float[Tensor, " d_in"]
    kind: str = "k-means"

    @property
    def d_in(self) -> int:
        """Width of the site."""
        return int(self.centroids.shape[1])

    @property
    def width(self) -> int:
        """Number of clusters."""
        return int(self.centroids.shape[0])

    @property
    def directions(self) -> Float[Tensor, "feature d_in"]:
        """From the mean to each centroid."""
        return self.centroids - self.offset

    @property
    def weights_hash(self) -> str:
        """Hash of centroids and mean."""
        return hashlib.sha256(
            f"k-means {self.site}".encode() + self.centroids.numpy().tobytes() + self.offset.numpy().tobytes()
        ).hexdigest()

    def encode(self, x: Float[Tensor, "*rows d_in"]) -> Float[Tensor, "*rows feature"]:
        """Return 1 for the nearest centroid, 0 for the others."""
        if x.shape[-1] != self.d_in:
            raise ShapeError(f"activations are {x.shape[-1]} wide, the k-means of '{self.site}' reads {self.d_in}")
        nearest = (x @ self.centroids.T - self.centroids.square().sum(1) / 2).argmax(-1, keepdim=True)
        return torch.zeros(*x.shape[:-1], self.width, dtype=x.dtype).scatter_(-1, nearest, 1.0)

    def decode(self, z: Float[Tensor, "*rows feature"]) -> Float[Tensor, "*rows d_in"]:
        """Return the centroid that a code of 1 stands for."""
        return z @ self.directions + self.offset


def trained_decoder(frozen: SparseAutoencoder, x: Float[Tensor, "row d_in"]) -> SparseAutoencoder:
    """Return an SAE with the same, untrained encoder and the decoder that reconstructs `x` best.

    What is left between this and a trained SAE is what training the *encoder* was worth. The codes do not change, so the best
    decoder is a least-squares problem (with a little ridge), solved exactly.
    """
    centred = (x - frozen.b_dec).double()
    z = frozen.encode(x).double()
    gram = z.T @ z
    gram.diagonal().add_(_RIDGE * float(gram.diagonal().mean()) + torch.finfo(torch.float32).tiny)
    W_dec = torch.linalg.solve(gram, z.T @ centred)
    return replace(frozen, W_dec=W_dec.float().contiguous())


def classical_encoders(
    store: ActivationStore,
    *,
    k: int,
    width: int,
    site: str | None = None,
    images: Sequence[int] | NDArray[np.int64] | None = None,
    seed: int = 0,
) -> dict[str, FeatureEncoder]:
    """Return further baselines of an SAE with `width` features of which `k` are active; fitted to a sample of the tokens.

    Parameters
    ----------
    store, k, width, site, images, seed
        As for :func:`~sparse_autoencoders.baselines.control_encoders`.

    Returns
    -------
    dict
        ``frozen encoder, trained decoder``; ``ICA, largest k`` and ``NMF, largest k`` with as many components as the site is
        wide, at most 256 (NMF of what lies above each neuron's least value); ``k-means`` with `width` clusters, one active.

    """
    return classical_encoders_at(store, ks=(k,), width=width, site=site, images=images, seed=seed)[k]


def classical_encoders_at(
    store: ActivationStore,
    *,
    ks: Sequence[int],
    width: int,
    site: str | None = None,
    images: Sequence[int] | NDArray[np.int64] | None = None,
    seed: int = 0,
) -> dict[int, dict[str, FeatureEncoder]]:
    """Return :func:`classical_encoders` for each of several numbers of active features; ICA, NMF and k-means are fitted once."""
    from sklearn.cluster import MiniBatchKMeans
    from sklearn.decomposition import NMF, FastICA
    from sklearn.exceptions import ConvergenceWarning

    name = only_site(store, site)
    chosen = training_images(store) if images is None else np.asarray(images, dtype=np.int64)
    x = _sample(store, name, chosen, seed)
    components = min(store.width(name), MOST_COMPONENTS, len(x) - 1)
    clusters = min(width, len(x))
    mean, least = x.mean(0), x.amin(0)
    with warnings.catch_warnings():
        # a baseline that has not quite converged after its iterations is still that baseline
        warnings.simplefilter("ignore", ConvergenceWarning)
        ica = FastICA(components, whiten="unit-variance", max_iter=100, tol=1e-3, random_state=seed).fit(
            x.double().numpy()
        )
        nmf = NMF(components, init="nndsvda", max_iter=60, random_state=seed).fit((x - least).clamp_min(0).numpy())
        means = MiniBatchKMeans(clusters, n_init=1, random_state=seed, batch_size=2048).fit(x.numpy())
    of_ica = _unit(name, "ica", ica.components_.T, ica.mixing_.T, mean)
    of_nmf = _unit(name, "nmf", np.linalg.pinv(nmf.components_), nmf.components_, least, positive=True)
    of_means = NearestCentroid(name, torch.from_numpy(means.cluster_centers_).float(), mean)
    found: dict[int, dict[str, FeatureEncoder]] = {}
    for k in ks:
        few = min(k, components)
        found[k] = {
            "frozen encoder, trained decoder": trained_decoder(random_sae(store, name, chosen, width, k, seed), x),
            f"ICA, largest {few}": LargestOf(of_ica, few),
            f"NMF, largest {few}": LargestOf(of_nmf, few),
            "k-means": of_means,
        }
    return found


def _unit(
    site: str,
    kind: str,
    reading: NDArray[np.float64],
    rows: NDArray[np.float64],
    offset: Tensor,
    *,
    positive: bool = False,
) -> LinearCodes:
    norms = np.linalg.norm(rows, axis=1)
    norms = np.where(norms > 0, norms, 1.0)
    read, unit = (torch.from_numpy(np.ascontiguousarray(m)).float() for m in (reading * norms, rows / norms[:, None]))
    return LinearCodes(site, unit, offset.float(), kind, reading=read, positive=positive)


def _sample(store: ActivationStore, site: str, images: NDArray[np.int64], seed: int) -> Float[Tensor, "row width"]:
    order = np.random.default_rng(seed).permutation(len(images))
    enough = int(np.searchsorted(store.rows_of(site, images[order]).cumsum(), 2 * ROWS)) + 1
    rows = store.rows(site, images[np.sort(order[:enough])])
    return rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))[:ROWS]]
