r"""How well each receptive field accounts for a voxel's responses: the evidence of ridge regression seen through it.

With weights drawn from :math:`N(0, s^2 / \alpha)` and noise from :math:`N(0, s^2)`, the responses of :math:`n` stimuli have, up to a
constant, the log evidence

.. math::
    -\tfrac12 \log\lvert I + X X^T / \alpha \rvert - \tfrac{n - 1}{2} \log y^T (I + X X^T / \alpha)^{-1} y ,

the noise's scale being integrated out [1]_. It uses every stimulus at once, where cross-validation compares fields by the few that it holds
back; and it weighs all fields that account for the responses, where the best one alone is decided by noise.

References
----------
.. [1] MacKay. Bayesian interpolation. Neural Computation 1992.

"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from probes.receptive_fields import ReceptiveFields

Values = NDArray[np.float64]

_LEAST = 1e-12
"""Share of the responses' variance below which a fit counts as perfect: the evidence stays finite."""


def log_evidence(
    x: Float[Values, "image channel"], y: Float[Values, "image voxel"], penalties: Float[Values, " penalty"]
) -> Float[Values, "penalty voxel"]:
    """Return the log evidence of every voxel's responses under every penalty; 0 for a voxel that never varies.

    Parameters
    ----------
    x, y
        Channels, which are centred here and not scaled, and responses, which are centred too.
    penalties
        On the squared weights, relative to the noise's variance.

    """
    z, centred = x - x.mean(0), y - y.mean(0)
    values, vectors = np.linalg.eigh(z.T @ z)
    values = np.maximum(values, 0)[None] + penalties[:, None]
    along = np.square(vectors.T @ (z.T @ centred))
    whole = np.square(centred).sum(0)
    left = np.maximum(whole - (1 / values) @ along, _LEAST * whole)
    determinant = np.log(values / penalties[:, None]).sum(1)
    varies = whole > 0
    found: Values = -0.5 * determinant[:, None] - 0.5 * (len(y) - 1) * np.log(np.where(varies, left, 1.0))
    return np.where(varies, found, 0.0)


def probable_fields(
    candidates: ReceptiveFields, evidence: Float[Values, "field voxel"]
) -> tuple[ReceptiveFields, Float[Values, " voxel"]]:
    """Return the mean over candidates, each as probable as its evidence says, and how far from it the field may lie.

    Parameters
    ----------
    candidates
        All held equally probable beforehand.
    evidence
        Logarithm, of every candidate for every voxel.

    Returns
    -------
    fields
        Mean middle, and geometric mean of the sizes.
    spread_deg
        Root mean square distance of the middles from the mean [°].

    """
    share = np.exp(evidence - evidence.max(0))
    share /= share.sum(0)
    up, right = candidates.up_deg @ share, candidates.right_deg @ share
    size = np.exp(np.log(candidates.size_deg) @ share)
    squares = (
        (np.square(candidates.up_deg) + np.square(candidates.right_deg)) @ share - np.square(up) - np.square(right)
    )
    return ReceptiveFields(up, right, size), np.sqrt(np.maximum(squares, 0))
