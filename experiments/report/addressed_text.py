"""Pieces of the report's text, each with the place in the report's JSON that it shows, as ``data-path``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.dashboard.formatting import format_value
from experiments.dashboard.markup import Element, Node, element


def said(path: str, text: str, tag: str = "span", css: str = "") -> Element:
    """Return text that stands as such in the JSON."""
    return Element(tag, {**({"class": css} if css else {}), "data-path": path}, (text,))


def number(path: str, value: float | None, form: Any = "number") -> Element:
    """Return a number of the JSON as it is read."""
    return Element("span", {"data-path": path, "data-form": form}, (format_value(value, form),))


def items(path: str, texts: Sequence[str]) -> list[Node]:
    """Return the items of a list."""
    return [said(f"{path}/{at}", text, "li") for at, text in enumerate(texts)]


def listed(path: str, texts: Sequence[str], css: str) -> list[Node]:
    """Return a list; nothing where there is no text."""
    return [element("ul", *items(path, texts), css=css)] if texts else []


def joined(texts: Sequence[str], path: str) -> list[Node]:
    """Return some texts with commas between them."""
    nodes: list[Node] = []
    for at, text in enumerate(texts):
        nodes += [", "] * bool(at) + [said(f"{path}/{at}", text)]
    return nodes


def interval(part: Mapping[str, Any], path: str) -> Element:
    """Return an interval with its note, or the note that says why there is none."""
    if part["interval"] is None:
        return said(f"{path}/interval_note", part["interval_note"] or "none")
    low, high = (number(f"{path}/interval/{at}", end) for at, end in enumerate(part["interval"]))
    note: list[Node] = (
        [" (", said(f"{path}/interval_note", part["interval_note"]), ")"] if part["interval_note"] else []
    )
    return element("span", low, " to ", high, *note)


def facts_list(facts: Sequence[tuple[str, Node]]) -> Element:
    """Return names with their values."""
    return element("dl", *(element("div", element("dt", k), element("dd", v)) for k, v in facts), css="facts")


def pointer(key: object) -> str:
    """Escape a key for a JSON pointer (RFC 6901)."""
    return str(key).replace("~", "~0").replace("/", "~1")
