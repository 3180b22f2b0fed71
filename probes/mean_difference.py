"""One direction per attribute from the attribute itself: the difference of two means, what labels would have given."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from mechinterp.attributes.table import AttributeTable
from mechinterp.feature_encoder import Directions
from probes.pooling import TokenStore, pooled_activations


def mean_difference_directions(
    store: TokenStore,
    site: str,
    attributes: AttributeTable,
    *,
    images: Sequence[int] | NDArray[np.int64],
) -> Directions | None:
    """Return, for every attribute with an order, the mean activation where it is high less that where it is low.

    High and low are above, and not above, the median of the images that have a value, which for a binary attribute are
    its two classes. Each image counts by the mean over its tokens.

    Parameters
    ----------
    store, site
        Where the activations are, and which.
    attributes
        Of the store's images.
    images
        Images that the directions come from: those for discovery.

    Returns
    -------
    Directions
        Unit directions in the order of the attributes that differ; ``None`` where none does. Their `mean` is that of
        the same images.

    References
    ----------
    Difference-in-means probes: Marks, Tegmark. The geometry of truth. 2024, arXiv 2310.06824.

    """
    chosen = np.asarray(images, dtype=np.int64)
    acts = pooled_activations(store, site, images=chosen).astype(np.float64)
    found = []
    for attribute, values in zip(attributes, attributes.values[chosen].T, strict=True):
        if attribute.kind == "categorical" and len(attributes.categories.get(attribute.name, ())) != 2:
            continue
        known = ~np.isnan(values)
        if not known.any():
            continue
        middle = 0.5 if set(values[known]) <= {0.0, 1.0} else np.median(values[known])
        high, low = known & (values > middle), known & (values <= middle)
        if not high.any() or not low.any():
            continue
        direction = acts[high].mean(0) - acts[low].mean(0)
        length = np.linalg.norm(direction)
        if length > 0:
            found.append(direction / length)
    if not found:
        return None
    return Directions(
        site, torch.from_numpy(np.stack(found)).float(), torch.from_numpy(acts.mean(0)).float(), "mean difference"
    )
