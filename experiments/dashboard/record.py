"""Reading a JSON file that may lack anything: every access answers, and says whether something was there."""

from __future__ import annotations

import math
from typing import Any


class Record:
    """A view of a JSON value that is never missing a key: what is absent is a record of nothing.

    Results come from studies of different length (a quick run, a model without probabilities, an older version), so
    pages ask for what they show and say *not run* where the answer is empty.

    Examples
    --------
    >>> results = Record({"sae": {"k": 32}})
    >>> results["sae"]["k"].number(), results["sae"]["metrics"]["l0"].number(), bool(results["probes"])
    (32, None, False)

    """

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __getitem__(self, key: str | int) -> Record:
        """Return what stands under a key or index; a record of nothing where there is none."""
        if isinstance(key, str):
            return Record(self.value.get(key)) if isinstance(self.value, dict) else Record(None)
        inside = isinstance(self.value, list) and 0 <= key < len(self.value)
        return Record(self.value[key] if inside else None)

    def __bool__(self) -> bool:
        """Whether anything is there: not null, not an empty list, object or text."""
        return self.value is not None and self.value not in ([], {}, "")

    def number(self) -> float | int | None:
        """Return a finite number, or ``None``."""
        ok = isinstance(self.value, (int, float)) and not isinstance(self.value, bool) and math.isfinite(self.value)
        return self.value if ok else None

    def integer(self) -> int | None:
        """Return a whole number, or ``None``."""
        number = self.number()
        return int(number) if number is not None and float(number).is_integer() else None

    def flag(self) -> bool | None:
        """Return a truth value, or ``None``."""
        return self.value if isinstance(self.value, bool) else None

    def text(self, default: str = "") -> str:
        """Return text or a number's text, or `default` for anything else."""
        if isinstance(self.value, bool) or not isinstance(self.value, (str, int, float)) or self.value == "":
            return default
        return str(self.value)

    def entries(self) -> list[Record]:
        """Return the entries of a list; none for anything else."""
        return [Record(entry) for entry in self.value] if isinstance(self.value, list) else []

    def items(self) -> list[tuple[str, Record]]:
        """Return the entries of an object; none for anything else."""
        return [(str(k), Record(v)) for k, v in self.value.items()] if isinstance(self.value, dict) else []

    def numbers(self) -> list[float | None]:
        """Return the entries of a list as numbers, ``None`` where one is not."""
        return [entry.number() for entry in self.entries()]

    def integers(self) -> list[int]:
        """Return the entries of a list that are whole numbers."""
        return [n for n in (entry.integer() for entry in self.entries()) if n is not None]

    def texts(self) -> list[str]:
        """Return the entries of a list as texts."""
        return [entry.text() for entry in self.entries()]

    def pair(self) -> tuple[float, float] | None:
        """Return a list of exactly two numbers, or ``None``."""
        numbers = self.numbers()
        if len(numbers) != 2 or numbers[0] is None or numbers[1] is None:
            return None
        return float(numbers[0]), float(numbers[1])

    def grid(self) -> list[list[float | None]]:
        """Return a rectangular list of lists of numbers; none if it is not one."""
        rows = [row.numbers() for row in self.entries()]
        return rows if rows and rows[0] and len({len(row) for row in rows}) == 1 else []
