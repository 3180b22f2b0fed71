"""Which numbers in a report's sentences stand nowhere as a number: prose that nothing backs is named, not hidden."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_NUMERAL = re.compile(r"(?<![\w.,/@#:-])[+−-]?\d+(?:,\d{3})*(?:\.\d+)?(?:e[+−-]?\d+)?(?:\s?%)?(?![\w])(?!\.\d)")

SETTLED = frozenset({0.0, 1.0, 2.0, 95.0})
"""Zero, one and two of anything are words; 95 % is the level of every interval."""


def unbacked(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the sentences of a report that hold a number which stands nowhere in their part of it.

    Parameters
    ----------
    record
        The report's JSON.

    Returns
    -------
    list
        ``path`` (a JSON pointer) and ``numerals`` of every such sentence. A claim's sentences are looked up in the claim, its
        planned test and the report's own numbers; answer lines and limits in the whole report.

    """
    found = []
    for path, text, known in _sentences(record):
        numbers = set(_numbers(known))
        strange = [shown for shown in numerals(text) if not backed(shown, numbers)]
        if strange:
            found.append({"path": path, "numerals": strange})
    return found


def numerals(text: str) -> list[str]:
    """Return the numbers in a sentence as they are written; digits inside a name (``block5_conv3``) are none."""
    return [match.group().strip() for match in _NUMERAL.finditer(text)]


def backed(shown: str, numbers: set[float]) -> bool:
    """Return whether a number as written is one of the numbers, rounded to as many digits (per cent of a share)."""
    plain = shown.replace("−", "-").replace(",", "").replace("%", "").strip()
    value = float(plain)
    if abs(value) in SETTLED:
        return True
    mantissa, _, exponent = plain.partition("e")
    digits = len(mantissa.partition(".")[2]) - int(exponent or 0)
    half = 0.5 * 10.0**-digits * (1 + 1e-9)
    return any(
        abs(abs(number) * scale - abs(value)) <= half
        for number in numbers
        for scale in ((1, 100) if "%" in shown else (1,))
    )


def _sentences(record: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    tests = {test["name"]: test for test in record["plan"]["tests"]}
    for e, element in enumerate(record["elements"]):
        for c, claim in enumerate(element["claims"]):
            known = [claim, tests.get(claim.get("test", "")), record["numbers"]]
            yield f"/elements/{e}/claims/{c}/statement", claim["statement"], known
            for at, control in enumerate(claim["controls"]):
                yield f"/elements/{e}/claims/{c}/controls/{at}/detail", control["detail"], known
        for at, text in enumerate(element["limits"]):
            yield f"/elements/{e}/limits/{at}", text, record
    for c, claim in enumerate(record["model_check"]["claims"]):
        yield f"/model_check/claims/{c}/statement", claim["statement"], [claim, record["numbers"]]
    for key in ("answer", "limits"):
        for at, text in enumerate(record[key]):
            yield f"/{key}/{at}", text, record


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return
    if isinstance(value, (int, float)):
        yield float(value)
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _numbers(part)
    elif isinstance(value, Sequence):
        yield float(len(value))
        for part in value:
            yield from _numbers(part)
