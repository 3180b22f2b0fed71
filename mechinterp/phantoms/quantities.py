"""Physical parameters of a phantom, their units, ranges and what they touch, all declared as data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import Field, dataclass, field, fields
from typing import Any

import numpy as np

from mechinterp.attributes.table import Attribute, AttributeTable, Kind
from mechinterp.errors import ConfigError, nearest

EVERYWHERE = "everywhere"


@dataclass(frozen=True)
class Quantity:
    """What one field of a parameter dataclass means.

    Parameters
    ----------
    description
        What it is, in words.
    unit
        Unit as it is shown; ``1`` for a pure number.
    low, high
        Smallest and largest value that can be rendered.
    structures
        Names of the masks within whose union a change of it can change pixels; ``("everywhere",)`` for all of them.
    kind
        How values can be compared.
    choices
        What a categorical quantity can be; its code in a table is the position in here.

    """

    description: str
    unit: str = "1"
    low: float = -np.inf
    high: float = np.inf
    structures: tuple[str, ...] = (EVERYWHERE,)
    kind: Kind = "continuous"
    choices: tuple[str, ...] = ()


def quantity(default: Any, description: str, **declared: Any) -> Any:
    """Declare a field of a parameter dataclass; arguments are those of :class:`Quantity`."""
    return field(default=default, metadata={"quantity": Quantity(description, **declared)})


def quantities(parameters: Any) -> dict[str, Quantity]:
    """Return the quantities of a parameter dataclass (class or instance), by name, in order."""
    return {f.name: _of(f) for f in fields(parameters)}


def check_parameters(parameters: Any) -> None:
    """Check every value against its declared range or choices.

    Raises
    ------
    ConfigError
        If one is outside; names it, its range and its unit.

    """
    for name, what in quantities(parameters).items():
        value = getattr(parameters, name)
        if what.choices:
            if value not in what.choices:
                raise ConfigError(f"{name} is '{value}': {nearest(str(value), what.choices)}")
        elif not what.low <= value <= what.high:
            unit = "" if what.unit == "1" else f" {what.unit}"
            raise ConfigError(f"{name} is {value:g}{unit}: it must lie between {what.low:g} and {what.high:g}{unit}")


def check_name(parameters: Any, name: str) -> None:
    """Check that there is a parameter of this name.

    Raises
    ------
    ConfigError
        If there is none; the nearest names are proposed.

    """
    known = quantities(parameters)
    if name not in known:
        raise ConfigError(f"{type(parameters).__name__} has no parameter '{name}': {nearest(name, known)}")


def parameter_table(parameters: Sequence[Any]) -> AttributeTable:
    """Return the parameters of some images as a table with units.

    Parameters
    ----------
    parameters
        Instances of one parameter dataclass, one an image.

    """
    columns, categories = [], {}
    for name, what in quantities(parameters[0]).items():
        values = [getattr(p, name) for p in parameters]
        if what.choices:
            categories[name] = what.choices
            values = [what.choices.index(v) for v in values]
        attribute = Attribute(name, what.unit, kind=what.kind, measured=f"parameter of the phantom: {what.description}")
        columns.append((attribute, np.asarray(values, dtype=float)))
    table = AttributeTable.from_columns(columns)
    return AttributeTable(table.attributes, table.values, categories)


def _of(declared: Field[Any]) -> Quantity:
    found: Quantity = declared.metadata["quantity"]
    return found
