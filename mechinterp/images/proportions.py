"""Says what fitting images to a model's input does to them: how much of the input stays black, what is cut off."""

from __future__ import annotations

import math

import numpy as np

from mechinterp.images.fitting import Fitted, fitted
from mechinterp.images.image_set import ImageSet
from mechinterp.images.preparation import Preparation
from mechinterp.models.vision_model import InputContract

_LOOKED_AT = 8  # images, evenly over the set: shapes are only known once pixels are read
_SLIGHT = 0.02  # of the input or the image: less is rounding


def note_of_proportions(images: ImageSet, contract: InputContract, preparation: Preparation) -> str | None:
    """Return a sentence where images are not of the input's proportions; ``None`` where nothing is lost or added.

    A model that was trained on images stretched to its input answers otherwise when it is shown them with black borders:
    who trained it must know what is done here.

    Parameters
    ----------
    images
        Of which at most eight are looked at.
    contract
        What the model wants to be fed.
    preparation
        How images become its input.

    """
    black, cut, squashed = 0.0, 0.0, 1.0
    for i in np.unique(np.linspace(0, len(images) - 1, min(_LOOKED_AT, len(images))).round().astype(int)):
        image = images[int(i)]
        shape = image.pixels.shape[: image.axes]
        placed = fitted(preparation.fit, preparation.margin, shape, image.spacing_mm, contract, f"image '{image.id}'")
        black = max(black, 1 - math.prod(placed.size) / math.prod(contract.size))
        cut = max(cut, 1 - math.prod(b - a for a, b in zip(placed.start, placed.stop, strict=True)) / math.prod(shape))
        squashed = max(squashed, _squashed(placed, image.spacing_mm or (1.0,) * len(shape)))
    size = " × ".join(str(n) for n in contract.size)
    said = [
        f"up to {black:.0%} of the input stay black" if black > _SLIGHT else "",
        f"up to {cut:.0%} of an image are cut off" if cut > _SLIGHT else "",
        f"proportions change by a factor of up to {squashed:.2g}" if squashed > 1 + _SLIGHT else "",
    ]
    if not any(said):
        return None
    return (
        f"images are fitted to the input of {size} by '{preparation.fit}': {', '.join(s for s in said if s)}; was the model "
        "trained so? --fit pad keeps proportions (in mm where the spacing is known), crop cuts, stretch squeezes, model does "
        "as the model's own processor"
    )


def _squashed(placed: Fitted, spacing_mm: tuple[float, ...]) -> float:
    """Return how much longer one axis is shown than another of the same length in the patient."""
    shown = [n / ((b - a) * mm) for n, a, b, mm in zip(placed.size, placed.start, placed.stop, spacing_mm, strict=True)]
    return max(shown) / min(shown)
