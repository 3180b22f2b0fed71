"""Images as maps need them: prepared for a model, with the way back to their own pixels and to millimetres."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from mechinterp.errors import ImagesError, ShapeError
from mechinterp.images.image_set import ImageSet
from mechinterp.images.preparation import Preparation
from mechinterp.token_grid import Placement

if TYPE_CHECKING:
    from mechinterp.models.vision_model import VisionModel


@dataclass(frozen=True, eq=False)
class ShownImages:
    """Prepared images, and where every input pixel came from.

    Parameters
    ----------
    x
        The model's input.
    numbers
        Number of each image among those that a metric knows.
    placements
        From the input to each image.
    sizes
        (height, width) of each image in its own pixels.
    spacing_mm
        Millimetres per image pixel, (row, column); ``None`` where unknown: lengths are then in image pixels.
    ids, groups
        Name and patient of each image.
    units_are_patients
        Whether groups are patients.
    images
        Where they came from, with their masks; ``None`` for prepared images without an origin.

    """

    x: Float[Tensor, "image channel height width"]
    numbers: Int[Tensor, " image"]
    placements: tuple[Placement, ...]
    sizes: tuple[tuple[int, int], ...]
    spacing_mm: tuple[tuple[float, float] | None, ...]
    ids: tuple[str, ...]
    groups: tuple[Any, ...] | None = None
    units_are_patients: bool = True
    images: ImageSet | None = None

    def __len__(self) -> int:
        return len(self.x)

    @property
    def length_unit(self) -> str:
        """``mm`` where every image has a spacing, else ``px``."""
        return "px" if any(s is None for s in self.spacing_mm) else "mm"

    def lengths(self, i: int) -> tuple[float, float]:
        """Return the size of a pixel of image `i`, (row, column), in :attr:`length_unit`."""
        spacing = self.spacing_mm[i]
        return (1.0, 1.0) if spacing is None or self.length_unit == "px" else spacing

    def subset(self, chosen: Sequence[int] | NDArray[np.int64]) -> ShownImages:
        """Return some of the images, in the given order."""
        at = [int(i) for i in chosen]
        return ShownImages(
            self.x[at],
            self.numbers[at],
            tuple(self.placements[i] for i in at),
            tuple(self.sizes[i] for i in at),
            tuple(self.spacing_mm[i] for i in at),
            tuple(self.ids[i] for i in at),
            None if self.groups is None else tuple(self.groups[i] for i in at),
            self.units_are_patients,
            None if self.images is None else self.images.subset(at),
        )


def show_images(
    model: VisionModel,
    images: ImageSet | Tensor | ShownImages,
    *,
    preparation: Preparation | None = None,
    groups: Sequence[Any] | NDArray[Any] | None = None,
) -> ShownImages:
    """Prepare images for a model and keep where each pixel came from.

    Parameters
    ----------
    model
        Whose input they become.
    images
        A set, which knows its spacing and patients; or prepared images, whose pixels then are the input's.
    preparation
        How a set is prepared; the whole image in its physical proportions by default.
    groups
        Patient of each image, for prepared ones.

    Raises
    ------
    ImagesError
        If there is no image.
    ShapeError
        If they are volumes, or there are not as many groups as images.

    """
    if isinstance(images, ShownImages):
        return images
    if len(images) == 0:
        raise ImagesError("there is no image: give at least one")
    if model.contract.depth is not None:
        raise ShapeError(f"'{model.spec}' takes volumes, and maps are drawn of pictures: give a model of slices")
    if groups is not None and len(groups) != len(images):
        raise ShapeError(f"{len(groups)} groups for {len(images)} images: give one each")
    numbers = torch.arange(len(images))
    if isinstance(images, Tensor):
        size = (int(images.shape[-2]), int(images.shape[-1]))
        n = len(images)
        ids = tuple(f"image {i}" for i in range(n))
        known = None if groups is None else tuple(np.asarray(groups, dtype=object).tolist())
        return ShownImages(images.to(model.device), numbers, (Placement(),) * n, (size,) * n, (None,) * n, ids, known)
    chosen = preparation or Preparation()
    inputs, placements, sizes, spacings = [], [], [], []
    for image in images:
        pixels, placement = chosen.apply(image, model.contract)
        inputs.append(torch.from_numpy(pixels))
        placements.append(placement)
        sizes.append((int(image.pixels.shape[0]), int(image.pixels.shape[1])))
        spacings.append(None if image.spacing_mm is None else (float(image.spacing_mm[0]), float(image.spacing_mm[1])))
    of_patients = images.groups if groups is None else tuple(np.asarray(groups, dtype=object).tolist())
    return ShownImages(
        torch.stack(inputs).to(model.device), numbers, tuple(placements), tuple(sizes), tuple(spacings), images.ids,
        _named(of_patients, images.ids), images.units_are_patients, images,
    )  # fmt: skip


def _named(groups: tuple[Any, ...] | None, ids: Sequence[str]) -> tuple[Any, ...] | None:
    """Return the patients, each image without one being its own: those nobody named are not one patient."""
    if groups is None or all(group is None for group in groups):
        return None
    return tuple(f"image {name}" if group is None else group for group, name in zip(groups, ids, strict=True))
