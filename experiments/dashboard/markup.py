"""From blocks to elements: the one place that decides how a block is marked up, for both renderers.

An element's children that are plain strings are text and are escaped by whoever draws them; there is no way to write
markup as a string.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import singledispatch
from pathlib import PurePosixPath
from typing import TypeAlias
from urllib.parse import quote

from experiments.dashboard.formatting import format_value
from experiments.dashboard.page import (
    Answer,
    Block,
    Cell,
    ClaimCard,
    Column,
    Details,
    Facts,
    FeatureTable,
    FigureBlock,
    Files,
    Heading,
    Link,
    Links,
    OverlaySlider,
    Page,
    Side,
    Stamp,
    Table,
    Text,
    Thumbnails,
    Verdict,
    Widget,
)
from mechinterp.files import jsonable

Node: TypeAlias = "Element | str | FigureBlock | FeatureTable"

SLIDER = "overlay-opacity"
"""Id of the slider, which each renderer connects to the pictures."""

MARKS = {"good": "✓", "bad": "✕", "caution": "!", "plain": "", "muted": ""}
"""A sign beside each coloured word, so that no meaning hangs on the colour."""


@dataclass(frozen=True)
class Element:
    """An HTML element; figures and feature tables among its children are drawn by each renderer in its own way."""

    tag: str
    attributes: dict[str, str] = field(default_factory=dict)
    children: tuple[Node, ...] = ()


def element(tag: str, *children: Node, css: str = "", **attributes: str) -> Element:
    """Return an element; ``css`` is its class, ``aria_label`` becomes ``aria-label``."""
    named = {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items()}
    return Element(tag, ({"class": css} if css else {}) | named, children)


def href(slug: str) -> str:
    """Return a page's address; a hash, so that it works from disk and keeps every other address relative."""
    return f"#/{slug}"


def page_elements(page: Page) -> Element:
    """Return a page as one ``article``; its title is the first heading and takes the focus when the page opens."""
    stamps = [block for block in page.blocks if isinstance(block, Stamp)]
    rest = [block for block in page.blocks if not isinstance(block, Stamp)]
    banners = [draw(block) for block in stamps if block.banner]
    pills = element("p", *spaced([draw(block) for block in stamps if not block.banner]), css="stamps")
    title = element("h1", page.title, tabindex="-1", id="title")
    return element("article", *banners, pills, title, *(draw(block) for block in rest), css="page")


def spaced(nodes: Iterable[Node]) -> list[Node]:
    """Put a space between nodes, so that they read as words without any style sheet."""
    joined: list[Node] = []
    for node in nodes:
        joined += [" ", node] if joined else [node]
    return joined


@singledispatch
def draw(block: Block) -> Node:
    """Return a block as an element."""
    raise TypeError(f"no markup for a {type(block).__name__}")


@draw.register
def _(block: Heading) -> Node:
    return element(f"h{block.level}", block.text)


@draw.register
def _(block: Text) -> Node:
    return element("div", *(element("p", p) for p in block.paragraphs), css=f"text {block.tone}")


@draw.register
def _(block: Answer) -> Node:
    lines = element("ol", *(element("li", line) for line in block.lines), css="answer-lines")
    return element("section", element("p", block.question, css="question"), lines, css="answer", aria_label="Answer")


@draw.register
def _(block: Stamp) -> Node:
    if block.banner:
        return element("p", element("strong", block.text), css=f"banner {block.tone}", role="note")
    return element("span", block.text, css=f"stamp {block.tone}")


@draw.register
def _(block: Verdict) -> Node:
    reasons = [element("ul", *(element("li", r) for r in block.reasons), css="reasons")] if block.reasons else []
    return element("div", word(block.word, block.tone), *reasons, css="verdict-block")


@draw.register
def _(block: ClaimCard) -> Node:
    parts: list[Node] = [
        element(
            "p", word(block.verdict.word, block.verdict.tone), " ", element("span", block.strength, css="stamp muted")
        ),
        element("p", block.statement, css="statement"),
    ]
    if block.verdict.reasons:
        parts.append(element("ul", *(element("li", r) for r in block.verdict.reasons), css="reasons"))
    if block.facts:
        parts.append(draw(Facts(block.facts)))
    if block.controls:
        rows = [
            element("li", word(*_PASSED[control.passed]), " ", control.name, *_detail(control.detail, control.value))
            for control in block.controls
        ]
        parts += [element("p", "Controls", css="label"), element("ul", *rows, css="controls")]
    return element("section", *parts, css=f"card claim {block.verdict.tone}", aria_label=f"Claim, {block.verdict.word}")


@draw.register
def _(block: Facts) -> Node:
    pairs = [element("div", element("dt", name), element("dd", value)) for name, value in block.items]
    return element("dl", *pairs, css="facts prominent" if block.prominent else "facts")


@draw.register
def _(block: Table) -> Node:
    head = element("tr", *(heading_cell(column) for column in block.columns))
    rows = [table_row(block.columns, row) for row in block.rows]
    table = element(
        "table", element("caption", block.caption), element("thead", head), element("tbody", *rows), css="table"
    )
    # A region that scrolls must be reachable by keyboard.
    return element("div", table, css="table-frame", role="region", tabindex="0", aria_label=block.caption)


@draw.register
def _(block: FigureBlock) -> Node:
    return element("figure", block, element("figcaption", block.caption), css="figure")


@draw.register
def _(block: OverlaySlider) -> Node:
    slider = element(
        "input", type="range", id=SLIDER, min="0", max="1", step="0.05", value=f"{block.opacity:g}", autocomplete="off"
    )
    return element("div", element("label", block.label, for_=SLIDER), slider, css="overlay-slider")


@draw.register
def _(block: Thumbnails) -> Node:
    items = []
    for item in block.items:
        picture: Node = (
            element("img", src=item.source, alt=item.alt, loading="lazy")
            if item.source
            else element("span", "no picture", css="no-picture")
        )
        if item.slug:
            picture = element("a", picture, href=href(item.slug))
        mark = [element("span", item.mark, css="mark")] if item.mark else []
        items.append(
            element(
                "li",
                picture,
                element("span", item.caption, css="caption"),
                *mark,
                css="marked" if item.mark else "plain",
            )
        )
    return element("ul", *items, css="thumbnails")


@draw.register
def _(block: Links) -> Node:
    links = [element("a", link.text, href=href(link.slug)) for link in block.links]
    return element("nav", *spaced(links), css="links", aria_label=block.label)


@draw.register
def _(block: Files) -> Node:
    items = []
    for file in block.files:
        # quoted, so that no name can be read as an address of another kind
        address = f"files/{quote(file.path)}"
        keeping = {"download": PurePosixPath(file.path).name} if file.download else {}
        note = [element("span", f" {file.note}", css="note")] if file.note else []
        items.append(element("li", element("a", file.text, href=address, **keeping), *note))
    return element("ul", *items, css="files", aria_label=block.label)


@draw.register
def _(block: Side) -> Node:
    narrowest = f"repeat(auto-fill, minmax(min({block.narrowest_px}px, 100%), 1fr))"
    return element("div", *(draw(b) for b in block.blocks), css="side", style=f"grid-template-columns: {narrowest}")


@draw.register
def _(block: Details) -> Node:
    return element("details", element("summary", block.summary), *(draw(b) for b in block.blocks))


@draw.register
def _(block: Widget) -> Node:
    return element(
        "div", css=f"widget {block.name}", role="group", aria_label=block.label, data_widget=block.name,
        data_config=json.dumps(jsonable(block.config), ensure_ascii=False),
    )  # fmt: skip


@draw.register
def _(block: FeatureTable) -> Node:
    return block


def heading_cell(column: Column) -> Element:
    """Return a column's heading."""
    explained = {"title": column.explanation} if column.explanation else {}
    return element("th", column.heading, css="number" if column.numeric else "", scope="col", **explained)


def table_row(columns: tuple[Column, ...], row: tuple[Cell, ...]) -> Element:
    """Return a row; its first cell heads it."""
    cells = []
    for i, (column, cell) in enumerate(zip(columns, row, strict=True)):
        text = column.text(cell)
        content: Node = element("a", text, href=href(cell.slug)) if isinstance(cell, Link) else text
        css = "number" if column.numeric else ""
        cells.append(element("th", content, css=css, scope="row") if i == 0 else element("td", content, css=css))
    return element("tr", *cells)


_PASSED: dict[bool | None, tuple[str, str]] = {
    True: ("passed", "good"),
    False: ("failed", "bad"),
    None: ("not run", "caution"),
}


def word(text: str, tone: str) -> Element:
    """Return a verdict's word with its sign."""
    sign = MARKS.get(tone, "")
    signs: list[Node] = [element("span", sign, aria_hidden="true"), " "] if sign else []
    return element("span", *signs, text, css=f"verdict {tone}")


def _detail(detail: str, value: float | None) -> list[Node]:
    text = detail or ("" if value is None else f"value {format_value(value)}")
    return [element("span", f": {text}", css="detail")] if text else []
