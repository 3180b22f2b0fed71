"""Elements as HTML text; every string is escaped here, and nowhere else is HTML written."""

from __future__ import annotations

from collections.abc import Callable
from html import escape

from experiments.dashboard.markup import Element, Node
from experiments.dashboard.page import FeatureTable, FigureBlock

VOID = {"img", "br", "hr", "input", "link", "meta"}


def to_html(node: Node, leaf: Callable[[FigureBlock | FeatureTable], Element]) -> str:
    """Return a node as HTML.

    Parameters
    ----------
    node
        Plain strings are escaped.
    leaf
        Gives the element that stands in the page for a figure or a feature table, to be filled by the page's script.

    """
    if isinstance(node, str):
        return escape(node)
    if not isinstance(node, Element):
        node = leaf(node)
    attributes = "".join(f' {escape(name)}="{escape(value)}"' for name, value in node.attributes.items())
    if node.tag in VOID:
        return f"<{node.tag}{attributes}>"
    return f"<{node.tag}{attributes}>{''.join(to_html(child, leaf) for child in node.children)}</{node.tag}>"
