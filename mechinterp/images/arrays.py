"""A set of images from arrays in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mechinterp.attributes.table import Attribute, AttributeTable
from mechinterp.errors import ImagesError
from mechinterp.images.image_set import ImageSet
from mechinterp.images.intensity import checked_range, checked_spacing, range_of

Spacing = float | tuple[float, float]


def from_arrays(
    arrays: NDArray[Any] | Sequence[NDArray[Any]],
    *,
    labels: Sequence[str | None] | None = None,
    groups: Sequence[str | None] | None = None,
    splits: Sequence[str | None] | None = None,
    ids: Sequence[str] | None = None,
    spacing_mm: Spacing | Sequence[Spacing | None] | None = None,
    intensity_range: tuple[float, float] | None = None,
    attributes: AttributeTable | Mapping[str, Sequence[float]] | None = None,
    units: Mapping[str, str] | None = None,
    name: str = "arrays",
    licence: str | None = None,
    units_are_patients: bool = True,
) -> ImageSet:
    """Make a set of images from arrays.

    Parameters
    ----------
    arrays
        Image × height × width, or image × height × width × channel, or a sequence of such images of any sizes.
        Channels stand last.
    labels, groups, splits
        Per image: class, patient, and ``train``/``validation``/``test``.
    ids
        Unique names; ``0``, ``1``, … with leading zeros when left out.
    spacing_mm
        Millimetres per pixel: one number, or (row, column) for all images, or a list with one entry per image.
    intensity_range
        The values shown as black and as white; see :func:`mechinterp.images.intensity.range_of` for the default.
    attributes
        A table, or values per image by name.
    units
        Units of `attributes` given by name.
    name, licence, units_are_patients
        As in :class:`ImageSet`.

    Returns
    -------
    ImageSet
        The images in their order. They cannot be opened again from `source`.

    Raises
    ------
    ImagesError
        If an array is no image, or a list does not have one entry per image.

    Examples
    --------
    >>> import numpy as np
    >>> images = from_arrays(np.zeros((2, 8, 8)), labels=["none", "tumour"], spacing_mm=0.5)
    >>> images[1].label, images[1].spacing_mm
    ('tumour', (0.5, 0.5))

    """
    pixels = [np.asarray(a) for a in arrays]
    for i, array in enumerate(pixels):
        if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[-1] not in (1, 3, 4)) or array.size == 0:
            raise ImagesError(
                f"array {i} of '{name}' has shape {array.shape}: an image is height × width, or height × width × channel"
            )
    n, digits = len(pixels), len(str(max(len(pixels) - 1, 0)))

    def per_image(what: str, values: Sequence[Any] | None) -> tuple[Any, ...] | None:
        if values is not None and len(values) != n:
            raise ImagesError(f"'{name}' has {n} images but {len(values)} {what}")
        return None if values is None else tuple(None if v is None else str(v) for v in values)

    if intensity_range is None:
        white_and_black = range_of(pixels, name)
    else:
        white_and_black = checked_range(intensity_range, "intensity_range")
    return ImageSet(
        ids=per_image("ids", ids) or tuple(f"{i:0{digits}d}" for i in range(n)),
        read=lambda i: pixels[i],
        intensity_range=white_and_black,
        spacing_mm=_spacings(spacing_mm, n),
        labels=per_image("labels", labels),
        groups=per_image("groups", groups),
        splits=per_image("splits", splits),
        attributes=_table(attributes, units or {}, n),
        name=name,
        licence=licence,
        units_are_patients=units_are_patients,
    )


def _spacings(
    spacing_mm: Spacing | Sequence[Spacing | None] | None, n: int
) -> tuple[tuple[float, float] | None, ...] | None:
    if spacing_mm is None:
        return None
    if isinstance(spacing_mm, list):
        return tuple(
            None if s is None else checked_spacing(s, f"spacing_mm of image {i}") for i, s in enumerate(spacing_mm)
        )
    return (checked_spacing(spacing_mm, "spacing_mm"),) * n


def _table(
    attributes: AttributeTable | Mapping[str, Sequence[float]] | None, units: Mapping[str, str], n: int
) -> AttributeTable:
    if isinstance(attributes, AttributeTable):
        return attributes
    if not attributes:
        return AttributeTable.empty(n)
    for column, values in attributes.items():
        if len(values) != n:
            raise ImagesError(f"attribute '{column}' has {len(values)} values for {n} images")
    return AttributeTable.from_columns(
        (Attribute(column, units.get(column, ""), measured="given with the arrays"), np.asarray(values, dtype=float))
        for column, values in attributes.items()
    )
