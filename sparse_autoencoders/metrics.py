"""How well features describe a site: reconstruction, sparsity and use of the dictionary, for any encoder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from mechinterp.errors import ImagesError, ShapeError
from mechinterp.progress import SILENT, Progress
from sparse_autoencoders.autoencoder import require_same_source
from sparse_autoencoders.effective_size import effective_size
from sparse_autoencoders.explained_variance import ExplainedVariance

if TYPE_CHECKING:
    from mechinterp.feature_encoder import FeatureEncoder
    from mechinterp.store import ActivationStore

DENSE, RARE = 0.1, 1e-3


@dataclass(frozen=True)
class SAEMetrics:
    """What an encoder makes of some activations.

    Parameters
    ----------
    explained_variance
        Share of the rows' variance (about their own mean) that the reconstruction explains.
    norm_explained
        Share of the site's squared norm that it explains: one minus the squared error over the sum of the rows' squared norms.
        Higher than the explained variance where the rows have a large mean in common.
    norm_ratio
        Norm of a reconstruction over that of its row, mean over the rows that are not zero: below 1 where codes shrink.
    l0
        Active features of a row, mean.
    cosine
        Cosine of a row and its reconstruction, mean over the rows that are not zero.
    dead
        Features that are silent on all of the rows, as a share of all features.
    dense
        Features active on more than a tenth of the rows, as a share of all.
    rare
        Features active on some, but on fewer than one in a thousand of the rows, as a share of all.
    effective_features
        Number of features that are as evenly used: exponential of the entropy of their densities.
    rows
        Rows they were measured on.
    images
        Images those rows belong to.
    density
        Per feature, the share of the rows it is active on.

    """

    explained_variance: float
    norm_explained: float
    norm_ratio: float
    l0: float
    cosine: float
    dead: float
    dense: float
    rare: float
    effective_features: float
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
    meter = _Meter(encoder)
    for x in row_blocks(store, encoder, chosen, progress, f"measuring the {encoder.kind}"):
        meter.update(x)
    return meter.compute(len(chosen))


@torch.no_grad()
def evaluate_by_token_type(
    encoder: FeatureEncoder,
    store: ActivationStore,
    types: Mapping[str, Bool[NDArray[np.bool_], "image token"]],
    images: Sequence[int] | NDArray[np.int64],
    *,
    allow_mismatch: bool = False,
    progress: Progress = SILENT,
) -> dict[str, SAEMetrics]:
    """Measure an encoder on tokens of each type apart: lesion, background, CLS.

    An SAE may explain a site well and its few lesion tokens badly: those are one in a hundred.

    Parameters
    ----------
    encoder, store, allow_mismatch, progress
        As for :func:`evaluate_sae`.
    types
        Type → which tokens of these images are of it, see :func:`~sparse_autoencoders.token_types.token_types`.
    images
        Positions of the images.

    Returns
    -------
    dict
        Metrics for each type that a token is of; the explained variance is about the type's own mean.

    Raises
    ------
    HashMismatchError, ShapeError, SiteError, ImagesError
        If encoder, activations and types do not belong together, or there is no image.

    """
    require_same_source(encoder, store, allow_mismatch=allow_mismatch)
    chosen = np.asarray(images, dtype=np.int64)
    expected = (len(chosen), store.tokens(encoder.site))
    for name, marks in types.items():
        if marks.shape != expected:
            raise ShapeError(
                f"tokens of type '{name}' are marked for {' × '.join(map(str, marks.shape))} (image × token), the images have "
                f"{' × '.join(map(str, expected))}: mark those of site '{encoder.site}'"
            )
    meters = {name: _Meter(encoder) for name, marks in types.items() if marks.any()}
    at = 0
    for acts_bnd in image_blocks(store, encoder, chosen, progress, f"measuring the {encoder.kind} by token type"):
        here = slice(at, at + len(acts_bnd))
        at += len(acts_bnd)
        for name, meter in meters.items():
            rows = acts_bnd[torch.from_numpy(types[name][here])]
            if len(rows):
                meter.update(rows)
    return {name: meter.compute(int(types[name].any(1).sum())) for name, meter in meters.items()}


class _Meter:
    """Sums over rows, from which all metrics follow."""

    def __init__(self, encoder: FeatureEncoder) -> None:
        self.encoder = encoder
        self.variance = ExplainedVariance()
        self.active = torch.zeros(encoder.width, dtype=torch.float64)
        self.squares = self.cosine = self.ratio = 0.0
        self.directed = 0

    def update(self, x: Float[Tensor, "row width"]) -> None:
        """Encode and decode some rows and add what comes out."""
        z = self.encoder.encode(x)
        x_hat = self.encoder.decode(z)
        self.variance.update(x, x_hat)
        self.active += (z != 0).sum(0).double()
        norm = x.double().norm(dim=-1)
        some = norm > 0
        self.squares += float(norm.square().sum())
        self.cosine += float(torch.cosine_similarity(x, x_hat, dim=-1)[some].double().sum())
        self.ratio += float((x_hat.double().norm(dim=-1)[some] / norm[some]).sum())
        self.directed += int(some.sum())

    def compute(self, images: int) -> SAEMetrics:
        """Return the metrics of all rows seen."""
        density = self.active / self.variance.rows
        nan = float("nan")
        return SAEMetrics(
            explained_variance=self.variance.compute(),
            norm_explained=1 - self.variance.squared_error / self.squares if self.squares > 0 else nan,
            norm_ratio=self.ratio / self.directed if self.directed else nan,
            l0=float(density.sum()),
            cosine=self.cosine / self.directed if self.directed else nan,
            dead=float((density == 0).double().mean()),
            dense=float((density > DENSE).double().mean()),
            rare=float(((density > 0) & (density < RARE)).double().mean()),
            effective_features=effective_size(density.numpy()).entropy,
            rows=self.variance.rows,
            images=images,
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
