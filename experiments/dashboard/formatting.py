"""Numbers as people read them; one place, so that a number looks the same in every table, card and caption."""

from __future__ import annotations

import math
from typing import Literal

from mechinterp.claims import without_signed_zero

Form = Literal["text", "integer", "number", "signed", "percent", "p"]

ABSENT = "–"
"""What stands where there is no value."""


def format_value(value: object, form: Form = "number") -> str:
    """Return a value as text.

    Parameters
    ----------
    value
        A number, a truth value, text, or ``None``; not-a-number counts as ``None``.
    form
        ``number`` keeps three significant digits, ``signed`` writes the sign of positive numbers too, ``percent`` takes a
        fraction, ``p`` is a p-value and never says zero, ``integer`` groups thousands, ``text`` leaves numbers alone.

    Examples
    --------
    >>> format_value(-0.01234), format_value(2.5, "signed"), format_value(0.104, "percent"), format_value(1e-5, "p")
    ('−0.0123', '+2.5', '10.4 %', '< 0.001')

    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ABSENT
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, (int, float)) or form == "text":
        return str(value)
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    return without_signed_zero(_formatted(value, form)).replace("-", "−")


def with_unit(value: object, unit: str, form: Form = "number") -> str:
    """Return a value followed by its unit, or the sign for an absent value alone."""
    text = format_value(value, form)
    return text if text == ABSENT or not unit or unit == "1" else f"{text} {unit}"


def label_with_unit(label: str, unit: str) -> str:
    """Return an axis' or column's label; a unit of ``1`` (a pure number) is not written."""
    return f"{label} [{unit}]" if unit and unit != "1" else label


def counted(n: int, one: str, many: str | None = None) -> str:
    """Return a count with its noun.

    Examples
    --------
    >>> counted(1, "feature"), counted(1200, "feature")
    ('1 feature', '1,200 features')

    """
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def _formatted(value: float, form: Form) -> str:
    if form == "p":
        return "< 0.001" if value < 0.001 else f"{value:.3f}" if value < 0.1 else f"{value:.2f}"
    if form == "percent":
        share = 100 * value
        return f"{share:.1f} %" if 0 < abs(share) < 10 or abs(share - round(share)) > 0.05 else f"{share:.0f} %"
    if form == "integer":
        return f"{round(value):,}"
    text = _significant(value)
    return f"+{text}" if form == "signed" and value > 0 else text


def _significant(value: float) -> str:
    """Return three significant digits, without an exponent where the number is of everyday size."""
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 1e5 or size < 1e-3:
        return f"{value:.2e}".replace("e+0", "e").replace("e-0", "e-").replace("e+", "e")
    if size >= 100:
        return f"{value:,.0f}"
    return f"{value:.0f}" if float(value).is_integer() else f"{value:#.3g}"
