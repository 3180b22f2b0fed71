"""The picture of circuits of growing size: what they restore, beside what random ones and neurons do, a panel an ablation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go

from mechinterp.figures import COLOURS, apply_theme

if TYPE_CHECKING:
    from circuits.node_curves import NodeCurve, NodeCurves

_PANELS_A_ROW = 2


def curves_figure(curves: NodeCurves) -> go.Figure:
    """Draw faithfulness over the number of nodes kept of every site, one panel an ablation.

    Parameters
    ----------
    curves
        What was measured.

    Returns
    -------
    go.Figure
        The circuit's line with error nodes kept and its line without them, the neurons', and the random circuits' band.

    """
    from plotly.subplots import make_subplots

    n = len(curves.under)
    rows = -(-n // _PANELS_A_ROW)
    figure = make_subplots(
        rows=rows, cols=min(n, _PANELS_A_ROW), shared_xaxes=True, shared_yaxes=True,
        subplot_titles=[f"others replaced: {u.ablation.name}" for u in curves.under],
        horizontal_spacing=0.06, vertical_spacing=0.16 / rows,
    )  # fmt: skip
    for k, u in enumerate(curves.under):
        at = {"row": k // _PANELS_A_ROW + 1, "col": k % _PANELS_A_ROW + 1}
        for level in (0.0, 1.0):
            figure.add_hline(y=level, line={"color": COLOURS["line"], "width": 1}, **at)
        for trace in _traces(u, curves.possible_edges, legend=k == 0):
            figure.add_trace(trace, **at)
    sizes = [p.most for p in curves.under[0].points]
    ticks = sizes if len(sizes) <= 8 else sizes[:: -(-len(sizes) // 8)]
    figure.update_xaxes(type="log", tickvals=ticks, ticktext=[f"{t:,}" for t in ticks])
    figure.update_xaxes(title="nodes kept of every site, at most", row=rows)
    points = [p for u in curves.under for p in u.points]
    values = [v.value for p in points for v in (p.faithfulness, p.neurons) if v is not None]
    # one that is far off the scale must not press the curves together
    figure.update_yaxes(range=[max(-1.0, min(-0.25, *values) - 0.1), min(2.0, max(1.15, *values) + 0.1)])
    figure.update_yaxes(title="share restored", col=1)
    return apply_theme(figure).update_layout(
        height=110 + 250 * rows,
        margin={"t": 96},
        legend={"orientation": "h", "y": 0.995, "yanchor": "top", "yref": "container", "x": 0},
    )


def _traces(u: NodeCurve, possible: int, *, legend: bool) -> list[go.Scatter]:
    sizes = [p.most for p in u.points]
    found = []
    if any(len(p.random) for p in u.points):
        ranges = [p.random_range for p in u.points]
        found.append(
            go.Scatter(
                x=[*sizes, *reversed(sizes)],
                y=[high for _, high in ranges] + [low for low, _ in reversed(ranges)],
                mode="lines",
                fill="toself",
                fillcolor="rgba(120,120,120,0.22)",
                line={"width": 0},
                hoverinfo="skip",
                name="random nodes, as many (95 % of them)",
                legendgroup="random",
                showlegend=legend,
            )
        )
    lines = [
        ("the circuit", [p.faithfulness.value for p in u.points], COLOURS["blue"], "solid", "circle"),
        ("without error nodes", [p.without_errors for p in u.points], COLOURS["vermilion"], "dash", "x"),
        (
            "as many neurons",
            [float("nan") if p.neurons is None else p.neurons.value for p in u.points],
            COLOURS["orange"],
            "dot",
            "square",
        ),
    ]
    texts = [f"{p.nodes:,} nodes, {p.edges / possible:.2%} of {possible:,} edges" for p in u.points]
    found += [
        go.Scatter(
            x=sizes,
            y=values,
            mode="lines+markers",
            line={"color": colour, "dash": dash},
            marker={"symbol": symbol, "size": 8},
            text=texts,
            hovertemplate="%{y:.2f}<br>%{text}<extra>" + name + "</extra>",
            name=name,
            legendgroup=name,
            showlegend=legend,
        )
        for name, values, colour, dash, symbol in lines
        if not np.isnan(values).all()
    ]
    return found
