"""Figures of a run as a whole and of one feature; each takes plain numbers and returns a themed Plotly figure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from experiments.dashboard.formatting import label_with_unit
from mechinterp.figures import COLOURS, DIVERGING, apply_theme, as_text, class_colour

Numbers = Sequence[float | None]

CLASS_DASHES = ("solid", "solid", "dash", "dot", "dashdot", "longdash", "solid", "dash")
CLASS_SYMBOLS = ("circle", "diamond", "square", "triangle-up", "x", "cross", "star", "hexagon")
ABLATION_COLOURS = {"zero": "control", "mean": "blue", "resample": "orange", "towards": "green"}
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
    figure = go.Figure()
    order = sorted((p, i) for i, p in enumerate(positions) if p is not None and i < len(rows))
    for index, name in classes:
        figure.add_scatter(
            x=[p for p, _ in order],
            y=[rows[i][index] if index < len(rows[i]) else None for _, i in order],
            text=[as_text(names[i]) if i < len(names) else f"image {i}" for _, i in order],
            mode="lines+markers", name=as_text(name),
            line={"color": class_colour(index), "width": 2, "dash": CLASS_DASHES[index % len(CLASS_DASHES)]},
            marker={"size": 5, "symbol": CLASS_SYMBOLS[index % len(CLASS_SYMBOLS)]},
            hovertemplate="%{text}<br>%{x:.4g}: %{y:.3f}<extra>" + as_text(name) + "</extra>",
        )  # fmt: skip
    for name, start, end in bands:
        figure.add_vrect(
            x0=start, x1=end, fillcolor=COLOURS["band"], line_width=0, layer="below",
            annotation_text=as_text(name), annotation_position="top left",
            annotation_font={"size": 11, "color": COLOURS["muted"]},
        )  # fmt: skip
    if threshold is not None:
        figure.add_hline(y=threshold, line={"color": COLOURS["muted"], "width": 1, "dash": "dot"})
        figure.add_annotation(
            text=f"threshold {threshold:g}", xref="paper", x=1, y=threshold, xanchor="right", yanchor="bottom",
            showarrow=False, font={"size": 11, "color": COLOURS["muted"]},
        )  # fmt: skip
    apply_theme(figure)
    figure.update_xaxes(title_text=as_text(position_label))
    figure.update_yaxes(title_text="probability", range=[-0.02, 1.08], tickvals=[0, 0.25, 0.5, 0.75, 1])
    figure.update_layout(legend_y=1.04, margin_t=44)
    return figure


def histogram(edges: Numbers, counts: Numbers, label: str = "value on an image") -> go.Figure:
    """Draw a histogram from its edges (one more than counts); a bin far above the rest does not hide them.

    The zeros of a sparse feature fill one bin a hundred times over; the axis of counts is logarithmic then.
    """
    bars = [(a, b, n) for a, b, n in zip(edges[:-1], edges[1:], counts, strict=False) if None not in (a, b, n)]
    heights = [float(n or 0) for _, _, n in bars]
    figure = go.Figure(
        go.Bar(
            x=[((a or 0.0) + (b or 0.0)) / 2 for a, b, _ in bars],
            y=heights,
            width=[(b or 0.0) - (a or 0.0) for a, b, _ in bars],
            customdata=[[a, b] for a, b, _ in bars],
            marker={"color": COLOURS["blue"], "line": {"color": "#ffffff", "width": 1}},
            hovertemplate="%{customdata[0]:.3g} to %{customdata[1]:.3g}: %{y}<extra></extra>",
            showlegend=False,
        )
    )
    apply_theme(figure)
    positive = sorted(h for h in heights if h > 0)
    crowded = len(positive) > 1 and positive[-1] > 20 * positive[len(positive) // 2]
    figure.update_xaxes(title_text=as_text(label))
    figure.update_yaxes(title_text="count (logarithmic)" if crowded else "count")
    if crowded:
        figure.update_yaxes(type="log", range=[math.log10(0.5), math.log10(2 * positive[-1])], dtick=1)
    return figure


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
    figure = go.Figure()
    for number, (group, images) in enumerate(groups.items()):
        kept = [
            i
            for i in images
            if i < len(attribute) and i < len(feature) and attribute[i] is not None and feature[i] is not None
        ]
        if not kept:
            continue
        figure.add_scatter(
            x=[attribute[i] for i in kept],
            y=[feature[i] for i in kept],
            text=[as_text(names[i]) if i < len(names) else f"image {i}" for i in kept],
            mode="markers", name=as_text(group),
            marker={
                "color": class_colour(number), "symbol": CLASS_SYMBOLS[number % len(CLASS_SYMBOLS)],
                "size": 8, "opacity": 0.8, "line": {"color": "#ffffff", "width": 0.5},
            },
            hovertemplate="%{text}<br>%{x:.4g}, %{y:.3g}<extra>" + as_text(group) + "</extra>",
        )  # fmt: skip
    apply_theme(figure)
    figure.update_xaxes(title_text=as_text(label_with_unit(label, unit)))
    figure.update_yaxes(title_text=as_text(feature_label))
    figure.update_layout(showlegend=len(figure.data) > 1)
    return figure


def class_effects(effects: Mapping[str, Mapping[str, float | None]], classes: Sequence[str]) -> go.Figure:
    """Draw the mean change of each class's logit, one bar per ablation."""
    figure = go.Figure()
    for ablation, by_class in effects.items():
        figure.add_bar(
            x=[as_text(name) for name in classes],
            y=[by_class.get(name) for name in classes],
            name=as_text(ablation),
            marker={
                "color": COLOURS[ABLATION_COLOURS.get(ablation, "purple")],
                "pattern": {"shape": ABLATION_PATTERNS.get(ablation, "|"), "fgcolor": "#ffffff", "size": 5, "solidity": 0.25},
            },
            hovertemplate="%{x}: %{y:+.3g}<extra>" + as_text(ablation) + "</extra>",
        )  # fmt: skip
    apply_theme(figure)
    figure.update_yaxes(title_text="mean change of the logit", zeroline=True, zerolinecolor=COLOURS["control"])
    figure.update_xaxes(showline=False, ticks="")
    figure.update_layout(barmode="group", bargap=0.3, bargroupgap=0.08, showlegend=True)
    return figure


def matrix(rho: Sequence[Numbers], attributes: Sequence[str], features: Sequence[str]) -> go.Figure:
    """Draw rank correlations of attributes (rows) and features (columns), blue for negative, vermilion for positive."""
    figure = go.Figure(
        go.Heatmap(
            z=rho, x=[as_text(f) for f in features], y=[as_text(a) for a in attributes],
            zmin=-1, zmax=1, colorscale=DIVERGING, xgap=1, ygap=1,
            colorbar={"title": {"text": "Spearman ρ", "side": "right"}, "thickness": 10, "outlinewidth": 0, "tickvals": [-1, 0, 1]},
            hovertemplate="%{y}, feature %{x}: ρ = %{z:.2f}<extra></extra>",
        )
    )  # fmt: skip
    apply_theme(figure)
    figure.update_xaxes(
        title_text="feature", type="category", showgrid=False, tickangle=-60 if len(features) > 20 else 0
    )
    figure.update_yaxes(autorange="reversed", showgrid=False, type="category")
    return figure


def predicted_against_true(true: Numbers, predicted: Numbers, label: str, unit: str) -> go.Figure:
    """Draw a probe's held-out predictions against the truth, with the line of equality."""
    pairs = [(t, p) for t, p in zip(true, predicted, strict=False) if t is not None and p is not None]
    both = [x for pair in pairs for x in pair] or [0.0, 1.0]
    figure = go.Figure()
    figure.add_scatter(
        x=[min(both), max(both)], y=[min(both), max(both)], mode="lines", hoverinfo="skip", showlegend=False,
        line={"color": COLOURS["control"], "dash": "dot", "width": 1},
    )  # fmt: skip
    figure.add_scatter(
        x=[t for t, _ in pairs], y=[p for _, p in pairs], mode="markers", showlegend=False,
        marker={"color": COLOURS["blue"], "size": 6, "opacity": 0.75},
        hovertemplate="true %{x:.4g}, predicted %{y:.4g}<extra></extra>",
    )  # fmt: skip
    apply_theme(figure)
    unit = f" [{unit}]" if unit and unit != "1" else ""
    figure.update_xaxes(title_text=as_text(f"true {label}{unit}"))
    figure.update_yaxes(title_text=as_text(f"predicted{unit}"))
    return figure


def shares(names: Sequence[str], values: Numbers, label: str) -> go.Figure:
    """Draw one horizontal bar per name, for shares between 0 and 1."""
    figure = go.Figure(
        go.Bar(
            x=list(values), y=[as_text(name) for name in names], orientation="h", marker_color=COLOURS["blue"], width=0.6,
            text=["" if v is None else f"{100 * v:.0f} %" for v in values], textposition="outside", cliponaxis=False,
            hovertemplate="%{y}: %{x:.1%}<extra></extra>",
        )
    )  # fmt: skip
    apply_theme(figure)
    figure.update_xaxes(title_text=as_text(label), range=[0, 1.05], tickformat=".0%")
    figure.update_yaxes(autorange="reversed", showgrid=False, type="category", ticks="", showline=False)
    return figure
