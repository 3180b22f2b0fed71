"""Images as effects take them: prepared, with their patients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from mechinterp.errors import ImagesError, ShapeError
from mechinterp.images.image_set import ImageSet
from mechinterp.models.vision_model import VisionModel

if TYPE_CHECKING:
    from collections.abc import Callable

    from mechinterp.statistics import Interval


@dataclass(frozen=True, eq=False)
class Batch:
    """Prepared images and who they are of.

    Parameters
    ----------
    x
        The model's input.
    groups
        Patient of each image; ``None`` where nobody said.
    units_are_patients
        Whether groups are patients, so that an interval over them can be estimated.

    """

    x: Float[Tensor, "image channel height width"]
    groups: NDArray[Any] | None = None
    units_are_patients: bool = True

    @property
    def patients(self) -> int | None:
        """How many patients there are; ``None`` where nobody said, or the groups are parts of one."""
        if self.groups is None or not self.units_are_patients:
            return None
        return len(set(self.groups.tolist()))

    def interval(
        self, statistic: Callable[[NDArray[np.int64]], float], images: NDArray[np.int64], boot: int, seed: int
    ) -> Interval:
        """Return the interval of a statistic of rows, each of which belongs to an image."""
        from mechinterp.statistics import bootstrap_groups

        if self.groups is None:
            return no_interval()
        return bootstrap_groups(statistic, self.groups[images], boot, seed, units_are_patients=self.units_are_patients)


def no_interval() -> Interval:
    """Return the interval over patients of whom nobody said who they are: none."""
    from mechinterp.statistics import Interval

    return Interval(None, None, 0.95, 0, "not estimable (no patients given)")


def as_batch(
    model: VisionModel, images: ImageSet | Tensor, groups: Sequence[Any] | NDArray[Any] | None = None
) -> Batch:
    """Return images as a batch on the model's device.

    Parameters
    ----------
    model
        Whose input they become.
    images
        A set of images, which knows its patients, or prepared images.
    groups
        Patient of each image, for prepared ones.

    Raises
    ------
    ImagesError
        If there is none.
    ShapeError
        If there are not as many groups as images.

    """
    known = groups
    patients = True
    if isinstance(images, ImageSet):
        x = model.prepare([images[i] for i in range(len(images))])
        known = images.groups if groups is None else groups
        patients = images.units_are_patients
    else:
        x = images
    if len(x) == 0:
        raise ImagesError("there is no image: give at least one")
    if known is not None and len(known) != len(x):
        raise ShapeError(f"{len(known)} groups for {len(x)} images: give one each")
    return Batch(torch.as_tensor(x).to(model.device), None if known is None else np.asarray(known), patients)
