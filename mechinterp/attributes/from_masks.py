"""Measure every structure of a set of images from its masks: size, place, brightness, texture, in units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mechinterp.attributes.measuring import Mask
from mechinterp.attributes.shape import shape_attributes
from mechinterp.attributes.table import Attribute, AttributeTable
from mechinterp.attributes.texture import Plane, density_of, texture_attributes
from mechinterp.errors import AttributeTableError, nearest
from mechinterp.progress import SILENT, Progress

if TYPE_CHECKING:
    from mechinterp.images.image_set import ImageSet, MedicalImage


def attributes_from_masks(
    images: ImageSet,
    structures: Sequence[str] | None = None,
    *,
    landmarks: Sequence[str] = (),
    within: str | None = None,
    texture: bool = True,
    progress: Progress = SILENT,
) -> AttributeTable:
    """Measure the structures that a set of images has masks of.

    Parameters
    ----------
    images
        With masks and spacing. Images are read one by one, so memory does not grow with their number.
    structures
        Names of the masks to measure; all that any image has, in alphabetical order, by default.
    landmarks
        Masks whose middles the structures' places are measured from; by default the image's top left corner.
    within
        A mask of an organ: adds the share of it that each structure covers.
    texture
        Also measure brightness, contrast and texture.
    progress
        Where progress goes.

    Returns
    -------
    AttributeTable
        One row per image, the columns of :func:`~mechinterp.attributes.shape.shape_attributes` and
        :func:`~mechinterp.attributes.texture.texture_attributes` for each structure, and ``STRUCTURE_share_of_WITHIN``.
        A structure without a mask in an image is absent there: its area is 0, the rest missing.

    Raises
    ------
    AttributeTableError
        If the images are volumes, one has no spacing, or no mask has a name that is asked for.

    Notes
    -----
    Intensities are those of the pixels where all images have the same unit (HU, for example), and otherwise run from 0,
    what is shown as black, to 1, what is shown as white. Colour images are measured in the mean of their channels.

    """
    if images.axes != 2:
        raise AttributeTableError(
            f"'{images.name}' holds volumes: measure slices, as `--images FILE` of a NIfTI gives them"
        )
    wanted = tuple(dict.fromkeys([*(structures or ()), *landmarks, *([] if within is None else [within])]))
    known = _names(images)
    for name in wanted:
        if name not in known:
            raise AttributeTableError(f"no image has a mask '{name}': {nearest(name, known)}")
    measured = tuple(structures) if structures is not None else tuple(n for n in known if n not in landmarks)
    unit = _unit(images)
    rows, about = [], tuple[Attribute, ...]()
    for i in progress.track(range(len(images)), "measuring masks", total=len(images)):
        table = _measure(images[i], images.masks(i), measured, tuple(landmarks), within, unit if texture else None)
        about = table.attributes
        rows.append(table.values[0])
    return AttributeTable(about, np.array(rows, dtype=np.float64))


def _names(images: ImageSet) -> tuple[str, ...]:
    """Return the names of all masks; a structure that is absent from an image may have none there."""
    return tuple(sorted({name for i in range(len(images)) for name in images.masks(i)}))


def _unit(images: ImageSet) -> str:
    """Return the unit that all pixels are in; empty where they differ or are not known."""
    known = set(images.pixel_units or ("",))
    only = known.pop() if len(known) == 1 else None
    return only or ""


def _measure(
    image: MedicalImage,
    masks: Mapping[str, Mask],
    measured: tuple[str, ...],
    landmarks: tuple[str, ...],
    within: str | None,
    unit: str | None,
) -> AttributeTable:
    """Measure one image; without a unit its intensities are left alone."""
    if image.spacing_mm is None:
        raise AttributeTableError(
            f"image '{image.id}' has no spacing, so nothing can be measured in mm: give `spacing_mm` in dataset.yaml, of DICOM "
            "PixelSpacing in the header"
        )
    spacing = (float(image.spacing_mm[0]), float(image.spacing_mm[1]))
    size = image.pixels.shape[:2]
    empty = np.zeros(size, dtype=bool)
    places = {name: [_middle(np.asarray(masks.get(name, empty), dtype=bool))] for name in landmarks}
    table = AttributeTable.empty(1)
    for name in measured:
        mask = np.asarray(masks.get(name, empty), dtype=bool)
        table = table.joined(shape_attributes([mask], [spacing], name, landmarks_px=places))
        if unit is not None:
            plane, limits = _grey(image, unit)
            table = table.joined(texture_attributes([plane], [mask], [spacing], name, unit=unit or "1", limits=limits))
        if within is not None and within != name:
            share = density_of(mask, np.asarray(masks.get(within, empty), dtype=bool))
            column = Attribute(
                f"{name}_share_of_{within}", "1", measured=f"share of the mask '{within}' that it covers"
            )
            table = table.joined(AttributeTable.from_columns([(column, [share])]))
    return table


def _middle(mask: Mask) -> tuple[float, float]:
    """Return the middle of a mask, (row, column) in pixels, pixel ``i`` covering ``[i, i + 1)``; NaN where it is empty."""
    rows, columns = np.nonzero(mask)
    return (float(rows.mean()) + 0.5, float(columns.mean()) + 0.5) if len(rows) else (float("nan"), float("nan"))


def _grey(image: MedicalImage, unit: str) -> tuple[Plane, tuple[float, float]]:
    """Return one plane of intensities, and what is shown as black and as white."""
    whole: NDArray[np.float32] = image.pixels if unit else image.scaled()
    plane = whole if whole.ndim == 2 else whole.mean(-1)
    return plane, image.intensity_range if unit else (0.0, 1.0)
