"""A circuit as one page that opens from disk: words first, then the graph to search, filter and walk through, then figures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files as package_files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.dashboard.markup import Element, Node, element
from experiments.dashboard.single_page import Shown, write_single_page
from mechinterp.files import jsonable

if TYPE_CHECKING:
    from circuits.faithfulness import Faithfulness
    from circuits.graph import Effect, FeatureGraph, GraphEdge, GraphNode

SHOWN_EFFECTS = 24
"""Nodes in the waterfall: those with the largest effect of their own."""
LEAST_SHARE = 0.01
"""And only where that is no smaller a share of the largest: means over images may cancel to nothing."""
SIDED = 0.2
"""Share of its size that a mean effect must reach to have a sign; the script draws nodes by the same share."""

_SIGNS = {1: "drives it up", -1: "drives it down", 0: "without a sign"}


@dataclass(frozen=True)
class NodePicture:
    """Where a node is most active.

    Parameters
    ----------
    source
        A ``data:`` URL.
    caption
        What it shows, in words: also what a screen reader says.
    box
        The place on the picture, as shares of its height and width: top, left, bottom, right.

    """

    source: str
    caption: str
    box: tuple[float, float, float, float] | None = None


def write_circuit_page(
    path: Path,
    title: str,
    lines: Sequence[str],
    graph: FeatureGraph,
    tested: Faithfulness | None = None,
    *,
    pictures: Mapping[str, Sequence[NodePicture]] | None = None,
    columns_named: Mapping[str, str] | None = None,
    edge_words: Mapping[tuple[str, str], str] | None = None,
    figures: Sequence[Shown] = (),
) -> Path:
    """Write the page of a circuit.

    Parameters
    ----------
    path
        Where.
    title, lines
        Its heading, and what can be said, before anything is drawn.
    graph
        The circuit.
    tested
        Its faithfulness; the curve is drawn where there is one.
    pictures
        Id of a node → where it is most active, the most active first.
    columns_named
        Site → words above its column, for readers to whom a site's own name says nothing.
    edge_words
        (source, target) → a word on the edge, such as which of two graphs has it; edges can be filtered by it.
    figures
        More figures, under the graph's own.

    """
    data = page_data(graph, pictures or {}, columns_named or {}, edge_words or {})
    package = package_files("experiments.dashboard")
    text = json.dumps(jsonable(data), ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    script = f"window.mechinterpCircuit = {text};\n" + package.joinpath("static/circuit.js").read_text(encoding="utf-8")
    return write_single_page(
        path,
        title,
        [*_stamp(graph), *lines],
        [*_own_figures(graph, tested), *figures],
        before=_explorer(data),
        style=package.joinpath("assets/circuit.css").read_text(encoding="utf-8"),
        script=script,
    )


def page_data(
    graph: FeatureGraph,
    pictures: Mapping[str, Sequence[NodePicture]],
    columns_named: Mapping[str, str],
    edge_words: Mapping[tuple[str, str], str],
) -> dict[str, Any]:
    """Return what the page's script draws: columns, nodes, edges, and every picture once."""
    sites = list(dict.fromkeys(n.site for n in graph.nodes))
    sources = list(dict.fromkeys(p.source for shown in pictures.values() for p in shown))
    places = {source: k for k, source in enumerate(sources)}
    largest = max((e.size for e in graph.edges), default=0.0)
    return {
        "metric": graph.metric,
        "columns": [columns_named.get(s, graph.metric if s == "metric" else s) for s in sites],
        "pictures": sources,
        "nodes": [
            {
                "id": n.id,
                "column": sites.index(n.site),
                "kind": n.kind,
                "name": n.name,
                "label": node_label(n),
                "what": own_name(n),
                "site": n.site,
                "follows": follows(n),
                "effect": None if n.effect is None else n.effect.mean,
                "size": None if n.effect is None else n.effect.size,
                "says": "" if n.effect is None else effect_text(n.effect),
                "repair": n.self_repair,
                "pictures": [[places[p.source], p.caption, p.box] for p in pictures.get(n.id, ())],
            }
            for n in graph.nodes
        ],
        "edges": [
            {
                "from": e.source,
                "to": e.target,
                "sign": e.sign,
                "size": e.size,
                "share": e.size / largest if largest else 0.0,
                "says": edge_text(e),
                "word": edge_words.get((e.source, e.target), ""),
            }
            for e in sorted(graph.edges, key=lambda e: -e.size)
        ],
    }


def node_label(node: GraphNode) -> str:
    """Return the short name on a node: what it follows, with its unit, or what it is."""
    return follows(node) or own_name(node)


def own_name(node: GraphNode) -> str:
    """Return what a node is called within its column."""
    return node.name.removeprefix(f"{node.site} ")


def follows(node: GraphNode) -> str:
    """Return what a node follows, with its unit; empty where nothing is known."""
    return node.attribute + (f" [{node.unit}]" if node.attribute and node.unit not in {"", "1"} else "")


def effect_text(effect: Effect) -> str:
    """Return an effect with its interval over patients, or with the reason why there is none."""
    interval = effect.note if effect.low is None else f"95 %: {effect.low:+.3g} to {effect.high:+.3g}"
    return f"{effect.mean:+.3g}, size {effect.size:.3g}" + (f" ({interval})" if interval else "")


def edge_text(edge: GraphEdge) -> str:
    """Return both directions in which an edge was measured."""
    return f"noising {effect_text(edge.noising)}, denoising {effect_text(edge.denoising)}"


def _stamp(graph: FeatureGraph) -> list[str]:
    trained = graph.claim.get("trained", True)
    return [] if trained else ["UNTRAINED MODEL: no claim about this circuit is met."]


def _own_figures(graph: FeatureGraph, tested: Faithfulness | None) -> list[Shown]:
    from circuits.graph_figures import waterfall_figure

    figures = []
    effects = [(n.name, n.effect) for n in graph.nodes if n.effect is not None]
    known = [(name, effect.mean) for name, effect in effects if abs(effect.mean) >= SIDED * effect.size]
    if effects and not known:
        figures.append(_sizes(effects, graph.metric))
    most = max((abs(v) for _, v in known), default=0.0)
    spoken = [pair for pair in known if abs(pair[1]) >= LEAST_SHARE * most > 0]
    largest = sorted(spoken, key=lambda pair: -abs(pair[1]))[:SHOWN_EFFECTS]
    if largest:
        figures.append(
            Shown(
                "Effects of the nodes, one by one",
                waterfall_figure([n for n, _ in largest], [v for _, v in largest], metric=graph.metric),
                "Each bar starts where the one before it ended; blue raises the metric when the node is replaced, orange lowers it. "
                "Nodes with less than a hundredth of the largest, and those whose effects cancel over images, are in the table only.",
            )
        )
    if tested is not None and tested.under:
        figures.append(
            Shown(
                "How much of the answer the circuit carries alone",
                tested.figure(),
                "1 is all of it, 0 none. Open marks: random circuits of the same size; stars: as many edges between neurons.",
            )
        )
    return figures


def _sizes(effects: Sequence[tuple[str, Effect]], metric: str) -> Shown:
    """Draw how much each node moves the metric where no mean has a sign, as where images stand in for one another."""
    import plotly.graph_objects as go

    from mechinterp.figures import COLOURS, apply_theme, as_text

    largest = sorted(effects, key=lambda pair: -pair[1].size)[:SHOWN_EFFECTS]
    figure = go.Figure(
        go.Bar(
            x=[effect.size for _, effect in largest], y=[as_text(name) for name, _ in largest], orientation="h",
            marker={"color": COLOURS["muted"]}, hovertemplate="%{y}: %{x:.3g}<extra></extra>",
        )
    )  # fmt: skip
    figure.update_yaxes(autorange="reversed")
    figure.update_xaxes(title=f"size of the effect on {as_text(metric)}, mean over images", rangemode="tozero")
    return Shown(
        "Effects of the nodes, one by one",
        apply_theme(figure).update_layout(height=120 + 24 * len(largest), showlegend=False),
        "How far the metric moves when the node alone is replaced, up in some images and down in others: the mean of them all "
        "has no sign.",
    )


def _explorer(data: Mapping[str, Any]) -> list[Element]:
    edges, nodes = data["edges"], data["nodes"]
    words = sorted({e["word"] for e in edges} - {""})
    controls = [
        _control("circuit-search", "Search names and attributes", element("input", type="search", id="circuit-search", autocomplete="off")),
        _control("circuit-layer", "Layer", _choices("circuit-layer", data["columns"])),
        *([_control("circuit-word", "Edges", _choices("circuit-word", words))] if words else []),
        _control(
            "circuit-least", "Least |effect|, share of the largest edge",
            element("input", type="range", id="circuit-least", min="0", max="1", step="0.01", value="0", autocomplete="off"),
        ),
    ]  # fmt: skip
    how = (
        "Blue, solid: the source drives its target up. Orange, dashed: down. Width grows with the effect. The bar on a node is "
        "what replacing it alone does to the metric (grey, ±: up in some images, down in others). Choose a node to see where it is most active and all that it is tied to; "
        "arrow keys walk along the strongest edges, Escape lets go."
    )
    frame = element(
        "div", element("svg"), css="circuit-frame", id="circuit-frame", role="region", aria_label="Graph of the circuit"
    )
    return [
        element("h2", f"Nodes and edges that drive {data['metric']}"),
        element("p", how, css="text muted"),
        element("div", *controls, css="table-controls circuit-controls"),
        element("p", f"{len(nodes)} nodes, {len(edges)} edges", css="count", role="status", id="circuit-count"),
        frame,
        element("section", css="circuit-details", id="circuit-details", aria_label="The node that is chosen", aria_live="polite"),
        element("details", element("summary", "All nodes as a table"), _node_table(nodes, data["columns"])),
        element("details", element("summary", "All edges as a table"), _edge_table(edges, nodes)),
    ]  # fmt: skip


def _control(identity: str, words: str, control: Element) -> Element:
    return element("div", element("label", words, for_=identity), control)


def _choices(identity: str, words: Sequence[str]) -> Element:
    options = [element("option", w, value=str(k)) for k, w in enumerate(words)]
    return element("select", element("option", "all", value=""), *options, id=identity, autocomplete="off")


def _node_table(nodes: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> Element:
    rows = [
        (n["name"], n["kind"], columns[n["column"]], n["follows"] or "–", n["says"] or "–") for n in nodes
    ]  # fmt: skip
    return _table("Nodes", ("node", "kind", "layer", "follows", "its own effect"), rows)


def _edge_table(edges: Sequence[Mapping[str, Any]], nodes: Sequence[Mapping[str, Any]]) -> Element:
    names = {n["id"]: n["name"] for n in nodes}
    rows = [
        (names[e["from"]], names[e["to"]], _SIGNS[e["sign"]], f"{e['size']:.3g}", e["says"]) for e in edges
    ]  # fmt: skip
    return _table("Edges, the largest first", ("source", "target", "sign", "size", "effects on the metric"), rows)


def _table(caption: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Element:
    head = element("tr", *(element("th", h, scope="col") for h in heads))
    body: list[Node] = [
        element("tr", element("th", row[0], scope="row"), *(element("td", cell) for cell in row[1:])) for row in rows
    ]
    table = element("table", element("caption", caption), element("thead", head), element("tbody", *body), css="table")
    return element("div", table, css="table-frame", role="region", tabindex="0", aria_label=caption)
