"""How long work reports its progress, without this package printing anything."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

T = TypeVar("T")


class Progress(Protocol):
    """What a caller passes in to see progress; the command line passes one drawn by Rich."""

    def track(self, items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
        """Yield the items unchanged, counting them under `description`."""
        ...

    def note(self, text: str) -> None:
        """Say one line about what is being done."""
        ...


class Silent:
    """The default: no output."""

    def track(self, items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
        """Yield the items unchanged."""
        yield from items

    def note(self, text: str) -> None:
        """Say nothing."""


SILENT = Silent()
