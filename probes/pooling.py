"""One value per image and feature from the tokens of a store: mean, maximum and active fraction in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from mechinterp.errors import ConfigError
from mechinterp.feature_encoder import FeatureEncoder
from mechinterp.progress import SILENT, Progress
from mechinterp.store.reader import ActivationStore

Pooling = Literal["mean", "max", "active"]
POOLINGS: tuple[Pooling, ...] = ("mean", "max", "active")

_NUMBERS = 1 << 25
"""Codes held at once (float32)."""


class TokenStore(Protocol):
    """What of an activation store is used here."""

    @property
    def images(self) -> Any:
        """A data frame of the images: id, label, group, split."""
        ...

    def read(self, site: str, images: Sequence[int] | NDArray[np.int64] | None = None) -> Tensor:
        """Return image × token × width."""
        ...


@dataclass(frozen=True)
class PooledFeatures:
    """Image-level values of features.

    Parameters
    ----------
    mean, max
        Over the tokens of each image.
    active
        Share of the image's tokens on which the feature is above zero.

    """

    mean: Float[NDArray[np.float32], "image feature"]
    max: Float[NDArray[np.float32], "image feature"]
    active: Float[NDArray[np.float32], "image feature"]

    def take(self, pooling: Pooling) -> Float[NDArray[np.float32], "image feature"]:
        """Return the values of one pooling.

        Raises
        ------
        ConfigError
            If it is none of ``mean``, ``max``, ``active``.

        """
        if pooling not in POOLINGS:
            raise ConfigError(f"pooling is '{pooling}': choose one of {', '.join(POOLINGS)}")
        values: NDArray[np.float32] = getattr(self, pooling)
        return values


def pooled_features(
    encoder: FeatureEncoder,
    store: TokenStore,
    *,
    images: Sequence[int] | NDArray[np.int64] | None = None,
    progress: Progress = SILENT,
) -> PooledFeatures:
    """Encode every image's tokens and pool the codes; memory does not grow with the number of tokens.

    Parameters
    ----------
    encoder
        SAE, neurons, PCA or directions of the site to read.
    store
        Where its activations are.
    images
        Positions of the images, in the order wanted; all by default.
    progress
        Where progress goes.

    Returns
    -------
    PooledFeatures
        One row per image.

    """
    chosen = np.arange(len(store.images)) if images is None else np.asarray(images, dtype=np.int64)
    out = np.zeros((3, len(chosen), encoder.width), dtype=np.float32)
    with torch.no_grad():
        for block in progress.track(_blocks(store, encoder.site, chosen, encoder.width), "pooling features"):
            codes = encoder.encode(store.read(encoder.site, chosen[block]))
            pooled = torch.stack([codes.mean(1), codes.amax(1), (codes > 0).float().mean(1)])
            out[:, block] = pooled.float().cpu().numpy()
    return PooledFeatures(*out)


def pooled_activations(
    store: TokenStore,
    site: str,
    *,
    images: Sequence[int] | NDArray[np.int64] | None = None,
    pooling: Pooling = "mean",
) -> Float[NDArray[np.float32], "image width"]:
    """Pool a site's own activations over the tokens of each image."""
    chosen = np.arange(len(store.images)) if images is None else np.asarray(images, dtype=np.int64)
    parts = []
    for block in _blocks(store, site, chosen, 1):
        acts = store.read(site, chosen[block])
        match pooling:
            case "mean":
                parts.append(acts.mean(1))
            case "max":
                parts.append(acts.amax(1))
            case "active":
                parts.append((acts > 0).float().mean(1))
            case _:
                raise ConfigError(f"pooling is '{pooling}': choose one of {', '.join(POOLINGS)}")
    return torch.cat(parts).float().cpu().numpy()


def patients_of(store: TokenStore) -> tuple[NDArray[Any] | None, bool]:
    """Return the group of each of a store's images, if all have one, and whether the groups are patients."""
    groups = store.images["group"].to_numpy(dtype=object)
    manifest = getattr(store, "manifest", None)
    are_patients = bool(manifest.images.get("units_are_patients", True)) if manifest is not None else True
    known = all(isinstance(g, str) or (g is not None and g == g) for g in groups)
    return (groups if known else None), are_patients


def _shape(store: TokenStore, site: str, chosen: NDArray[np.int64]) -> tuple[int, int]:
    """Return tokens and width of a site: from the manifest where there is one, so that nothing is read twice."""
    if isinstance(store, ActivationStore):
        return store.tokens(site), store.width(site)
    first = store.read(site, chosen[:1])
    return first.shape[1], first.shape[2]


def _blocks(store: TokenStore, site: str, chosen: NDArray[np.int64], width: int) -> list[slice]:
    if not len(chosen):
        raise ConfigError("no image to read: choose at least one")
    tokens, own_width = _shape(store, site, chosen)
    step = max(1, _NUMBERS // (tokens * max(width, own_width)))
    return [slice(start, start + step) for start in range(0, len(chosen), step)]
