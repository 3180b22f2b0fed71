"""Physical quantities of images: one column each, with unit, level, kind and how it was measured."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from mechinterp.attributes.units import check_unit, convert
from mechinterp.errors import AttributeTableError, ShapeError, nearest

Level = Literal["image", "region", "token"]
Kind = Literal["continuous", "binary", "categorical", "ordinal"]


@dataclass(frozen=True)
class Attribute:
    """What a column of numbers means.

    Parameters
    ----------
    name
        Name of the column.
    unit
        Unit of its values, in the spelling that is shown (``mm²``, ``mm``, ``HU``, ``1`` for a pure number), any that
        :mod:`~mechinterp.attributes.units` knows; empty when unknown.
    level
        What one value belongs to.
    kind
        How it can be compared.
    measured
        How it was measured, in words.

    Raises
    ------
    AttributeTableError
        If there is no such unit; the nearest ones are proposed.

    """

    name: str
    unit: str
    level: Level = "image"
    kind: Kind = "continuous"
    measured: str = "given in metadata.csv"

    def __post_init__(self) -> None:
        try:
            check_unit(self.unit)
        except AttributeTableError as error:
            raise AttributeTableError(f"attribute '{self.name}': {error}") from None

    @property
    def label(self) -> str:
        """Name and unit as an axis shows them."""
        name = self.name.replace("_", " ")
        return name if self.unit in {"", "1"} else f"{name} [{self.unit}]"


@dataclass(frozen=True)
class AttributeTable:
    """Attributes of the images of one set, in their order.

    Parameters
    ----------
    attributes
        What the columns mean.
    values
        Image × attribute; NaN where it is missing. Categories are coded 0, 1, … in the order of `categories`.
    categories
        The names behind the codes of categorical and ordinal columns.

    """

    attributes: tuple[Attribute, ...]
    values: Float[NDArray[np.float64], "image attribute"]
    categories: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or self.values.shape[1] != len(self.attributes):
            raise AttributeTableError(
                f"{len(self.attributes)} attributes but values of shape {self.values.shape}: one column each"
            )
        names = self.names
        if len(set(names)) != len(names):
            raise AttributeTableError(f"an attribute stands twice: {sorted(n for n in names if names.count(n) > 1)[0]}")

    @classmethod
    def empty(cls, images: int) -> AttributeTable:
        """Return a table without columns."""
        return cls((), np.empty((images, 0)))

    @classmethod
    def from_columns(cls, columns: Iterable[tuple[Attribute, Sequence[float] | NDArray[Any]]]) -> AttributeTable:
        """Build a table of attributes and their values."""
        pairs = list(columns)
        if not pairs:
            raise AttributeTableError("no columns: use AttributeTable.empty(number of images)")
        return cls(tuple(a for a, _ in pairs), np.stack([np.asarray(v, dtype=np.float64) for _, v in pairs], axis=1))

    def __len__(self) -> int:
        return int(self.values.shape[0])

    def __iter__(self) -> Iterator[Attribute]:
        return iter(self.attributes)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns."""
        return tuple(a.name for a in self.attributes)

    def __getitem__(self, name: str) -> Attribute:
        return self.attributes[self._position(name)]

    def column(self, name: str) -> Float[NDArray[np.float64], " image"]:
        """Return the values of one attribute, NaN where missing.

        Raises
        ------
        AttributeTableError
            If there is no such attribute; the nearest names are proposed.

        """
        return self.values[:, self._position(name)]

    def select(self, images: Sequence[int] | NDArray[np.int64]) -> AttributeTable:
        """Return the table of some images, in the given order."""
        return AttributeTable(self.attributes, self.values[np.asarray(images, dtype=int)], self.categories)

    def joined(self, other: AttributeTable) -> AttributeTable:
        """Return a table with the columns of both; columns of `other` replace those of the same name."""
        if len(other) != len(self):
            raise AttributeTableError(f"tables of {len(self)} and {len(other)} images cannot be joined")
        kept = [i for i, a in enumerate(self.attributes) if a.name not in other.names]
        return AttributeTable(
            tuple(self.attributes[i] for i in kept) + other.attributes,
            np.concatenate([self.values[:, kept], other.values], axis=1),
            {**self.categories, **other.categories},
        )

    def in_unit(self, name: str, unit: str) -> AttributeTable:
        """Return the table with one attribute in another unit; its name stays as it is.

        Raises
        ------
        AttributeTableError
            If the attribute or the unit does not exist, or the two measure different things.

        """
        position = self._position(name)
        values = self.values.copy()
        values[:, position] = convert(values[:, position], self.attributes[position].unit, unit)
        return self._with({position: unit}, values)

    def in_mm(self, spacing_mm: Sequence[tuple[float, float]]) -> AttributeTable:
        """Return the table with lengths in px as mm and areas in px² as mm².

        Parameters
        ----------
        spacing_mm
            Of each image, millimetres per pixel, (row, column).

        Raises
        ------
        AttributeTableError
            If a length in px stands beside pixels that are no squares: its direction is not known.
        ShapeError
            If there is not one spacing for each image.

        """
        spacing = np.asarray(spacing_mm, dtype=np.float64)
        if spacing.shape != (len(self), 2):
            raise ShapeError(f"spacings of shape {spacing.shape} for {len(self)} images: give (row, column) for each")
        values, units = self.values.copy(), {}
        for i, attribute in enumerate(self.attributes):
            if attribute.unit == "px²":
                values[:, i] *= spacing.prod(1)
                units[i] = "mm²"
            elif attribute.unit == "px":
                if not np.allclose(spacing[:, 0], spacing[:, 1], rtol=1e-3):
                    raise AttributeTableError(
                        f"'{attribute.name}' is a length in px, and pixels are no squares: measure it in mm from the mask"
                    )
                values[:, i] *= spacing[:, 0]
                units[i] = "mm"
        return self._with(units, values)

    def _with(self, units: Mapping[int, str], values: NDArray[np.float64]) -> AttributeTable:
        renamed = tuple(replace(a, unit=units.get(i, a.unit)) for i, a in enumerate(self.attributes))
        return AttributeTable(renamed, values, self.categories)

    def _position(self, name: str) -> int:
        if name not in self.names:
            raise AttributeTableError(f"no attribute '{name}': {nearest(name, self.names)}")
        return self.names.index(name)
