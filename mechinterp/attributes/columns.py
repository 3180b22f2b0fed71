"""From the words of a table's column to the numbers of an attribute."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from mechinterp.attributes.table import Attribute, AttributeTable, Kind, Level
from mechinterp.errors import AttributeTableError, ConfigError, nearest

_KEYS = ("unit", "kind", "level", "measured", "categories")
_TRUTH = {"0": 0.0, "1": 1.0, "false": 0.0, "true": 1.0, "no": 0.0, "yes": 1.0}
_MISSING = {"", "nan", "na", "n/a", "null"}  # "none" is a finding as often as no value


@dataclass(frozen=True)
class ColumnDescription:
    """What is said of a column; what is not said is found from its values.

    Parameters
    ----------
    unit
        Unit of its values; empty when unknown.
    kind
        How values compare; ``None`` finds ``binary`` where there are only 0 and 1, and ``continuous`` otherwise.
    level
        What one value belongs to.
    measured
        How it was measured.
    categories
        Names in their order, for categorical and ordinal columns; ``None`` takes those that occur, sorted.

    """

    unit: str = ""
    kind: Kind | None = None
    level: Level = "image"
    measured: str = "given in metadata.csv"
    categories: tuple[str, ...] | None = None

    @classmethod
    def from_yaml(cls, column: str, said: Any) -> ColumnDescription:
        """Take a unit alone, or a mapping of ``unit``, ``kind``, ``level``, ``measured`` and ``categories``.

        Raises
        ------
        ConfigError
            If something else is said, or it cannot be meant.

        """
        if not isinstance(said, Mapping):
            return cls(unit="" if said is None else str(said))
        for key, value in said.items():
            if key not in _KEYS:
                raise ConfigError(f"attribute '{column}' has no key '{key}': {nearest(str(key), _KEYS)}")
            allowed = get_args({"kind": Kind, "level": Level}.get(key))
            if allowed and value not in allowed:
                raise ConfigError(f"{key} of attribute '{column}' is '{value}': {nearest(str(value), allowed)}")
        categories = said.get("categories")
        if categories is not None and (isinstance(categories, str) or not isinstance(categories, Sequence)):
            raise ConfigError(f"categories of attribute '{column}' must be a list, as [none, mild, severe]")
        return cls(
            unit="" if said.get("unit") is None else str(said["unit"]),
            kind=said.get("kind"),
            level=said.get("level", "image"),
            measured=str(said.get("measured", cls.measured)),
            categories=None if categories is None else tuple(str(c) for c in categories),
        )


def table_of_columns(
    columns: Mapping[str, Sequence[str]], descriptions: Mapping[str, ColumnDescription], rows: int, first_row: int = 2
) -> AttributeTable:
    """Turn columns of words into an attribute table.

    Parameters
    ----------
    columns
        Column × row, as they stand in the file; an empty cell is missing.
    descriptions
        What is said of some of them.
    rows
        Number of rows.
    first_row
        Line number of the first row, for errors.

    Raises
    ------
    AttributeTableError
        If a value is no number (its row and column are named), or a description speaks of a column that is not there.

    """
    for described in descriptions:
        if described not in columns:
            raise AttributeTableError(f"dataset.yaml describes a column '{described}': {nearest(described, columns)}")
    attributes, values, categories = [], [], {}
    for name, words in columns.items():
        said = descriptions.get(name, ColumnDescription())
        if said.kind in {"categorical", "ordinal"}:
            names = said.categories or tuple(sorted({w.strip() for w in words if not _missing(w)}, key=_natural))
            numbers = _codes(name, words, names, first_row)
            categories[name] = names
        else:
            numbers = _numbers(name, words, said.kind, first_row)
        kind: Kind = said.kind or ("binary" if _is_binary(numbers) else "continuous")
        attributes.append(Attribute(name, said.unit, said.level, kind, said.measured))
        values.append(numbers)
    if not attributes:
        return AttributeTable.empty(rows)
    return AttributeTable(tuple(attributes), np.stack(values, axis=1), categories)


def _missing(word: str) -> bool:
    return word.strip().lower() in _MISSING


def _natural(word: str) -> tuple[float, str]:
    """Sort numbers by value and before words."""
    try:
        return float(word), word
    except ValueError:
        return math.inf, word


def _is_binary(numbers: Float[NDArray[np.float64], " row"]) -> bool:
    return set(numbers[~np.isnan(numbers)]) == {0.0, 1.0}


def _codes(
    column: str, words: Sequence[str], names: tuple[str, ...], first_row: int
) -> Float[NDArray[np.float64], " row"]:
    codes = np.full(len(words), np.nan)
    for i, word in enumerate(word.strip() for word in words):
        if word not in names:
            if _missing(word):
                continue
            raise AttributeTableError(
                f"row {first_row + i}, column '{column}': '{word}' is no category of it: {nearest(word, names)}"
            )
        codes[i] = names.index(word)
    return codes


def _numbers(
    column: str, words: Sequence[str], kind: Kind | None, first_row: int
) -> Float[NDArray[np.float64], " row"]:
    numbers = np.full(len(words), np.nan)
    for i, word in enumerate(words):
        if _missing(word):
            continue
        try:
            numbers[i] = _TRUTH[word.strip().lower()] if kind == "binary" else float(word)
        except (ValueError, KeyError):
            expected = "0 or 1" if kind == "binary" else "a number"
            raise AttributeTableError(
                f"row {first_row + i}, column '{column}': '{word}' is not {expected}: correct it, leave it empty, "
                f"or say 'kind: categorical' of '{column}' in dataset.yaml"
            ) from None
        if not math.isfinite(numbers[i]):
            raise AttributeTableError(f"row {first_row + i}, column '{column}': '{word}' is not finite: leave it empty")
    return numbers
