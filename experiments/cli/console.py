"""What a command prints: progress and notes on stderr, the result on stdout, as text or as one JSON object."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichBars
from rich.table import Table

from mechinterp.files import jsonable

T = TypeVar("T")


class ConsoleProgress:
    """Progress bars and notes on stderr; implements :class:`mechinterp.progress.Progress`."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)

    def track(self, items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
        """Yield the items under a bar that is left on the screen when done.

        Where stderr is no terminal (a log file), one line is printed instead.
        """
        if total is None and isinstance(items, Sequence):
            total = len(items)
        if not self.console.is_terminal:
            self.note(f"  {description}" + (f" ({total})" if total else ""))
            yield from items
            return
        with RichBars(
            TextColumn("  {task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
        ) as bars:
            task = bars.add_task(description, total=total)
            for item in items:
                yield item
                bars.advance(task)

    def note(self, text: str) -> None:
        """Print one line; where stderr is no terminal it stays one, so that a log can be searched."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=not self.console.is_terminal)


def emit(result: Mapping[str, Any], text: str, *, as_json: bool) -> None:
    """Print a command's result on stdout: one JSON object, or text for people."""
    if as_json:
        print(json.dumps(jsonable(dict(result)), sort_keys=True, ensure_ascii=False))
    else:
        print(text)
    sys.stdout.flush()


def emit_table(
    result: Mapping[str, Any], title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], *, as_json: bool
) -> None:
    """Print a command's result on stdout: one JSON object, or a table for people."""
    if as_json:
        emit(result, "", as_json=True)
        return
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*[str(cell) for cell in row])
    console = Console()
    # a pipe has no width of its own: rows stay whole there, so that they can be searched
    (console if console.is_terminal else Console(width=200)).print(table)
