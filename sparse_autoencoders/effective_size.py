"""How many features of a dictionary are really used: as many as would carry the same weight if all carried alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray


@dataclass(frozen=True)
class EffectiveSize:
    """Effective sizes of a dictionary.

    Parameters
    ----------
    entropy
        Exponential of the entropy of the features' shares (Hill number of order 1).
    participation
        One over the sum of their squares (order 2), which counts dominant features more.

    """

    entropy: float
    participation: float


def effective_size(weight: Float[NDArray[Any], " feature"]) -> EffectiveSize:
    r"""Return the number of equally used features that are as evenly spread as these.

    .. math:: \exp\Big(-\sum_j p_j \log p_j\Big) \quad\text{and}\quad 1 \Big/ \sum_j p_j^2, \qquad p_j = w_j / \sum_i w_i

    Parameters
    ----------
    weight
        How much each feature is used, not negative: its density, or the energy it carries.

    Returns
    -------
    EffectiveSize
        Both n where n features are used alike and the others never; both 0 where none is.

    References
    ----------
    Hill. Diversity and evenness: a unifying notation and its consequences. Ecology 54, 1973.

    """
    used = np.asarray(weight, dtype=np.float64)
    used = used[used > 0]
    if not len(used):
        return EffectiveSize(0.0, 0.0)
    p = used / used.sum()
    return EffectiveSize(float(np.exp(-(p * np.log(p)).sum())), float(1 / np.square(p).sum()))
