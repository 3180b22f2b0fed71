"""What names of features are worth: how much oftener a thing is there where a feature says its name than by chance."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray


def precision_gain(
    says: Float[NDArray[np.float64], "image name"],
    there: Float[NDArray[np.float64], "image name"],
    images: Int[NDArray[np.int64], " chosen"] | None = None,
) -> float:
    """Return the mean over names of their precision beyond the base rate.

    A name that is said of none of the images gains nothing and stays in the mean: to leave it out would flatter the names
    that are said, to subtract its base rate would call silence a mistake.

    Parameters
    ----------
    says
        Whether a feature says its name of an image: 0 or 1.
    there
        Whether what it names is there: 0, 1, or NaN where nobody knows; such images count for no name.
    images
        Which images, each as often as it is named (a bootstrap sample); all by default.

    Returns
    -------
    float
        −1 to 1. NaN where there is no name, or none of whose images anybody knows.

    """
    if images is not None:
        says, there = says[images], there[images]
    known = ~np.isnan(there)
    says, there = says * known, np.where(known, there, 0.0)
    said, asked = says.sum(0), known.sum(0)
    base = np.divide(there.sum(0), asked, out=np.full(len(said), np.nan), where=asked > 0)
    # a silent name is right as often as chance
    precision = np.divide((says * there).sum(0), said, out=base.copy(), where=said > 0)
    gains = (precision - base)[asked > 0]
    return float(gains.mean()) if len(gains) else float("nan")
