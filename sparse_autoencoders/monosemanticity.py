"""Monosemanticity: how alike the images are that a feature is active on, by an embedding that does not know the feature."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from mechinterp.errors import ShapeError


def monosemanticity(
    values: Float[NDArray[Any], "image feature"],
    embeddings: Float[NDArray[Any], "image width"],
    *,
    centre: bool = False,
) -> Float[NDArray[np.float64], " feature"]:
    r"""Return the monosemanticity score of every feature.

    .. math::
        \frac{\sum_{n \ne m} a_n a_m \cos(e_n, e_m)}{\sum_{n \ne m} a_n a_m}
        = \frac{\lVert \sum_n a_n \hat e_n \rVert^2 - \sum_n a_n^2}{(\sum_n a_n)^2 - \sum_n a_n^2}

    with :math:`a` the feature's values scaled to 0 … 1 and :math:`\hat e` embeddings of unit length: the mean similarity of two
    images, weighted by how strongly both activate the feature. The right-hand side needs no pair of images.

    Parameters
    ----------
    values
        One value of each feature for each image, as :attr:`FeatureSummary.maximum`.
    embeddings
        Of the same images, from something else than the features: another model, a later site, or known attributes.
    centre
        Take the mean embedding off first, so that chance is about 0; without, chance is the mean similarity of all images.

    Returns
    -------
    NDArray
        −1 to 1; NaN for a feature that does not vary over the images or is active on one only.

    Raises
    ------
    ShapeError
        If there is not one embedding for each image.

    References
    ----------
    Pach, Karthik, Bouniot, Belongie, Akata. Sparse autoencoders learn monosemantic features in vision-language models.
    arXiv 2504.02821, 2025 (equation 5).

    """
    a, e = _unit_interval(values), np.asarray(embeddings, dtype=np.float64)
    if len(a) != len(e):
        raise ShapeError(f"values of {len(a)} images, embeddings of {len(e)}: give one for each image")
    if centre:
        e = e - e.mean(0)
    norms = np.linalg.norm(e, axis=1, keepdims=True)
    e = np.divide(e, norms, out=np.zeros_like(e), where=norms > 0)
    # cos(e_n, e_n) is 1, or 0 for an embedding of zero
    own = (np.square(a) * (norms > 0)).sum(0)
    pairs = np.square(a.sum(0)) - np.square(a).sum(0)
    together = np.square(a.T @ e).sum(1) - own
    score: NDArray[np.float64] = np.divide(together, pairs, out=np.full(len(pairs), np.nan), where=pairs > 1e-12)
    return score


def chance_monosemanticity(embeddings: Float[NDArray[Any], "image width"], *, centre: bool = False) -> float:
    """Return the score of a feature that is as active on every image: the mean similarity of two images."""
    e = np.asarray(embeddings, dtype=np.float64)
    marked = np.concatenate([np.ones((len(e), 1)), np.zeros((1, 1))])
    if centre:
        e = e - e.mean(0)
    # the image added takes the values from 1 down to 0, so that they can be scaled; it has weight 0 itself
    return float(monosemanticity(marked, np.concatenate([e, np.zeros((1, e.shape[1]))]))[0])


def _unit_interval(values: NDArray[Any]) -> NDArray[np.float64]:
    v = np.asarray(values, dtype=np.float64)
    least, span = v.min(0), np.ptp(v, axis=0)
    scaled: NDArray[np.float64] = np.divide(v - least, span, out=np.zeros_like(v), where=span > 0)
    return scaled
