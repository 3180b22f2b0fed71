"""What each feature does on a set of images: how often, how strongly, and where; for any encoder, in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray

from mechinterp.errors import ConfigError, ImagesError
from mechinterp.progress import SILENT, Progress
from sparse_autoencoders.autoencoder import require_same_source
from sparse_autoencoders.metrics import image_blocks

if TYPE_CHECKING:
    from mechinterp.feature_encoder import FeatureEncoder
    from mechinterp.store import ActivationStore

Pooling = Literal["maximum", "mean", "active"]


@dataclass(frozen=True, eq=False)
class FeatureSummary:
    """Every feature of an encoder over some images of a store.

    Parameters
    ----------
    site, kind
        Of the encoder.
    images
        Positions of the images in the store; the order of the axes ``image`` below.
    maximum, mean, active
        Per image and feature: largest code, mean code over all tokens, share of the tokens with a code that is not zero.
    density
        Per feature, share of all tokens on which it is active.
    histogram
        Per feature, how many active codes fall into each of the bins.
    edges
        Per feature, the edges of its bins: equal steps from 0 (or its least code) to its largest.
    top_images
        Per feature, the images with the largest maximum, strongest first: positions in the store; -1 where fewer are active.
    top_values
        Those maxima.
    top_maps
        The codes of all tokens of those images, for overlays.

    """

    site: str
    kind: str
    images: Int[NDArray[np.int64], " image"]
    maximum: Float[NDArray[np.float32], "image feature"]
    mean: Float[NDArray[np.float32], "image feature"]
    active: Float[NDArray[np.float32], "image feature"]
    density: Float[NDArray[np.float64], " feature"]
    histogram: Int[NDArray[np.int64], "feature bin"]
    edges: Float[NDArray[np.float32], "feature edge"]
    top_images: Int[NDArray[np.int64], "feature top"]
    top_values: Float[NDArray[np.float32], "feature top"]
    top_maps: Float[NDArray[np.float32], "feature top token"]

    @property
    def width(self) -> int:
        """Number of features."""
        return int(self.density.shape[0])

    @property
    def living(self) -> NDArray[np.int64]:
        """Features that are active on at least one token."""
        return np.flatnonzero(self.density > 0)

    def pooled(self, how: Pooling) -> Float[NDArray[np.float32], "image feature"]:
        """Return the image-level value of every feature.

        Raises
        ------
        ConfigError
            If `how` is none of ``maximum``, ``mean``, ``active``.

        """
        if how not in {"maximum", "mean", "active"}:
            raise ConfigError(f"no pooling '{how}': take maximum, mean or active")
        pooled: NDArray[np.float32] = getattr(self, how)
        return pooled


@torch.no_grad()
def summarise_features(
    encoder: FeatureEncoder,
    store: ActivationStore,
    images: Sequence[int] | NDArray[np.int64] | None = None,
    *,
    top: int = 9,
    bins: int = 30,
    allow_mismatch: bool = False,
    progress: Progress = SILENT,
) -> FeatureSummary:
    """Summarise all features of an encoder over a store.

    Two passes over the activations: the first for the values per image, the second, knowing each feature's range and its
    strongest images, for histograms and maps.

    Parameters
    ----------
    encoder
        SAE or any other.
    store
        Activations of its site.
    images
        Positions of the images; all by default.
    top
        Strongest images to keep for each feature.
    bins
        Bins of a histogram.
    allow_mismatch
        Read activations of another model or preparation too.
    progress
        Sees one step per block of images and pass.

    Raises
    ------
    HashMismatchError, ShapeError, SiteError, ImagesError
        If encoder and activations do not belong together, or there is no image.

    """
    require_same_source(encoder, store, allow_mismatch=allow_mismatch)
    chosen = np.arange(len(store.images)) if images is None else np.asarray(images, dtype=np.int64)
    if len(chosen) == 0:
        raise ImagesError("no image to summarise features over: give at least one position")
    n, width, tokens = len(chosen), encoder.width, store.tokens(encoder.site)
    maximum, mean = torch.empty(n, width), torch.empty(n, width)
    fired = torch.empty(n, width, dtype=torch.long)
    low = torch.zeros(width)
    at = 0
    for acts_bnd in image_blocks(store, encoder, chosen, progress, "reading features"):
        z = encoder.encode(acts_bnd)
        here = slice(at, at + len(z))
        maximum[here], mean[here], fired[here] = z.amax(1), z.mean(1), (z != 0).sum(1)
        low = torch.minimum(low, z.amin((0, 1)))
        at += len(z)

    kept = min(top, n)
    order = torch.where(fired > 0, maximum, -torch.inf).topk(kept, dim=0).indices.T.contiguous()
    alive = fired.gather(0, order.T).T > 0
    values = maximum.gather(0, order.T).T * alive
    maps = torch.zeros(width, kept, tokens)
    wanted: list[list[tuple[int, int]]] = [[] for _ in range(n)]
    for feature, rank in alive.nonzero().tolist():
        wanted[int(order[feature, rank])].append((feature, rank))
    counts = torch.zeros(width * bins, dtype=torch.long)
    span = (maximum.amax(0) - low).clamp_min(torch.finfo(torch.float32).tiny)
    offsets = torch.arange(width) * bins
    at = 0
    for acts_bnd in image_blocks(store, encoder, chosen, progress, "histograms and strongest images"):
        z = encoder.encode(acts_bnd)
        image, token, feature = z.nonzero(as_tuple=True)
        position = (z[image, token, feature] - low[feature]) / span[feature] * bins
        counts += torch.bincount(offsets[feature] + position.long().clamp_(0, bins - 1), minlength=width * bins)
        for local in range(len(z)):
            if wanted[at + local]:
                features, ranks = (torch.tensor(c) for c in zip(*wanted[at + local], strict=True))
                maps[features, ranks] = z[local][:, features].T
        at += len(z)
    fractions = torch.linspace(0, 1, bins + 1)
    return FeatureSummary(
        site=encoder.site,
        kind=encoder.kind,
        images=chosen,
        maximum=maximum.numpy(),
        mean=mean.numpy(),
        active=(fired.float() / tokens).numpy(),
        density=(fired.sum(0).double() / (n * tokens)).numpy(),
        histogram=counts.reshape(width, bins).numpy(),
        edges=(low[:, None] + span[:, None] * fractions).numpy(),
        top_images=np.where(alive.numpy(), chosen[order.numpy()], -1),
        top_values=values.numpy(),
        top_maps=maps.numpy(),
    )
