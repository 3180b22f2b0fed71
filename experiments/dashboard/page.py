"""What a page is made of, as plain data; how it looks is the renderers' business.

A page is built by a pure function from a run's results, and drawn by two renderers from the same blocks: a static export
that opens from disk, and a served app. Text is always plain text: no block takes markup, so nothing in a label, a file
name or an attribute can become any.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from experiments.dashboard.formatting import ABSENT, Form, format_value, label_with_unit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import plotly.graph_objects as go

Tone = Literal["plain", "good", "bad", "caution", "muted"]


@dataclass(frozen=True)
class Link:
    """A way to another page of the same run."""

    text: str
    slug: str


Cell: TypeAlias = "str | float | int | bool | Link | None"


@dataclass(frozen=True)
class Column:
    """A table's column: what it holds, its unit, and how its numbers are written."""

    label: str
    unit: str = ""
    form: Form = "text"
    explanation: str = ""

    @property
    def heading(self) -> str:
        """Label with unit."""
        return label_with_unit(self.label, self.unit)

    @property
    def numeric(self) -> bool:
        """Whether the column's cells align right."""
        return self.form != "text"

    def text(self, cell: Cell) -> str:
        """Return a cell as it is read."""
        return cell.text if isinstance(cell, Link) else format_value(cell, self.form)


@dataclass(frozen=True)
class Heading:
    """A section's heading; level 1 is the page's own title and is drawn by the renderer."""

    text: str
    level: Literal[2, 3] = 2


@dataclass(frozen=True)
class Text:
    """Paragraphs of plain text."""

    paragraphs: tuple[str, ...]
    tone: Tone = "plain"


@dataclass(frozen=True)
class Answer:
    """The run's question and its answer in a few plain lines."""

    question: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Stamp:
    """What every page says of itself: whose model, for what use, and whether it was trained at all."""

    text: str
    tone: Tone = "muted"
    banner: bool = False


@dataclass(frozen=True)
class Verdict:
    """One word, and why."""

    word: str
    tone: Tone
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class ControlRow:
    """One control of a claim."""

    name: str
    passed: bool | None
    detail: str = ""
    value: float | None = None


@dataclass(frozen=True)
class ClaimCard:
    """A claim with its verdict, evidence and controls, the failed ones too."""

    statement: str
    verdict: Verdict
    strength: str
    facts: tuple[tuple[str, str], ...] = ()
    controls: tuple[ControlRow, ...] = ()


@dataclass(frozen=True)
class Facts:
    """Names and values side by side; `prominent` draws them as the page's key figures."""

    items: tuple[tuple[str, str], ...]
    prominent: bool = False


@dataclass(frozen=True)
class Table:
    """A table whose cells are raw values; the column says how they are written."""

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True)
class FigureBlock:
    """A Plotly figure with a caption and the words that stand for it when it cannot be seen."""

    figure: go.Figure
    caption: str
    alt: str
    height_px: int = 340
    name: str = ""
    """What a widget on the same page calls it, to draw new values into it."""


@dataclass(frozen=True)
class OverlaySlider:
    """Sets the opacity of the overlays of all pictures on the page, from the picture alone to the overlay alone."""

    label: str = "Overlay"
    opacity: float = 0.6


@dataclass(frozen=True)
class Thumbnail:
    """A small picture; `mark` says in a word what sets it apart, `slug` is the page it leads to."""

    source: str | None
    alt: str
    caption: str
    mark: str = ""
    slug: str = ""


@dataclass(frozen=True)
class Thumbnails:
    """A wall of small pictures."""

    items: tuple[Thumbnail, ...]


@dataclass(frozen=True)
class Links:
    """Ways on from here."""

    label: str
    links: tuple[Link, ...]


@dataclass(frozen=True)
class File:
    """A file of the run that may be opened or kept: its path there, and what it is called.

    Parameters
    ----------
    path
        Relative to the run's folder.
    text
        What the link says.
    note
        Said after it.
    download
        Whether it is kept rather than opened.

    """

    path: str
    text: str
    note: str = ""
    download: bool = False


@dataclass(frozen=True)
class Files:
    """Files of the run beside the pages."""

    label: str
    files: tuple[File, ...]


@dataclass(frozen=True)
class Side:
    """Blocks beside each other, as many as fit."""

    blocks: tuple[Block, ...]
    narrowest_px: int = 300


@dataclass(frozen=True)
class Details:
    """Blocks that are folded away until asked for."""

    summary: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, eq=False)
class Widget:
    """A part that the reader works with, drawn by the script of its name in the folder ``assets``.

    Parameters
    ----------
    name
        Which script's.
    config
        What it starts from, as plain JSON; every text in it is shown as text.
    label
        What it is, for those who cannot see it.

    """

    name: str
    config: Mapping[str, Any]
    label: str


@dataclass(frozen=True)
class FeatureTable:
    """An index that is searched, filtered and sorted; its rows lead to pages.

    Parameters
    ----------
    columns
        As of a :class:`Table`.
    rows
        Cells; the first is a :class:`Link`.
    filters
        Indices of the columns whose values are offered as filters.
    sort, descending
        The column sorted by at first.

    """

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    filters: tuple[int, ...] = ()
    sort: int = 0
    descending: bool = False
    page_rows: int = 50

    def choices(self, column: int) -> tuple[str, ...]:
        """Return the values of a column, sorted, each once."""
        texts = {self.columns[column].text(row[column]) for row in self.rows}
        return tuple(sorted(texts - {ABSENT}) + sorted(texts & {ABSENT}))

    def select(
        self,
        search: str = "",
        filters: Mapping[int, str] | None = None,
        sort: int | None = None,
        descending: bool | None = None,
    ) -> list[tuple[Cell, ...]]:
        """Return the rows that hold every word of `search` and every filter's value, sorted; absent values come last.

        Parameters
        ----------
        search
            Words, case ignored, each of which must stand somewhere in the row.
        filters
            Column index to the value it must have; an empty value filters nothing.
        sort, descending
            By default the table's own.

        """
        words = search.casefold().split()
        wanted = {column: value for column, value in (filters or {}).items() if value}
        sort = self.sort if sort is None else sort
        descending = self.descending if descending is None else descending
        found: list[tuple[Cell, ...]] = []
        for row in self.rows:
            if any(self.columns[c].text(row[c]) != value for c, value in wanted.items()):
                continue
            if words:
                line = "\n".join(column.text(cell) for column, cell in zip(self.columns, row, strict=True)).casefold()
                if not all(word in line for word in words):
                    continue
            found.append(row)
        present = [row for row in found if sort_key(row[sort]) is not None]
        absent = [row for row in found if sort_key(row[sort]) is None]
        return sorted(present, key=lambda row: _ordered(row[sort]), reverse=descending) + absent


Block: TypeAlias = (
    "Heading | Text | Answer | Stamp | Verdict | ClaimCard | Facts | Table | FigureBlock | OverlaySlider | Thumbnails | Links | Files | Side "
    "| Details | Widget | FeatureTable"
)


@dataclass(frozen=True)
class Page:
    """One page: where it lives, what it is called, what stands on it."""

    slug: str
    title: str
    blocks: tuple[Block, ...] = field(default_factory=tuple)

    def figures(self) -> list[FigureBlock]:
        """Return all figures, in the order they are read."""
        return [block for block in walk(self.blocks) if isinstance(block, FigureBlock)]


def walk(blocks: Sequence[Block]) -> list[Block]:
    """Return all blocks, the nested ones too, in the order they are read."""
    found: list[Block] = []
    for block in blocks:
        found.append(block)
        if isinstance(block, (Side, Details)):
            found += walk(block.blocks)
    return found


def sort_key(cell: Cell) -> float | str | None:
    """Return what a cell is sorted by: its number, else its text in lower case, ``None`` for an absent value."""
    if isinstance(cell, Link):
        text = cell.text
    elif cell is None or cell != cell:  # not-a-number
        return None
    elif isinstance(cell, (bool, int, float)):
        return float(cell)
    else:
        text = cell
    digits = text.rsplit(" ", 1)[-1]
    return float(digits) if isinstance(cell, Link) and digits.isdecimal() else text.casefold()


def _ordered(cell: Cell) -> tuple[int, float, str]:
    """Return a key that puts numbers before texts, so that a mixed column can be sorted at all."""
    key = sort_key(cell)
    return (1, 0.0, key) if isinstance(key, str) else (0, key or 0.0, "")
