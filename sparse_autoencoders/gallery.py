"""Examples to look at for every feature: where it is strongest, where it matters most, and where it is merely active."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from mechinterp.errors import ConfigError, ImagesError, ShapeError
from mechinterp.progress import SILENT, Progress
from sparse_autoencoders.autoencoder import require_same_source
from sparse_autoencoders.metrics import image_blocks

if TYPE_CHECKING:
    from mechinterp.feature_encoder import FeatureEncoder
    from mechinterp.images.image_set import ImageSet
    from mechinterp.images.preparation import Preparation
    from mechinterp.models.vision_model import VisionModel
    from mechinterp.objectives import Objective
    from mechinterp.store import ActivationStore

Gradients = Callable[[NDArray[np.int64]], Float[Tensor, "image token d_in"]]
DRAWS = 64


@dataclass(frozen=True, eq=False)
class Examples:
    """Some images for each feature.

    Parameters
    ----------
    images
        Positions in the store; -1 where a feature has fewer.
    tokens
        In each image, the stored token at which the feature is strongest (or most relevant).
    values
        What they were chosen by: the largest code of the image, or the relevance summed over its tokens.
    quantile
        Share of the drawn active images in which the feature is weaker; 1 throughout where the strongest were chosen.

    """

    images: Int[NDArray[np.int64], "feature example"]
    tokens: Int[NDArray[np.int64], "feature example"]
    values: Float[NDArray[np.float32], "feature example"]
    quantile: Float[NDArray[np.float64], "feature example"]

    def of(self, feature: int) -> list[tuple[int, int, float]]:
        """Return (image, token, value) of one feature's examples."""
        rows = zip(self.images[feature], self.tokens[feature], self.values[feature], strict=True)
        return [(int(i), int(t), float(v)) for i, t, v in rows if i >= 0]


@dataclass(frozen=True, eq=False)
class Gallery:
    """Examples of every feature of an encoder.

    Parameters
    ----------
    site, kind
        Of the encoder.
    activation
        Images with the largest code, strongest first.
    relevance
        Images in which the feature drives the metric up most, strongest first; ``None`` where no gradients were given.
    random
        Drawn at random among *all* images in which it is active, as many from each quantile of its strength, weakest first: what
        the strongest images alone hide.
    active_images
        Per feature, the number of images in which it is active.

    """

    site: str
    kind: str
    activation: Examples
    relevance: Examples | None
    random: Examples
    active_images: Int[NDArray[np.int64], " feature"]

    def maps(
        self, encoder: FeatureEncoder, store: ActivationStore, feature: int, images: Sequence[int] | NDArray[np.int64]
    ) -> Float[NDArray[np.float32], "image token"]:
        """Return one feature's codes at every stored token of some images; only those are read."""
        with torch.no_grad():
            found: NDArray[np.float32] = encoder.encode(store.read(self.site, images))[..., feature].numpy()
        return found


@torch.no_grad()
def choose_examples(
    encoder: FeatureEncoder,
    store: ActivationStore,
    images: Sequence[int] | NDArray[np.int64] | None = None,
    *,
    top: int = 9,
    per_quantile: int = 2,
    quantiles: int = 4,
    gradients: Gradients | None = None,
    seed: int = 0,
    allow_mismatch: bool = False,
    progress: Progress = SILENT,
) -> Gallery:
    """Choose examples of every feature in one pass over the activations, in memory that does not grow with the images.

    Parameters
    ----------
    encoder
        SAE or any other.
    store
        Activations of its site.
    images
        Positions of the images to choose from; all by default.
    top
        Strongest (and most relevant) images of a feature.
    per_quantile, quantiles
        Random images of a feature from each of so many equal parts of its active images, by strength.
    gradients
        Takes positions of images and returns the gradient of a metric at the site, see :func:`metric_gradients`. Relevance of a
        feature at a token is its code times the gradient along its direction [1]_.
    seed
        Of the random images; which ones are drawn does not depend on how the pass is cut into blocks.
    allow_mismatch
        Read activations of another model or preparation too.
    progress
        Sees one step per block of images.

    Raises
    ------
    HashMismatchError, ShapeError, SiteError, ImagesError
        If encoder, activations and gradients do not belong together, or there is no image.
    ConfigError
        If a number of examples is below 1, or more random ones are asked for than are drawn (64).

    References
    ----------
    .. [1] Achtibat et al. From attribution maps to human-understandable explanations through concept relevance propagation.
       Nat. Mach. Intell. 5, 2023: relevance maximisation.

    """
    require_same_source(encoder, store, allow_mismatch=allow_mismatch)
    chosen = np.arange(len(store.images)) if images is None else np.asarray(images, dtype=np.int64)
    if len(chosen) == 0:
        raise ImagesError("no image to choose examples from: give at least one position")
    if min(top, per_quantile, quantiles) < 1 or per_quantile * quantiles > DRAWS:
        raise ConfigError(
            f"{top} strongest and {quantiles} × {per_quantile} random examples asked for: at least 1 of each, and at most "
            f"{DRAWS} random ones"
        )
    width = encoder.width
    strongest, relevant, drawn = _Best(top, width), _Best(top, width), _Best(DRAWS, width)
    active = torch.zeros(width, dtype=torch.long)
    at = 0
    for acts_bnd in image_blocks(store, encoder, chosen, progress, "choosing examples"):
        here = chosen[at : at + len(acts_bnd)]
        at += len(acts_bnd)
        z = encoder.encode(acts_bnd)
        fires = (z != 0).any(1)
        active += fires.sum(0)
        peak = z.max(1)
        strongest.offer(torch.where(fires, peak.values, -torch.inf), here, peak.indices, peak.values)
        keys = torch.from_numpy(np.stack([np.random.default_rng([seed, int(i)]).random(width) for i in here]))
        drawn.offer(torch.where(fires, keys.float(), -torch.inf), here, peak.indices, peak.values)
        if gradients is not None:
            relevance = z * (_checked(gradients(here), acts_bnd) @ encoder.directions.T)
            total, most = relevance.sum(1), relevance.argmax(1)
            relevant.offer(torch.where(fires & (total > 0), total, -torch.inf), here, most, total)
    return Gallery(
        site=encoder.site,
        kind=encoder.kind,
        activation=strongest.examples(),
        relevance=None if gradients is None else relevant.examples(),
        random=drawn.spread(quantiles, per_quantile),
        active_images=active.numpy(),
    )


def metric_gradients(
    model: VisionModel,
    images: ImageSet,
    site: str,
    metric: Objective,
    preparation: Preparation | None = None,
) -> Gradients:
    """Return what gives a metric's gradient at a site for images of a set.

    Parameters
    ----------
    model
        The model.
    images
        In the order of the store.
    site
        Name of the site.
    metric
        One number per image, see :mod:`mechinterp.objectives`.
    preparation
        How the images are prepared for the model; the model's own by default.

    Returns
    -------
    callable
        Positions of images → (image, token, d_in); one forward and one backward pass over those images.

    """
    from mechinterp.interventions import intervene

    resolved = metric.resolve(model)

    def gradients(chosen: NDArray[np.int64]) -> Float[Tensor, "image token d_in"]:
        leaves: list[Tensor] = []

        def keep(acts_bnd: Tensor) -> Tensor:
            leaves.append(acts_bnd.detach().requires_grad_(True))
            return leaves[-1]

        some = [images[int(i)] for i in chosen]
        x = model.prepare(some, preparation)
        with torch.enable_grad(), intervene(model, {site: keep}):
            (gradient,) = torch.autograd.grad(resolved(model.logits(x)).sum(), leaves[-1])
        return gradient

    return gradients


class _Best:
    """For every feature the images with the highest keys so far."""

    def __init__(self, kept: int, width: int) -> None:
        self.keys = torch.full((kept, width), -torch.inf)
        self.images = torch.full((kept, width), -1, dtype=torch.long)
        self.tokens = torch.zeros(kept, width, dtype=torch.long)
        self.values = torch.zeros(kept, width)

    def offer(self, keys: Tensor, images: NDArray[np.int64], tokens: Tensor, values: Tensor) -> None:
        """Take the best of what is kept and a block of (image, feature)."""
        positions = torch.from_numpy(images)[:, None].expand_as(tokens)
        all_keys = torch.cat([self.keys, keys])
        # where keys are equal the earlier image stays, whatever the blocks
        order = all_keys.sort(dim=0, descending=True, stable=True).indices[: len(self.keys)]
        self.keys = all_keys.gather(0, order)
        self.images, self.tokens, self.values = (
            torch.cat([old, new]).gather(0, order)
            for old, new in ((self.images, positions), (self.tokens, tokens), (self.values, values))
        )

    def examples(self) -> Examples:
        """Return what is kept, best first."""
        some = self.keys > -torch.inf
        columns = (torch.where(some, self.images, -1), torch.where(some, self.tokens, 0), self.values * some)
        images, tokens, values = (column.T.contiguous().numpy() for column in columns)
        return Examples(images, tokens, values, np.where(some.T.numpy(), 1.0, np.nan))

    def spread(self, quantiles: int, each: int) -> Examples:
        """Return, in order of strength, the first drawn from each quantile of the drawn images' values."""
        kept, width = self.keys.shape
        some = self.keys > -torch.inf
        count = some.sum(0)
        order = torch.where(some, self.values, torch.inf).argsort(dim=0, stable=True)
        rank = torch.empty_like(order).scatter_(0, order, torch.arange(kept)[:, None].expand(-1, width))
        quantile = torch.where(count > 1, rank / (count - 1).clamp_min(1), 1.0)
        part = (rank * quantiles / count.clamp_min(1)).long().clamp_max(quantiles - 1)
        taken = torch.zeros_like(some)
        for q in range(quantiles):
            inside = some & (part == q)
            taken |= inside & (inside.cumsum(0) <= each)
        first = torch.where(taken, rank, kept).argsort(dim=0, stable=True)[: quantiles * each]
        there = taken.gather(0, first)

        def picked(values: Tensor, missing: Any) -> NDArray[Any]:
            found: NDArray[Any] = torch.where(there, values.gather(0, first), missing).T.contiguous().numpy()
            return found

        return Examples(
            picked(self.images, -1), picked(self.tokens, 0), picked(self.values, 0.0),
            picked(quantile.double(), float("nan")),
        )  # fmt: skip


def _checked(gradient: Tensor, acts_bnd: Tensor) -> Tensor:
    if gradient.shape != acts_bnd.shape:
        raise ShapeError(
            f"gradients of shape {tuple(gradient.shape)} for activations of shape {tuple(acts_bnd.shape)}: give those of the "
            "encoder's site, image by image"
        )
    return gradient.to(acts_bnd)
