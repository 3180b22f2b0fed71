"""Figures of the set experiment: what happens as more features are replaced, beside sets chosen at random."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from experiments.dashboard.charts import Numbers
from mechinterp.figures import COLOURS, as_text, themed_figure

CONTROL_FILL = "rgba(138, 148, 158, 0.28)"
GAP = 0.025
"""Between columns, as a share of the figure's width."""

ROW_DOMAINS = {1: ((0.0, 1.0),), 2: ((0.54, 1.0), (0.0, 0.46))}
"""Where rows of panels stand, from the top, as shares of the figure's height."""


@dataclass(frozen=True)
class Curve:
    """One quantity over the number of features replaced, beside the random sets.

    Parameters
    ----------
    name
        The ablation.
    sizes
        How many features were replaced.
    chosen
        The chosen set's value at each size.
    median, low, high
        Of the random sets: the middle one and the 95 % band.

    """

    name: str
    sizes: Numbers
    chosen: Numbers
    median: Numbers = ()
    low: Numbers = ()
    high: Numbers = ()


def set_size_curves(flipped: Sequence[Curve], delta: Sequence[Curve], chosen_size: float | None = None) -> go.Figure:
    """Draw the share of answers flipped (above) and the logit difference's change (below), one column per ablation.

    All columns of a row share one range, so that heights can be compared across ablations.
    """
    rows: list[tuple[Sequence[Curve], dict[str, Any]]] = []
    if flipped:
        rows.append((flipped, {"title": {"text": "answers flipped"}, "range": [-0.03, 1.05], "tickformat": ".0%"}))
    if delta:
        zero = {"zeroline": True, "zerolinecolor": COLOURS["line"]}
        rows.append((delta, {"title": {"text": "change of logit difference"}, "range": _common_range(delta), **zero}))
    columns = max((len(curves) for curves, _ in rows), default=1)
    width = (1 - GAP * (columns - 1)) / columns
    traces: list[dict[str, Any]] = []
    layout: dict[str, Any] = {
        "legend": {"y": 1.07, "yanchor": "bottom"},
        "margin": {"t": 64},
        "shapes": [],
        "annotations": [],
    }
    for row, (curves, axis) in enumerate(rows):
        bottom_row = row == len(rows) - 1
        domain = list(ROW_DOMAINS[len(rows)][row])
        for column, curve in enumerate(curves):
            number = row * columns + column + 1
            x, y = (f"{letter}{number if number > 1 else ''}" for letter in "xy")
            left = column * (width + GAP)
            traces += _panel(curve, x, y, in_legend=number == 1)
            title = {"title": {"text": "features replaced"}} if bottom_row else {"showticklabels": False}
            layout[f"xaxis{x[1:]}"] = {"domain": [left, left + width], "anchor": y, "rangemode": "tozero", **title}
            first = column == 0
            quiet = {} if first else {"showticklabels": False, "title": {"text": ""}}
            layout[f"yaxis{y[1:]}"] = {**axis, **quiet, "domain": domain, "anchor": x}
            if chosen_size is not None:
                layout["shapes"].append(_upright(chosen_size, x, y))
            if row == 0:
                layout["annotations"].append(
                    {
                        "text": as_text(curve.name), "xref": "paper", "yref": "paper", "x": left + width / 2, "y": 1,
                        "xanchor": "center", "yanchor": "bottom", "showarrow": False, "font": {"size": 14},
                    }
                )  # fmt: skip
    return themed_figure(traces, layout)


def before_after(
    before: Numbers, after: Numbers, names: Sequence[str], target: str, threshold: float | None
) -> go.Figure:
    """Draw each image's probability of the target before and after as a line between two axes.

    A line that crosses one half is drawn in another colour and with open marks: the model's answer has turned there.
    """
    groups: dict[bool, list[int]] = {False: [], True: []}
    for i, (b, a) in enumerate(zip(before, after, strict=False)):
        if b is not None and a is not None:
            groups[(b < 0.5) != (a < 0.5)].append(i)
    styles = {
        False: ("stays", COLOURS["blue"], "circle"),
        True: ("crosses 0.5", COLOURS["vermilion"], "circle-open"),
    }
    traces = []
    for crossed, images in groups.items():
        name, colour, symbol = styles[crossed]
        if images:
            trace = {
                "type": "scatter", "mode": "lines+markers", "name": f"{name} ({len(images)})", "opacity": 0.75,
                "x": ["before", "after", None] * len(images),
                "y": [value for i in images for value in (before[i], after[i], None)],
                "text": [as_text(names[i]) if i < len(names) else "" for i in images for _ in range(3)],
                "line": {"color": colour, "width": 1.2}, "marker": {"symbol": symbol, "size": 6},
                "hovertemplate": "%{text}: %{y:.3f}<extra>%{x}</extra>",
            }  # fmt: skip
            traces.append(trace)
    dotted = {"color": COLOURS["line"], "width": 1, "dash": "dot"}
    level = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": threshold, "y1": threshold, "line": dotted}
    layout = {
        "xaxis": {
            "type": "category", "categoryorder": "array", "categoryarray": ["before", "after"], "range": [-0.25, 1.25],
            "showgrid": False,
        },
        "yaxis": {"title": {"text": as_text(f"p({target})")}, "range": [-0.03, 1.05]},
        "shapes": [] if threshold is None else [level],
        "showlegend": True,
    }  # fmt: skip
    return themed_figure(traces, layout)


def _common_range(curves: Sequence[Curve]) -> list[float]:
    """Return a range that holds every curve and zero, so that no column hides what another shows."""
    lines = [line for curve in curves for line in (curve.chosen, curve.median, curve.low, curve.high)]
    values = [0.0, *(value for line in lines for value in line if value is not None)]
    room = 0.06 * ((max(values) - min(values)) or 1.0)
    return [min(values) - room, max(values) + room]


def _upright(size: float, x: str, y: str) -> dict[str, Any]:
    """Return a dashed line at the tested size."""
    line = {"color": COLOURS["line"], "width": 1, "dash": "dash"}
    return {"type": "line", "xref": x, "yref": f"{y} domain", "x0": size, "x1": size, "y0": 0, "y1": 1, "line": line}


def _panel(curve: Curve, x: str, y: str, *, in_legend: bool) -> list[dict[str, Any]]:
    """Return the random sets' band and median, and the chosen set over them."""
    place: dict[str, Any] = {"type": "scatter", "xaxis": x, "yaxis": y, "showlegend": in_legend}
    traces: list[dict[str, Any]] = []
    inside = [
        (n, lo, hi) for n, lo, hi in zip(curve.sizes, curve.low, curve.high, strict=False) if None not in (n, lo, hi)
    ]
    if inside:
        band = {
            "x": [n for n, _, _ in inside] + [n for n, _, _ in inside[::-1]],
            "y": [hi for _, _, hi in inside] + [lo for _, lo, _ in inside[::-1]],
            "fill": "toself", "fillcolor": CONTROL_FILL, "line": {"width": 0}, "mode": "lines", "hoverinfo": "skip",
            "name": "random sets, 95 %", "legendgroup": "band",
        }  # fmt: skip
        traces.append({**place, **band})
    if curve.median:
        median = {
            "x": list(curve.sizes), "y": list(curve.median), "mode": "lines", "name": "random sets, median",
            "legendgroup": "median", "line": {"color": COLOURS["muted"], "width": 1.5, "dash": "dash"},
            "hovertemplate": "%{x} features: %{y:.3g}<extra>random sets, median</extra>",
        }  # fmt: skip
        traces.append({**place, **median})
    chosen = {
        "x": list(curve.sizes), "y": list(curve.chosen), "mode": "lines+markers", "name": "chosen set",
        "legendgroup": "chosen", "line": {"color": COLOURS["blue"], "width": 2.5}, "marker": {"size": 6},
        "hovertemplate": "%{x} features: %{y:.3g}<extra>chosen set</extra>",
    }  # fmt: skip
    return [*traces, {**place, **chosen}]
