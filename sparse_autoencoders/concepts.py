"""What a feature could stand for: every label and every attribute, high and low, as present or absent in each image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from mechinterp.attributes.table import AttributeTable
from mechinterp.errors import AttributeTableError, ShapeError

SHARE = 1 / 3
"""The part of the images in which a continuous attribute counts as high, and as low."""


@dataclass(frozen=True, eq=False)
class Concept:
    """Something that is present in an image or not.

    Parameters
    ----------
    name
        In words, with the unit: ``lesion area above 1.3 mm²``, ``label referable``.
    source
        The attribute it was made from, or ``label``.
    present
        1 or 0 for each image; NaN where it is not known.

    """

    name: str
    source: str
    present: Float[NDArray[np.float64], " image"]


def concepts_of(
    attributes: AttributeTable,
    labels: Sequence[str | None] | None = None,
    *,
    discovery: NDArray[np.int64],
    share: float = SHARE,
) -> tuple[Concept, ...]:
    """Return every concept that is present in some and absent from other discovery images.

    Parameters
    ----------
    attributes
        Of the images. A binary attribute is one concept, a categorical one as many as it has values; a continuous or ordinal one
        is two: above, and at or below, what cuts off a third of the discovery images.
    labels
        Class of each image, ``None`` where unknown; each class is a concept.
    discovery
        Positions of the images that cuts are made on: no other image has a say in what a concept is.
    share
        The part of them that counts as high, and as low.

    Raises
    ------
    AttributeTableError
        If `share` does not lie between 0 and a half.
    ShapeError
        If there is not one label for each image.

    """
    if not 0 < share <= 0.5:
        raise AttributeTableError(f"share is {share:g}: the part that counts as high lies above 0 and up to 0.5")
    if labels is not None and len(labels) != len(attributes):
        raise ShapeError(f"{len(labels)} labels for {len(attributes)} images: one each, None where unknown")
    found: list[Concept] = []
    if labels is not None:
        known = np.array([label is not None for label in labels])
        for label in sorted({label for label in labels if label is not None}):
            there = np.array([other == label for other in labels], dtype=np.float64)
            found.append(Concept(f"label {label}", "label", np.where(known, there, np.nan)))
    for attribute in attributes:
        values = attributes.column(attribute.name)
        if attribute.kind == "binary":
            found.append(Concept(attribute.label, attribute.name, values))
        elif attribute.kind == "categorical":
            names = attributes.categories.get(attribute.name, ())
            for code in np.unique(values[~np.isnan(values)]):
                shown = names[int(code)] if int(code) < len(names) else f"{code:g}"
                found.append(
                    Concept(f"{_plain(attribute.name)} {shown}", attribute.name, _where(values, values == code))
                )
        else:
            unit = "" if attribute.unit in {"", "1"} else f" {attribute.unit}"
            seen = values[discovery]
            if np.isnan(seen).all():
                continue
            high, low = np.nanquantile(seen, 1 - share), np.nanquantile(seen, share)
            above = f"{_plain(attribute.name)} above {high:.3g}{unit}"
            below = f"{_plain(attribute.name)} at most {low:.3g}{unit}"
            found.append(Concept(above, attribute.name, _where(values, values > high)))
            found.append(Concept(below, attribute.name, _where(values, values <= low)))
    return tuple(c for c in found if len(np.unique(c.present[discovery][~np.isnan(c.present[discovery])])) == 2)


def _where(values: NDArray[np.float64], true: NDArray[np.bool_]) -> NDArray[np.float64]:
    return np.where(np.isnan(values), np.nan, true.astype(np.float64))


def _plain(name: str) -> str:
    return name.replace("_", " ")
