"""All that is known of some phantoms as one table: parameters, what follows from them, and what is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mechinterp.attributes.table import Attribute, AttributeTable
from mechinterp.phantoms.quantities import parameter_table

Derived = tuple[Attribute, Sequence[float]]


def known_table(
    parameters: Sequence[Any],
    derived: Sequence[Derived],
    *,
    categories: Mapping[str, tuple[str, ...]] | None = None,
    absent: Mapping[str, str] | None = None,
) -> AttributeTable:
    """Return parameters and derived quantities with units.

    Parameters
    ----------
    parameters
        Instances of one parameter dataclass, one an image.
    derived
        Further columns.
    categories
        Names behind the codes of derived columns.
    absent
        Beginning of the names of a structure's parameters -> the one that is 0 where the structure is not there. Its
        counts and sizes are 0 then, and everything else about it is missing (NaN): what is not there has no contrast.

    """
    table = parameter_table(parameters)
    values = table.values.copy()
    for prefix, decisive in (absent or {}).items():
        gone = table.column(decisive) == 0
        for k, name in enumerate(table.names):
            if name.startswith(prefix) and name != decisive:
                values[gone, k] = 0.0 if name.endswith("count") else np.nan
    more = AttributeTable.from_columns(list(derived))
    more = AttributeTable(more.attributes, more.values, dict(categories or {}))
    return AttributeTable(table.attributes, values, table.categories).joined(more)
