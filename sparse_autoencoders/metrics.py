"""How well features describe a site: reconstruction, sparsity and use of the dictionary, for any encoder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from mechinterp.errors import ImagesError
from mechinterp.progress import SILENT, Progress
from sparse_autoencoders.autoencoder import require_same_source
from sparse_autoencoders.explained_variance import ExplainedVariance

if TYPE_CHECKING:
    from mechinterp.feature_encoder import FeatureEncoder
    from mechinterp.store import ActivationStore


@dataclass(frozen=True)
class SAEMetrics:
    """What an encoder makes of some activations.

    Parameters
    ----------
    explained_variance
        Share of the rows' variance (about their own mean) that the reconstruction explains.
    l0
        Active features of a row, mean.
    cosine
        Cosine of a row and its reconstruction, mean over the rows that are not zero.
    dead
        Features that are silent on all of the rows, as a share of all features.
    dense
        Features active on more than a tenth of the rows, as a share of all.
    rows
        Rows they were measured on.
    images
        Images those rows belong to.
    density
        Per feature, the share of the rows it is active on.

    """

    explained_variance: float
    l0: float
    cosine: float
    dead: float
    dense: float
    rows: int
    images: int
    density: NDArray[np.float64]

    def to_json(self) -> dict[str, Any]:
        """Return the scalars; the density per feature is left out."""
        return {name: value for name, value in asdict(self).items() if name != "density"}


@torch.no_grad()
def evaluate_sae(
    encoder: FeatureEncoder,
    store: ActivationStore,
    images: Sequence[int] | NDArray[np.int64] | None = None,
    *,
    allow_mismatch: bool = False,
    progress: Progress = SILENT,
) -> SAEMetrics:
    """Measure an SAE, or any other encoder, on stored activations.

    Parameters
    ----------
    encoder
        SAE, raw neurons, PCA, …
    store
        Activations of the encoder's site.
    images
        Positions of the images to measure on; by default those whose split is not ``train``, all where there is no split.
    allow_mismatch
        Measure on activations of another model or preparation too.
    progress
        Sees one step per block of images.

    Raises
    ------
    HashMismatchError, ShapeError, SiteError, ImagesError
        If encoder and activations do not belong together, or there is no image to measure on.

    Notes
    -----
    A feature is *active* where its code is not zero; codes of projections (PCA) are active almost everywhere.

    """
    require_same_source(encoder, store, allow_mismatch=allow_mismatch)
    chosen = held_out_images(store) if images is None else np.asarray(images, dtype=np.int64)
    if len(chosen) == 0:
        raise ImagesError("no image to measure on: give positions of held-out images")
    variance = ExplainedVariance()
    active = torch.zeros(encoder.width, dtype=torch.float64)
    cosine, directed = 0.0, 0
    for x in row_blocks(store, encoder, chosen, progress, f"measuring the {encoder.kind}"):
        z = encoder.encode(x)
        x_hat = encoder.decode(z)
        variance.update(x, x_hat)
        active += (z != 0).sum(0).double()
        norm = x.norm(dim=-1)
        cosine += float(torch.cosine_similarity(x, x_hat, dim=-1)[norm > 0].double().sum())
        directed += int((norm > 0).sum())
    density = active / variance.rows
    return SAEMetrics(
        explained_variance=variance.compute(),
        l0=float(density.sum()),
        cosine=cosine / directed if directed else float("nan"),
        dead=float((density == 0).double().mean()),
        dense=float((density > 0.1).double().mean()),
        rows=variance.rows,
        images=len(chosen),
        density=density.numpy(),
    )


def held_out_images(store: ActivationStore) -> NDArray[np.int64]:
    """Return the positions of the images that are for testing: those of split ``test``, else all not in ``train``, else all."""
    split = store.images["split"]
    for wanted in (split == "test", split.notna() & (split != "train")):
        if wanted.any():
            return np.flatnonzero(wanted.to_numpy())
    return np.arange(len(split))


def training_images(store: ActivationStore) -> NDArray[np.int64]:
    """Return the positions of the images of split ``train``; all where no image has a split.

    Raises
    ------
    ImagesError
        If there are splits but none is ``train``.

    """
    split = store.images["split"]
    if not split.notna().any():
        return np.arange(len(split))
    return store.where("train")


def image_blocks(
    store: ActivationStore,
    encoder: FeatureEncoder,
    images: NDArray[np.int64],
    progress: Progress = SILENT,
    description: str = "reading",
    *,
    values: int = 1 << 22,
) -> Iterator[Float[Tensor, "image token width"]]:
    """Yield the activations of some images in blocks whose codes hold about `values` numbers."""
    for block in _blocks(store, encoder, images, progress, description, values):
        yield store.read(encoder.site, block)


def row_blocks(
    store: ActivationStore,
    encoder: FeatureEncoder,
    images: NDArray[np.int64],
    progress: Progress = SILENT,
    description: str = "reading",
    *,
    values: int = 1 << 22,
) -> Iterator[Float[Tensor, "row width"]]:
    """Yield the stored tokens of some images, as :func:`image_blocks` does; images may hold different tokens."""
    for block in _blocks(store, encoder, images, progress, description, values):
        yield store.rows(encoder.site, block)


def _blocks(
    store: ActivationStore,
    encoder: FeatureEncoder,
    images: NDArray[np.int64],
    progress: Progress,
    description: str,
    values: int,
) -> Iterator[NDArray[np.int64]]:
    per_image = store.tokens(encoder.site) * max(encoder.width, encoder.d_in)
    size = max(1, values // per_image)
    starts = range(0, len(images), size)
    for first in progress.track(starts, description, total=len(starts)):
        yield images[first : first + size]
