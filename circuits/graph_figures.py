"""Pictures of circuits: the layered graph, faithfulness over size, effects as a waterfall."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go

from mechinterp.figures import ABLATION_COLOURS, COLOURS, apply_theme, as_text

if TYPE_CHECKING:
    from circuits.faithfulness import Faithfulness
    from circuits.graph import FeatureGraph, GraphEdge, GraphNode

# shape and colour both say what a node is
_NODES = {
    "neuron": ("circle", COLOURS["blue"]),
    "channel": ("circle", COLOURS["blue"]),
    "feature": ("circle", COLOURS["blue"]),
    "head": ("diamond", COLOURS["purple"]),
    "layer": ("square", COLOURS["orange"]),
    "error": ("x", COLOURS["control"]),
    "metric": ("star", COLOURS["ink"]),
}
_WIDTHS = (1.0, 2.5, 4.5)
_SHORT = 32


def graph_figure(
    graph: FeatureGraph, *, most_edges: int = 200, columns_named: Mapping[str, str] | None = None
) -> go.Figure:
    """Draw a graph in layers, inputs on the left, the metric on the right.

    Parameters
    ----------
    graph
        The graph.
    most_edges
        How many edges to draw at most, the largest; the title says what is left out.
    columns_named
        Site → words under its column, for readers to whom a site's own name says nothing.

    Returns
    -------
    go.Figure
        Blue edges drive their target up, orange dashed ones down; width grows with the effect in three steps. Every node
        and every edge says its effects when pointed at; the legend hides kinds of nodes.

    """
    edges = sorted(graph.edges, key=lambda e: -e.size)[:most_edges]
    places = _places(graph, edges)
    figure = go.Figure()
    largest = max((e.size for e in edges), default=1.0)
    for sign, colour, dash, word in (
        (1, COLOURS["blue"], "solid", "drives its target up"),
        (-1, COLOURS["vermilion"], "dash", "drives its target down"),
        (0, COLOURS["control"], "dot", "without a sign"),
    ):
        for step, width in enumerate(_WIDTHS):
            chosen = [e for e in edges if e.sign == sign and _step(e.size / (largest or 1)) == step]
            if chosen:
                figure.add_scatter(
                    x=[v for e in chosen for v in (places[e.source][0], places[e.target][0], None)],
                    y=[v for e in chosen for v in (places[e.source][1], places[e.target][1], None)],
                    mode="lines",
                    line={"color": colour, "dash": dash, "width": width},
                    opacity=0.55,
                    name=word,
                    legendgroup=word,
                    showlegend=not any(t.legendgroup == word for t in figure.data),
                    hoverinfo="skip",
                )
    if edges:
        # what an edge says is held by a mark on it, two fifths along, where fewer edges cross than in the middle
        along = [np.add(np.multiply(0.6, places[e.source]), np.multiply(0.4, places[e.target])) for e in edges]
        figure.add_scatter(
            x=[float(p[0]) for p in along],
            y=[float(p[1]) for p in along],
            mode="markers",
            marker={"size": 9, "opacity": 0},
            text=[_edge_text(graph, e) for e in edges],
            hovertemplate="%{text}<extra></extra>",
            showlegend=False,
        )
    for kind in dict.fromkeys(n.kind for n in graph.nodes):
        _add_nodes(figure, graph, [n for n in graph.nodes if n.kind == kind], kind, places)
    columns = list(dict.fromkeys(n.site for n in graph.nodes))
    figure.update_xaxes(
        tickvals=list(range(len(columns))),
        ticktext=[as_text((columns_named or {}).get(c, c)) if c != "metric" else "" for c in columns],
        showgrid=False,
        range=[-0.35, len(columns) - 0.45],
    )
    figure.update_yaxes(visible=False)
    most = max(sum(n.site == c for n in graph.nodes) for c in columns)
    left = len(graph.edges) - len(edges)
    note = f" · {left} smaller edges not drawn" if left else ""
    return apply_theme(figure).update_layout(
        title={"text": f"Circuit of {as_text(graph.metric)}{note}", "y": 0.985, "yanchor": "top"},
        height=max(380, 150 + 46 * most),
        margin={"t": 92},
        hoverdistance=12,
    )


def _places(graph: FeatureGraph, edges: Sequence[GraphEdge]) -> dict[str, tuple[float, float]]:
    """Return where nodes stand: a column a site, in each the order that keeps edges short."""
    columns = list(dict.fromkeys(n.site for n in graph.nodes))
    height = {n.id: 0.5 for n in graph.nodes}
    members = {c: [n.id for n in graph.nodes if n.site == c] for c in columns}
    for ids in members.values():
        height |= {node: (k + 1) / (len(ids) + 1) for k, node in enumerate(ids)}
    near: dict[str, list[str]] = {n.id: [] for n in graph.nodes}
    for e in edges:
        near[e.source].append(e.target)
        near[e.target].append(e.source)
    for _ in range(8):
        for ids in members.values():
            centre = {i: np.mean([height[j] for j in near[i]]) if near[i] else height[i] for i in ids}
            ids.sort(key=lambda i: float(centre[i]))
            height |= {node: (k + 1) / (len(ids) + 1) for k, node in enumerate(ids)}
    return {n.id: (float(columns.index(n.site)), height[n.id]) for n in graph.nodes}


def _step(share: float) -> int:
    return 0 if share < 0.2 else 1 if share < 0.6 else 2


def _label(node: GraphNode) -> str:
    text = node.attribute or node.name.removeprefix(f"{node.site} ")
    shown = text if len(text) <= _SHORT else text[: _SHORT - 1] + "…"
    return as_text(shown + (f" [{node.unit}]" if node.attribute and node.unit not in {"", "1"} else ""))


def _add_nodes(
    figure: go.Figure,
    graph: FeatureGraph,
    nodes: Sequence[GraphNode],
    kind: str,
    places: dict[str, tuple[float, float]],
) -> None:
    symbol, colour = _NODES.get(kind, ("circle", COLOURS["green"]))
    figure.add_scatter(
        x=[places[n.id][0] for n in nodes],
        y=[places[n.id][1] for n in nodes],
        mode="markers+text",
        marker={
            "symbol": [f"{symbol}-open" if n.self_repair else symbol for n in nodes],
            "size": 16 if kind == "metric" else 12,
            "color": colour,
            "line": {"color": COLOURS["paper"] if not any(n.self_repair for n in nodes) else colour, "width": 2},
        },
        text=["" if n.kind == "metric" else _label(n) for n in nodes],
        textposition="top center",
        textfont={"size": 11},
        cliponaxis=False,
        customdata=[[_node_text(n)] for n in nodes],
        hovertemplate="%{customdata[0]}<extra></extra>",
        name=kind,
    )


def _node_text(node: GraphNode) -> str:
    lines = [f"<b>{as_text(node.name)}</b>", as_text(f"{node.kind} at {node.site}")]
    if node.attribute:
        lines.append(as_text(f"follows {node.attribute} [{node.unit}]"))
    if node.self_repair:
        lines.append("silent until another node is changed (self-repair)")
    if node.effect is not None:
        interval = node.effect.note if node.effect.low is None else f"{node.effect.low:+.3g} to {node.effect.high:+.3g}"
        lines.append(f"its own effect {node.effect.mean:+.3g} ({as_text(interval)})")
    return "<br>".join(lines)


def _edge_text(graph: FeatureGraph, edge: GraphEdge) -> str:
    names = " → ".join(as_text(graph.node(i).name) for i in (edge.source, edge.target))
    parts = [names]
    for word, effect in (("noising", edge.noising), ("denoising", edge.denoising)):
        interval = effect.note if effect.low is None else f"{effect.low:+.3g} to {effect.high:+.3g}"
        parts.append(f"{word}: mean {effect.mean:+.3g} ({as_text(interval)}), size {effect.size:.3g}")
    return "<br>".join(parts)


def faithfulness_figure(found: Faithfulness) -> go.Figure:
    """Draw faithfulness over the number of edges, one line an ablation, beside random circuits of the full size."""
    figure = go.Figure()
    figure.add_hline(y=1, line={"color": COLOURS["line"], "width": 1})
    figure.add_hline(y=0, line={"color": COLOURS["line"], "width": 1})
    marks = {"zero": ("dot", "x"), "mean": ("solid", "circle"), "resample": ("dash", "square")}
    for k, u in enumerate(found.under):
        colour = ABLATION_COLOURS.get(u.ablation.name, COLOURS["purple"])
        dash, symbol = marks.get(u.ablation.name, ("dashdot", "diamond"))
        sizes = sorted(u.curve)
        figure.add_scatter(
            x=sizes,
            y=[u.curve[n] for n in sizes],
            mode="lines+markers",
            line={"color": colour, "dash": dash},
            marker={"symbol": symbol, "size": 8},
            name=u.ablation.name,
            hovertemplate="%{x} edges: %{y:.2f}<extra></extra>",
        )
        if len(u.random):
            low, high = u.random_interval
            middle = float(np.median(u.random))
            figure.add_scatter(
                x=[found.edges * (1.06 + 0.05 * k)],
                y=[middle],
                error_y={"type": "data", "symmetric": False, "array": [high - middle], "arrayminus": [middle - low]},
                mode="markers",
                marker={"symbol": f"{symbol}-open", "color": colour, "size": 8},
                name=f"random circuits, {u.ablation.name}",
                hovertemplate=f"random: {low:.2f} to {high:.2f}<extra></extra>",
            )
        if u.neurons is not None:
            figure.add_scatter(
                x=[found.edges],
                y=[u.neurons.value],
                mode="markers",
                marker={"symbol": "star", "color": colour, "size": 11},
                name=f"neuron basis, {u.ablation.name}",
            )
    figure.update_xaxes(type="log", title=f"edges kept, of {found.possible} possible", dtick=1)
    figure.update_yaxes(title="faithfulness")
    return apply_theme(figure).update_layout(
        legend={"orientation": "v", "x": 1.02, "xanchor": "left", "y": 1, "yanchor": "top"}
    )


def waterfall_figure(names: Sequence[str], values: Sequence[float], *, metric: str, total: bool = False) -> go.Figure:
    """Draw effects one after the other, each starting where the one before it ended.

    Parameters
    ----------
    names, values
        One bar each; what is exactly 0 has none.
    metric
        What the effects are on.
    total
        Add a last bar with the sum: for decompositions, whose parts add up to the metric.

    """
    spoken = [(name, value) for name, value in zip(names, values, strict=True) if value]
    names, values = [n for n, _ in spoken], [v for _, v in spoken]
    shown = [*map(as_text, names), *(["sum"] if total else [])]
    bars: dict[str, Any] = {
        "y": shown,
        "x": [*values, *([0.0] if total else [])],
        "measure": ["relative"] * len(values) + (["total"] if total else []),
        "orientation": "h",
        "increasing": {"marker": {"color": COLOURS["blue"]}},
        "decreasing": {"marker": {"color": COLOURS["vermilion"]}},
        "totals": {"marker": {"color": COLOURS["ink"]}},
        "connector": {"line": {"color": COLOURS["line"], "width": 1}},
        "hovertemplate": "%{y}: %{delta:+.3g}<extra></extra>",
    }
    figure = go.Figure(go.Waterfall(**bars))
    figure.update_yaxes(autorange="reversed")
    figure.update_xaxes(title=f"{as_text(metric)}" if total else f"effect on {as_text(metric)}, mean over images")
    return apply_theme(figure).update_layout(height=120 + 24 * len(shown), showlegend=False)
