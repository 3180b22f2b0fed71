"""Figures of a run as a whole and of one feature; each takes plain numbers and returns a themed Plotly figure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from experiments.dashboard.formatting import format_value, label_with_unit
from mechinterp.figures import ABLATION_COLOURS, COLOURS, DIVERGING, as_text, class_colour, themed_figure

Numbers = Sequence[float | None]

CLASS_DASHES = ("solid", "solid", "dash", "dot", "dashdot", "longdash", "solid", "dash")
SYMBOLS = ("circle", "diamond", "square", "triangle-up", "x", "cross", "star", "hexagon")
GROUP_COLOURS = ("control", "orange", "sky", "purple", "green", "yellow")
ABLATION_PATTERNS = {"zero": "", "mean": "/", "resample": ".", "towards": "x"}


def probabilities(
    positions: Numbers,
    rows: Sequence[Numbers],
    classes: Sequence[tuple[int, str]],
    position_label: str,
    bands: Sequence[tuple[str, float, float]] = (),
    threshold: float | None = None,
    names: Sequence[str] = (),
) -> go.Figure:
    """Draw every class's probability along the images' position.

    Parameters
    ----------
    positions
        One per image.
    rows
        Per image, the probability of each class.
    classes
        Which classes to draw: place among the outputs, and name.
    position_label
        What a position is, with unit.
    bands
        Name, from, to: shaded behind the lines.
    threshold
        Drawn as a line.
    names
        Of the images, for the hover.

    """
    order = sorted((p, i) for i, p in enumerate(positions) if p is not None and i < len(rows))
    text = _names(names, [i for _, i in order])
    traces = [
        {
            "type": "scatter", "mode": "lines+markers", "name": as_text(name), "text": text,
            "x": [p for p, _ in order],
            "y": [rows[i][index] if index < len(rows[i]) else None for _, i in order],
            "line": {"color": class_colour(index), "width": 2, "dash": CLASS_DASHES[index % len(CLASS_DASHES)]},
            "marker": {"size": 5, "symbol": SYMBOLS[index % len(SYMBOLS)]},
            "hovertemplate": "%{text}<br>%{x:.4g}: %{y:.3f}<extra>" + as_text(name) + "</extra>",
        }
        for index, name in classes
    ]  # fmt: skip
    shapes: list[dict[str, Any]] = [
        {
            "type": "rect", "x0": start, "x1": end, "yref": "y domain", "y0": 0, "y1": 1,
            "fillcolor": COLOURS["band"], "line": {"width": 0}, "layer": "below",
        }
        for _, start, end in bands
    ]  # fmt: skip
    small = {"size": 11, "color": COLOURS["muted"]}
    notes: list[dict[str, Any]] = [
        {
            "text": as_text(name), "x": start, "yref": "y domain", "y": 1, "xanchor": "left", "yanchor": "top",
            "showarrow": False, "font": small,
        }
        for name, start, _ in bands
    ]  # fmt: skip
    if threshold is not None:
        shapes.append(_level(threshold, COLOURS["muted"]))
        notes.append(
            {
                "text": f"threshold {threshold:g}", "xref": "paper", "x": 1, "y": threshold, "xanchor": "right",
                "yanchor": "bottom", "showarrow": False, "font": small,
            }
        )  # fmt: skip
    layout = {
        "xaxis": {"title": {"text": as_text(position_label)}},
        "yaxis": {"title": {"text": "probability"}, "range": [-0.02, 1.08], "tickvals": [0, 0.25, 0.5, 0.75, 1]},
        "legend": {"y": 1.04},
        "margin": {"t": 44},
        "shapes": shapes,
        "annotations": notes,
    }
    return themed_figure(traces, layout)


def histogram(edges: Numbers, counts: Numbers, label: str = "value on an image") -> go.Figure:
    """Draw a histogram from its edges (one more than counts); a bin far above the rest does not hide them.

    The zeros of a sparse feature fill one bin a hundred times over; the axis of counts is logarithmic then.
    """
    bars = [
        (float(a), float(b), float(n))
        for a, b, n in zip(edges[:-1], edges[1:], counts, strict=False)
        if a is not None and b is not None and n is not None
    ]
    trace = {
        "type": "bar",
        "x": [(a + b) / 2 for a, b, _ in bars],
        "y": [n for _, _, n in bars],
        "width": [b - a for a, b, _ in bars],
        "customdata": [[a, b] for a, b, _ in bars],
        "marker": {"color": COLOURS["blue"], "line": {"color": "#ffffff", "width": 1}},
        "hovertemplate": "%{customdata[0]:.3g} to %{customdata[1]:.3g}: %{y}<extra></extra>",
    }
    positive = sorted(n for _, _, n in bars if n > 0)
    crowded = len(positive) > 1 and positive[-1] > 20 * positive[len(positive) // 2]
    counts_axis: dict[str, Any] = {"title": {"text": "count (logarithmic)" if crowded else "count"}}
    if crowded:
        counts_axis |= {"type": "log", "range": [math.log10(0.5), math.log10(2 * positive[-1])], "dtick": 1}
    layout = {"xaxis": {"title": {"text": as_text(label)}}, "yaxis": counts_axis, "showlegend": False, "bargap": 0}
    return themed_figure([trace], layout)


def attribute_scatter(
    attribute: Numbers,
    feature: Numbers,
    label: str,
    unit: str,
    groups: Mapping[str, Sequence[int]],
    names: Sequence[str] = (),
    feature_label: str = "feature value",
) -> go.Figure:
    """Draw a feature's value on each image against an attribute, one mark per group of images."""
    traces = []
    for number, (group, images) in enumerate(groups.items()):
        inside = [i for i in images if i < len(attribute) and i < len(feature)]
        kept = [i for i in inside if attribute[i] is not None and feature[i] is not None]
        if kept:
            trace = {
                "type": "scatter", "mode": "markers", "name": as_text(group), "text": _names(names, kept),
                "x": [attribute[i] for i in kept],
                "y": [feature[i] for i in kept],
                "marker": {
                    "color": COLOURS[GROUP_COLOURS[number % len(GROUP_COLOURS)]],
                    "symbol": SYMBOLS[number % len(SYMBOLS)], "size": 8, "line": {"color": "#ffffff", "width": 0.5},
                },
                "hovertemplate": "%{text}<br>%{x:.4g}, %{y:.3g}<extra>" + as_text(group) + "</extra>",
            }  # fmt: skip
            traces.append(trace)
    layout = {
        "xaxis": {"title": {"text": as_text(label_with_unit(label, unit))}},
        "yaxis": {"title": {"text": as_text(feature_label)}},
        "showlegend": len(traces) > 1,
    }
    return themed_figure(traces, layout)


def class_effects(effects: Mapping[str, Mapping[str, float | None]], classes: Sequence[str]) -> go.Figure:
    """Draw the mean change of each class's logit, one bar per ablation."""
    traces = [
        {
            "type": "bar", "name": as_text(ablation),
            "x": [as_text(name) for name in classes],
            "y": [by_class.get(name) for name in classes],
            "marker": {
                "color": ABLATION_COLOURS.get(ablation, COLOURS["purple"]),
                "pattern": {
                    "shape": ABLATION_PATTERNS.get(ablation, "|"), "fillmode": "overlay",
                    "fgcolor": "#ffffff", "fgopacity": 0.7, "size": 6, "solidity": 0.25,
                },
            },
            "hovertemplate": "%{x}: %{y:+.3g}<extra>" + as_text(ablation) + "</extra>",
        }
        for ablation, by_class in effects.items()
    ]  # fmt: skip
    layout = {
        "xaxis": {"showline": False, "ticks": "", "type": "category"},
        "yaxis": {
            "title": {"text": "mean change of the logit"}, "zeroline": True, "zerolinecolor": COLOURS["control"]
        },
        "barmode": "group",
        "bargap": 0.3,
        "bargroupgap": 0.08,
        "showlegend": True,
    }  # fmt: skip
    return themed_figure(traces, layout)


def matrix(rho: Sequence[Numbers], attributes: Sequence[str], features: Sequence[str]) -> go.Figure:
    """Draw rank correlations of attributes (rows) and features (columns), blue for negative, vermilion for positive."""
    trace = {
        "type": "heatmap", "z": [list(row) for row in rho],
        "x": [as_text(f) for f in features], "y": [as_text(a) for a in attributes],
        "zmin": -1, "zmax": 1, "colorscale": DIVERGING, "xgap": 1, "ygap": 1,
        "colorbar": {
            "title": {"text": "Spearman ρ", "side": "right", "font": {"size": 12}},
            "thickness": 10, "outlinewidth": 0, "tickvals": [-1, 0, 1],
        },
        "hovertemplate": "%{y}, feature %{x}: ρ = %{z:.2f}<extra></extra>",
    }  # fmt: skip
    angle = -60 if len(features) > 20 else 0
    layout = {
        "xaxis": {"title": {"text": "feature"}, "type": "category", "showgrid": False, "tickangle": angle},
        "yaxis": {"autorange": "reversed", "showgrid": False, "type": "category"},
    }
    return themed_figure([trace], layout)


def predicted_against_true(true: Numbers, predicted: Numbers, label: str, unit: str) -> go.Figure:
    """Draw a probe's held-out predictions against the truth, with the line of equality."""
    pairs = [(t, p) for t, p in zip(true, predicted, strict=False) if t is not None and p is not None]
    both = [x for pair in pairs for x in pair] or [0.0, 1.0]
    equality = {
        "type": "scatter", "mode": "lines", "x": [min(both), max(both)], "y": [min(both), max(both)],
        "line": {"color": COLOURS["control"], "dash": "dot", "width": 1}, "hoverinfo": "skip",
    }  # fmt: skip
    points = {
        "type": "scatter", "mode": "markers", "x": [t for t, _ in pairs], "y": [p for _, p in pairs],
        "marker": {"color": COLOURS["blue"], "size": 6},
        "hovertemplate": "true %{x:.4g}, predicted %{y:.4g}<extra></extra>",
    }  # fmt: skip
    layout = {
        "xaxis": {"title": {"text": as_text(label_with_unit(f"true {label}", unit))}},
        "yaxis": {"title": {"text": as_text(label_with_unit("predicted", unit))}},
        "showlegend": False,
    }
    return themed_figure([equality, points], layout)


def shares(names: Sequence[str], values: Numbers, label: str) -> go.Figure:
    """Draw one horizontal bar per name, for shares between 0 and 1."""
    trace = {
        "type": "bar", "orientation": "h", "x": list(values), "y": [as_text(name) for name in names],
        "marker": {"color": COLOURS["blue"]}, "width": 0.6,
        "text": ["" if v is None else format_value(v, "percent") for v in values],
        "textposition": "outside", "cliponaxis": False,
        "hovertemplate": "%{y}: %{x:.1%}<extra></extra>",
    }  # fmt: skip
    layout = {
        "xaxis": {"title": {"text": as_text(label)}, "range": [0, 1.05], "tickformat": ".0%"},
        "yaxis": {
            "autorange": "reversed", "showgrid": False, "type": "category", "ticks": "", "showline": False,
            "ticksuffix": "  ",
        },
        "showlegend": False,
    }  # fmt: skip
    return themed_figure([trace], layout)


def _names(names: Sequence[str], images: Sequence[int]) -> list[str]:
    return [as_text(names[i]) if i < len(names) else f"image {i}" for i in images]


def _level(y: float, colour: str) -> dict[str, Any]:
    """Return a dotted line across the figure."""
    line = {"color": colour, "width": 1, "dash": "dot"}
    return {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": y, "y1": y, "line": line}
