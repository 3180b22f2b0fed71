"""Elements as Dash components, and the feature table whose rows the server selects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dash import dcc, html

from experiments.dashboard.markup import Node, heading_cell, table_row
from experiments.dashboard.page import FeatureTable, FigureBlock

GRAPH_CONFIG: Any = {"displaylogo": False, "displayModeBar": False, "responsive": True, "showTips": False}
RENAMED = {"class": "className", "for": "htmlFor", "tabindex": "tabIndex", "colspan": "colSpan"}


def to_dash(node: Node) -> Any:
    """Return a node as Dash components; strings stay strings, which React escapes."""
    if isinstance(node, str):
        return node
    if isinstance(node, FigureBlock):
        graph = dcc.Graph(figure=node.figure, config=GRAPH_CONFIG, style={"height": "100%"}, responsive=True)
        label: dict[str, Any] = {"role": "img", "aria-label": node.alt}
        if node.name:
            label["data-plot"] = node.name
        return html.Div(graph, className="plot", style={"height": f"{node.height_px}px"}, **label)
    if isinstance(node, FeatureTable):
        return _feature_table(node)
    if node.tag == "input":  # only Dash's own inputs report their value
        numbers: dict[str, Any] = {name: float(node.attributes[name]) for name in ("min", "max", "step", "value")}
        return dcc.Input(id=node.attributes["id"], type="range", **numbers)
    component = getattr(html, node.tag.capitalize())
    properties: dict[str, Any] = {RENAMED.get(name, name): value for name, value in node.attributes.items()}
    if "style" in properties:
        properties["style"] = _style(properties["style"])
    allowed = component().available_properties
    properties = {k: v for k, v in properties.items() if k in allowed or k.startswith(("aria-", "data-"))}
    return component([to_dash(child) for child in node.children] or None, **properties)


def _style(text: str) -> dict[str, str]:
    """Turn ``grid-template-columns: x`` into what React wants."""
    name, _, value = text.partition(":")
    first, *rest = name.strip().split("-")
    return {first + "".join(part.capitalize() for part in rest): value.strip()}


def first_state(table: FeatureTable) -> dict[str, Any]:
    """Return how a table is sorted and filtered at first."""
    return {"sort": table.sort, "descending": table.descending, "page": 0, "filters": {}}


def table_state(table: FeatureTable, state: Mapping[str, Any], clicked: Any) -> dict[str, Any]:
    """Return what a click makes of a table's sorting, filters and place.

    Parameters
    ----------
    table
        The table.
    state
        ``sort``, ``descending``, ``page``, and ``filters`` from a column (as text, for the state travels as JSON) to the
        value it must have.
    clicked
        The component that was used: a column's heading, a filter's value, a step of the pager, the search, or nothing.

    """
    part = clicked.get("part") if isinstance(clicked, dict) else None
    if part == "table-sort":
        column = int(clicked["column"])
        again = state["sort"] == column
        descending = not state["descending"] if again else table.columns[column].numeric
        return {**state, "sort": column, "descending": descending, "page": 0}
    if part == "table-filter":
        column = int(clicked["column"])
        choice = ["", *table.choices(column)][int(clicked["choice"])]
        return {**state, "filters": {**state["filters"], str(column): choice}, "page": 0}
    if part == "table-page":
        return {**state, "page": max(0, int(state["page"]) + int(clicked["step"]))}
    return {**state, "page": 0}


def table_body(table: FeatureTable, search: str, state: Mapping[str, Any]) -> list[Any]:
    """Return the filters, and the selected rows of a feature table with their count and pager."""
    filters = {int(column): value for column, value in state["filters"].items()}
    rows = table.select(search, filters, int(state["sort"]), bool(state["descending"]))
    last = max(0, -(-len(rows) // table.page_rows) - 1)
    page = min(int(state["page"]), last)
    first = page * table.page_rows
    shown = rows[first : first + table.page_rows]
    where = f" · showing {first + 1} to {first + len(shown)}" if shown else ""
    body = html.Tbody([to_dash(table_row(table.columns, row)) for row in shown])
    drawn = html.Table([html.Caption(table.caption), html.Thead(_heads(table, state)), body], className="table")
    steps = [("← Previous", -1, page == 0), ("Next →", 1, page == last)] if last else []
    pager = [
        html.Button(text, id={"part": "table-page", "step": step}, type="button", disabled=disabled)
        for text, step, disabled in steps
    ]
    region: dict[str, Any] = {"role": "region", "tabIndex": "0", "aria-label": table.caption}
    return [
        html.Div(
            [_filter(table, index, filters.get(index, "")) for index in table.filters], className="table-controls"
        ),
        html.P(f"{len(rows):,} of {len(table.rows):,}{where}", className="count", role="status"),
        html.Div(drawn, className="table-frame", **region),
        html.Div(pager, className="pager"),
    ]


def _heads(table: FeatureTable, state: Mapping[str, Any]) -> Any:
    heads = []
    for i, column in enumerate(table.columns):
        cell = to_dash(heading_cell(column))
        current = state["sort"] == i
        arrow = (" ▾" if state["descending"] else " ▴") if current else ""
        cell.children = html.Button(column.heading + arrow, id={"part": "table-sort", "column": i}, type="button")
        if current:
            setattr(cell, "aria-sort", "descending" if state["descending"] else "ascending")
        heads.append(cell)
    return html.Tr(heads)


def _filter(table: FeatureTable, index: int, chosen: str) -> Any:
    """Return a column's values as buttons; Dash's own dropdown and radio buttons do not work with screen readers."""
    buttons = []
    for number, choice in enumerate(["", *table.choices(index)]):
        pressed: dict[str, Any] = {"aria-pressed": "true" if choice == chosen else "false"}
        name = {"part": "table-filter", "column": index, "choice": number}
        buttons.append(html.Button(choice or "all", id=name, type="button", className="chip", **pressed))
    return html.Fieldset([html.Legend(table.columns[index].label), *buttons])


def _feature_table(table: FeatureTable) -> Any:
    """Return a feature table's controls; the server selects, so that a browser never holds more than one page of rows."""
    state = first_state(table)
    # not debounced: Dash does not clear the timer of an input that has left the page, and its end is an error there
    search = dcc.Input(id="table-search", type="text", value="")
    return html.Div(
        [
            dcc.Store(id="table-state", data=state),
            html.Div(html.Div([html.Label("Search", htmlFor="table-search"), search]), className="table-controls"),
            html.Div(table_body(table, "", state), id="table-body"),
        ],
        className="feature-table",
    )
