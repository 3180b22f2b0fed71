"""A mark burnt into images whose correlation with the label is set, in each split apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from jaxtyping import Bool, Int
from numpy.typing import NDArray

from mechinterp.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Shortcut:
    """A mark, and how strongly it goes with the label; the study says which marks there are.

    Raises
    ------
    ConfigError
        If a correlation is not between -1 and 1.

    """

    mark: Annotated[str, "which of the phantom's marks"]
    train: Annotated[float, "correlation (phi) of mark and label in training and validation images"] = 0.9
    test: Annotated[float, "the same in test images"] = 0.0

    def __post_init__(self) -> None:
        for name in ("train", "test"):
            if not -1 <= getattr(self, name) <= 1:
                raise ConfigError(
                    f"shortcut's correlation in {name} is {getattr(self, name):g}: it lies within -1 and 1"
                )


@dataclass(frozen=True, kw_only=True)
class PlantedShortcut(Shortcut):
    """A mark of the fundus phantom; see :class:`Shortcut`."""

    mark: Annotated[Literal["camera_tag", "ruler_mark"], "what is burnt into the corner"] = "camera_tag"


def assign_mark(
    labels: Bool[NDArray[np.bool_], " image"], correlation: float, random: np.random.Generator
) -> Int[NDArray[np.int64], " image"]:
    """Choose the images that bear the mark, so that its correlation with the label is what was asked for.

    Parameters
    ----------
    labels
        The binary label.
    correlation
        Phi, the correlation of two binary variables.
    random
        Decides which images of a class bear it.

    Returns
    -------
    ndarray
        0 or 1 per image. Numbers of images are rounded, so in a small split phi is off by about one over its size.

    Notes
    -----
    With the mark as frequent as the label (share ``p``), ``P(mark | label) = p + (1 - p) φ`` and
    ``P(mark | no label) = p (1 - φ)``; a negative φ is that of the absent mark.

    """
    labels = np.asarray(labels, dtype=bool)
    share = float(labels.mean())
    strength = abs(correlation)
    mark = np.zeros(len(labels), dtype=np.int64)
    for present, probability in ((True, share + (1 - share) * strength), (False, share * (1 - strength))):
        of_class = np.flatnonzero(labels == present)
        mark[random.permutation(of_class)[: round(probability * len(of_class))]] = 1
    return mark if correlation >= 0 else 1 - mark
