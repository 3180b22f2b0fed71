"""What a decomposition has to beat: the site's own neurons, principal components, random directions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from mechinterp.feature_encoder import Directions, FeatureEncoder, Neurons
from probes.pooling import TokenStore


def baseline_encoders(
    store: TokenStore,
    site: str,
    n_directions: int,
    *,
    images: Sequence[int] | NDArray[np.int64] | None = None,
    seed: int = 0,
) -> dict[str, FeatureEncoder]:
    """Return the encoders a set of features is compared with.

    Parameters
    ----------
    store, site
        Where the activations are, and which.
    n_directions
        Number of random directions: as many as there are features.
    images
        Images that mean and principal components come from: those for discovery.
    seed
        Of the random directions.

    Returns
    -------
    dict
        ``neurons``; ``pca``, as many components as the site is wide; ``random``, unit directions uniform on the sphere.

    """
    chosen = np.arange(len(store.images)) if images is None else np.asarray(images, dtype=np.int64)
    count, total, products = 0, torch.zeros(0), torch.zeros(0)
    for start in range(0, len(chosen), 64):
        rows = store.read(site, chosen[start : start + 64]).flatten(0, 1).double()
        if not count:
            total, products = torch.zeros(rows.shape[1]).double(), torch.zeros(rows.shape[1], rows.shape[1]).double()
        count += len(rows)
        total += rows.sum(0)
        products += rows.T @ rows
    mean = total / count
    components = torch.linalg.eigh(products / count - torch.outer(mean, mean))[1].T.flip(0)
    generator = torch.Generator().manual_seed(seed)
    random = torch.randn(n_directions, len(mean), generator=generator, dtype=torch.float64)
    random /= random.norm(dim=1, keepdim=True)
    return {
        "neurons": Neurons(site, len(mean)),
        "pca": Directions(site, components.float(), mean.float(), "pca"),
        "random": Directions(site, random.float(), mean.float(), "random"),
    }
