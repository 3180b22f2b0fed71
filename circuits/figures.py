"""Pictures of effects and of the set experiment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float
from numpy.typing import NDArray

from mechinterp.figures import ABLATION_COLOURS, COLOURS, apply_theme, class_colour

if TYPE_CHECKING:
    from circuits.set_results import BeforeAfter, Curve, DirectionResult

# a mark, a line style and a colour each: none of them alone carries the meaning
_MARKS = {
    "zero": (ABLATION_COLOURS["zero"], "dot", "x"),
    "mean": (ABLATION_COLOURS["mean"], "solid", "circle"),
    "resample": (ABLATION_COLOURS["resample"], "dash", "square"),
    "towards": (ABLATION_COLOURS["towards"], "dashdot", "diamond"),
}


def set_size_figure(
    curve: Curve, *, what: str = "flipped", target: str = "target", share: int | None = None
) -> go.Figure:
    """Draw one ablation's effect over the number of features, beside matched random sets.

    Parameters
    ----------
    curve
        Results over sizes.
    what
        ``flipped`` (share of turned answers) or ``delta`` (change of the logit difference).
    target
        Name of the target class.
    share
        The largest set that still counts as small; marked by a line.

    Returns
    -------
    go.Figure
        The chosen sets as a line, the 2.5 to 97.5 percentiles of the random sets as a ribbon with their median.

    """
    json = curve.to_json()
    colour, dash, symbol = _MARKS.get(curve.ablation.name, (COLOURS["ink"], "solid", "circle"))
    sizes, ribbon = json["sizes"], json[f"control_{what}"]
    figure = go.Figure()
    if ribbon["median"]:
        grey = {"width": 0, "color": COLOURS["control"]}
        figure.add_scatter(x=sizes, y=ribbon["high"], mode="lines", line=grey, showlegend=False, hoverinfo="skip")
        figure.add_scatter(
            x=sizes,
            y=ribbon["low"],
            mode="lines",
            line=grey,
            fill="tonexty",
            fillcolor="rgba(138,148,158,0.25)",
            name="random sets of the same norm, 95 %",
            hoverinfo="skip",
        )
        figure.add_scatter(
            x=sizes,
            y=ribbon["median"],
            mode="lines",
            line={"color": COLOURS["control"], "dash": "dot"},
            name="their median",
        )
    figure.add_scatter(
        x=sizes,
        y=json[what],
        mode="lines+markers",
        line={"color": colour, "dash": dash},
        marker={"symbol": symbol, "size": 8},
        name=f"chosen set, {curve.ablation.name}",
        customdata=[["not tested" if p is None else f"{p:.3f}"] for p in json["p"]],
        hovertemplate="%{x} features: %{y:.2f}<br>p beside random sets: %{customdata[0]}<extra></extra>",
    )
    if share is not None:
        figure.add_vline(x=share, line={"color": COLOURS["muted"], "dash": "dot"}, annotation_text="largest small set")
    turned = f"turned to '{target}'" if curve.ablation.opposite else f"no longer '{target}'"
    figure.update_xaxes(type="log", tickvals=sizes, ticktext=[str(s) for s in sizes], title="features changed together")
    if what == "flipped":
        figure.update_yaxes(range=[-0.02, 1.02], tickformat=".0%", title=f"images {turned}")
    else:
        figure.update_yaxes(title="change of the logit difference")
    return apply_theme(figure)


def ablations_figure(way: DirectionResult, *, target: str = "target") -> go.Figure:
    """Draw the share of turned answers under all ablations of target images, one line each."""
    figure = go.Figure()
    for curve in way.curves:
        if curve.ablation.opposite:
            continue
        colour, dash, symbol = _MARKS.get(curve.ablation.name, (COLOURS["ink"], "solid", "circle"))
        figure.add_scatter(
            x=[r.size for r in curve.results],
            y=[r.flipped for r in curve.results],
            mode="lines+markers",
            line={"color": colour, "dash": dash},
            marker={"symbol": symbol, "size": 8},
            name=curve.ablation.name,
        )
    sizes = [r.size for r in way.curves[0].results]
    figure.update_xaxes(type="log", tickvals=sizes, ticktext=[str(s) for s in sizes], title="features changed together")
    figure.update_yaxes(range=[-0.02, 1.02], tickformat=".0%", title=f"images no longer '{target}'")
    return apply_theme(figure)


def before_after_figure(pairs: Sequence[BeforeAfter], *, target: str = "target") -> go.Figure:
    """Draw the target's probability of every tested image before and after, one column per ablation."""
    figure = go.Figure()
    for column, pair in enumerate(pairs):
        colour, _, symbol = _MARKS.get(pair.ablation, (COLOURS["ink"], "solid", "circle"))
        n = len(pair.images)
        x = np.column_stack([np.full(n, column - 0.15), np.full(n, column + 0.15), np.full(n, np.nan)]).ravel()
        y = np.column_stack([pair.before, pair.after, np.full(n, np.nan)]).ravel()
        figure.add_scatter(
            x=x,
            y=y,
            mode="lines+markers",
            line={"color": colour, "width": 1},
            marker={"symbol": symbol, "size": 6},
            name=pair.ablation,
            text=np.repeat([f"image {i}" for i in pair.images], 3),
            hovertemplate="%{text}: %{y:.2f}<extra></extra>",
        )
    figure.update_xaxes(
        tickvals=list(range(len(pairs))), ticktext=[f"{p.ablation}<br>before → after" for p in pairs], showgrid=False
    )
    figure.update_yaxes(range=[-0.02, 1.02], title=f"probability of '{target}'")
    return apply_theme(figure)


def class_effects_figure(
    effects: Float[NDArray[np.float32], "image class"], class_names: Sequence[str], *, ablation: str = ""
) -> go.Figure:
    """Draw one feature's mean effect on every class's logit, with the images' 2.5 to 97.5 percentiles as whiskers.

    Parameters
    ----------
    effects
        Changed minus unchanged logit of the images where the feature changes anything.
    class_names
        Names of the classes.
    ablation
        What was put in place; shown on the axis.

    """
    centre = effects.mean(0)
    low, high = np.percentile(effects, [2.5, 97.5], axis=0)
    figure = go.Figure(
        go.Bar(
            x=list(class_names),
            y=centre,
            marker={"color": [class_colour(i) for i in range(len(class_names))]},
            error_y={
                "type": "data",
                "symmetric": False,
                "array": np.maximum(high - centre, 0),
                "arrayminus": np.maximum(centre - low, 0),
                "color": COLOURS["muted"],
            },
            hovertemplate="%{x}: %{y:+.3f}<extra></extra>",
        )
    )
    figure.add_hline(y=0, line={"color": COLOURS["ink"], "width": 1})
    figure.update_yaxes(title="change of the logit" + (f" ({ablation})" if ablation else ""))
    return apply_theme(figure)
