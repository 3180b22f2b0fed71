"""A control task: whether the probe would read anything at all from these activations, meaningful or not."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from probes.folds import Folds
from probes.reading import read_attribute
from probes.scores import ProbeKind, Reading

Values = NDArray[np.float64]


def activation_types(
    x: Float[Values, "image width"], n_types: int | None = None, seed: int = 0
) -> Int[NDArray[np.int64], " image"]:
    """Sort images into types by their activations alone: each belongs to the nearest of some images drawn at random.

    Parameters
    ----------
    x
        Activations; standardised for the distances.
    n_types
        Number of types; the root of the number of images by default.
    seed
        Of the draw.

    """
    scale = x.std(0)
    z = (x - x.mean(0)) / np.where(scale > 1e-12, scale, np.inf)
    n = min(len(x), n_types or max(4, round(np.sqrt(len(x)))))
    centres = z[np.random.default_rng(seed).choice(len(x), n, replace=False)]
    distance = (centres**2).sum(1) - 2 * z @ centres.T
    nearest: NDArray[np.int64] = distance.argmin(1)
    return nearest


def control_attribute(
    y: Float[Values, " image"], types: Int[NDArray[np.int64], " image"], seed: int = 0
) -> Float[Values, " image"]:
    """Give every type a value drawn from the attribute's own; images of one type share it.

    Where all types drew the same value, the first gets another one, so that there is something to read.
    """
    rng = np.random.default_rng(seed)
    labels, codes = np.unique(types, return_inverse=True)
    drawn = rng.choice(y, size=len(labels))
    if np.ptp(drawn) == 0 and len(labels) > 1:
        drawn[0] = rng.choice(y[y != drawn[0]])
    found: Values = drawn[codes.reshape(-1)]
    return found


def read_control_tasks(
    x: Float[Values, "image width"],
    y: Float[Values, " image"],
    folds: Folds,
    kind: ProbeKind,
    *,
    n_tasks: int = 3,
    types: Int[NDArray[np.int64], " image"] | None = None,
    seed: int = 0,
) -> list[Reading]:
    """Read control tasks [1]_ by the same nested cross-validation as the attribute.

    A control task gives every type of input a random label. What a probe scores there, it owes to its own capacity and
    to the width of the site; the attribute's score minus this one is the probe's *selectivity*.

    Parameters
    ----------
    x, y, folds, kind
        As for the attribute.
    n_tasks
        How many; each draws types and labels anew.
    types
        Type of each image (or the cell of each token), where there is a natural one;
        :func:`activation_types` by default.
    seed
        Of the draws.

    References
    ----------
    .. [1] Hewitt, Liang. Designing and interpreting probes with control tasks. EMNLP 2019.

    """
    found = []
    for task in range(n_tasks):
        of_image = activation_types(x, seed=seed + task) if types is None else types
        target = _every_fold_varies(control_attribute(y, of_image, seed + task), folds, kind)
        if target is not None:
            found.append(read_attribute(x, target, folds, kind, "control task"))
    return found


def _every_fold_varies(target: Values, folds: Folds, kind: ProbeKind) -> Values | None:
    """Return a control task unless a class of it is missing somewhere: then it has no score."""
    if kind == "continuous":
        return target
    enough = all(len(np.unique(target[folds.split(k)[0]])) > 1 for k in range(folds.n))
    return target if enough else None
