"""Units of physical quantities: what a spelling means, and how values turn from one into another.

Units are pint's [1]_, with what medical images need defined beside them. ``px`` is a length of its own here, not CSS's
ninety-sixth of an inch, so that a length in pixels never becomes millimetres without a spacing.

References
----------
.. [1] Grecco et al. Pint: operate and manipulate physical quantities. https://pint.readthedocs.io

"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from mechinterp.errors import AttributeTableError, nearest

USUAL = (
    "1", "mm", "mm²", "mm³", "cm", "cm²", "cm³", "µm", "µm²", "1/mm", "px", "px²", "HU", "°", "deg", "%", "fraction",
    "count", "s", "ms", "a", "kV", "mA", "mAs", "mGy", "T", "N", "Hz", "bpm", "dpt", "mL", "bit",
)  # fmt: skip
"""Spellings that are right without asking pint, whose start takes half a second, and those proposed first."""

_DEFINITIONS = (
    "image_pixel = [image_pixel] = px = pixel",
    "hounsfield_unit = [radiodensity] = HU = hu",
    "fraction = [] = _ = share = ratio",
    "milliampere_second = milliampere * second = mAs",
    "beat_per_minute = 1 / minute = bpm",
    "dioptre = 1 / meter = dpt = diopter",
)
_PURE = frozenset({"", "1"})


def check_unit(unit: str) -> str:
    """Return the unit if its spelling means something.

    Parameters
    ----------
    unit
        As it is shown, for example ``mm²``, ``HU``, ``1/mm``; empty where it is unknown, ``1`` for a pure number.

    Raises
    ------
    AttributeTableError
        If pint knows no such unit; the nearest ones are proposed.

    """
    if unit not in _PURE and unit not in USUAL:
        _meaning(unit)
    return unit


def convert(
    values: Float[NDArray[np.float64], "*shape"] | float, unit: str, to: str
) -> Float[NDArray[np.float64], "*shape"]:
    """Return values in another unit.

    Parameters
    ----------
    values
        Numbers in `unit`; NaN stays NaN.
    unit, to
        What they are in, and what they are wanted in.

    Raises
    ------
    AttributeTableError
        If one of them is unknown, or they measure different things: mm² and mm, or px and mm, which only a spacing
        connects.

    Examples
    --------
    >>> convert(250.0, "mm²", "cm²")
    array(2.5)

    """
    numbers = np.asarray(values, dtype=np.float64)
    if unit == to:
        return numbers.copy()
    if not unit or not to:
        raise AttributeTableError(
            f"from '{unit}' to '{to}' nothing can be converted: name both units, '1' for a pure number"
        )
    registry, source, target = _registry(), _meaning(unit), _meaning(to)
    if source.dimensionality != target.dimensionality:
        pixels = "[image_pixel]" in {**source.dimensionality, **target.dimensionality}
        how = ": a spacing connects the two, see AttributeTable.in_mm" if pixels else ": they measure different things"
        raise AttributeTableError(f"values in {unit} cannot be given in {to}{how}")
    return np.asarray(registry.Quantity(numbers, source).to(target).magnitude, dtype=np.float64)


def _meaning(unit: str) -> Any:
    """Return pint's unit of a spelling."""
    from pint.errors import PintError, UndefinedUnitError

    try:
        return _registry().parse_units("dimensionless" if unit in _PURE else unit)
    except UndefinedUnitError as error:
        names = error.unit_names
        unknown = names if isinstance(names, str) else str(next(iter(names)))
        where = "" if unknown == unit else f" in '{unit}'"
        raise AttributeTableError(f"no unit '{unknown}'{where}: {_proposal(unknown)}") from None
    except (PintError, TypeError, ValueError, AttributeError, SyntaxError):
        # pint's parser raises what Python's does on what is no expression of units
        raise AttributeTableError(f"'{unit}' is no unit: write it as mm², 1/mm or mm/s; {_proposal(unit)}") from None


def _proposal(unknown: str) -> str:
    proposal = nearest(unknown, USUAL)
    if proposal.startswith("did you mean"):
        return proposal
    return nearest(unknown, sorted(name for name in dir(_registry()) if not name.startswith("_")))


@cache
def _registry() -> Any:
    import pint

    registry: Any = pint.UnitRegistry(on_redefinition="ignore", autoconvert_offset_to_baseunit=True)
    for definition in _DEFINITIONS:
        registry.define(definition)
    return registry
