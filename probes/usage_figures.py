"""Figures of use: the dose curve beside the truth, and the physical calibration curve of a feature."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from mechinterp.attributes.table import Attribute
from mechinterp.figures import COLOURS, apply_theme, as_text
from mechinterp.statistics.equivalence import mean_interval
from probes.usage_result import UsageResult


def dose_figure(result: UsageResult) -> go.Figure:
    """Draw how the objective moves with the dose: under the true counterfactual, steered, and along random directions.

    Bands are 95 % intervals over patients; the grey one holds 90 % of the random directions.
    """
    order = np.argsort(result.steps)
    x = np.array(result.steps)[order]
    figure = go.Figure()
    random = result.random.mean(1)[:, order]
    low, high = np.quantile(random, [0.05, 0.95], axis=0)
    _band(figure, x, low, high, COLOURS["control"], f"{len(random)} random directions, same norm")
    for effects, name, colour, dash in (
        (result.true, "true counterfactual", COLOURS["ink"], "solid"),
        (result.steered, "steered along the direction", COLOURS["blue"], "solid"),
        (result.swapped, "feature swapped, token by token", COLOURS["orange"], "dot"),
    ):
        # the third explains the second; its band would only cover theirs
        _curve(figure, x, effects[:, order], result.patients if dash == "solid" else None, name, colour, dash)
    apply_theme(figure)
    label = Attribute(result.attribute, result.unit).label
    figure.add_hline(y=0, line={"color": COLOURS["line"], "width": 1})
    figure.update_xaxes(title=f"change of {as_text(label)}")
    figure.update_yaxes(title=f"change of {as_text(result.objective)}")
    ratio = "" if np.isnan(result.ratio) else f", {result.ratio:.2f} times the true slope"
    per = "" if result.unit in {"", "1"} else f" per {as_text(result.unit)}"
    figure.update_layout(
        title=f"{as_text(result.attribute)}: {result.verdict}<br><sub>{result.steered_slope.mean:.3g}{per}{ratio}; "
        f"margin ±{result.margin:g}</sub>",
        margin={"t": 84, "b": 120},
        legend={"y": -0.24, "yanchor": "top"},
        height=480,
    )
    return figure


def physical_calibration_figure(result: UsageResult) -> go.Figure:
    """Draw the feature against the attribute in its unit: every patient's counterfactuals as a line, nothing else changed."""
    curve = result.calibration
    figure = go.Figure()
    for i, (value, reading) in enumerate(zip(curve.value, curve.reading, strict=True)):
        order = np.argsort(value)
        figure.add_scatter(
            x=value[order], y=reading[order], mode="lines+markers", line={"color": COLOURS["blue"], "width": 1},
            marker={"size": 5}, opacity=0.6, showlegend=False, name=f"calibration patient {i + 1}",
            hovertemplate="%{x:.3g} " + as_text(result.unit) + "<br>%{y:.3g}<extra>%{fullData.name}</extra>",
        )  # fmt: skip
    apply_theme(figure)
    per = "" if result.unit in {"", "1"} else f" per {as_text(result.unit)}"
    figure.update_xaxes(title=as_text(Attribute(result.attribute, result.unit).label))
    figure.update_yaxes(title=f"{as_text(result.feature)}, mean over tokens")
    figure.update_layout(
        title=f"{as_text(result.feature)} of {as_text(result.site)}: {curve.per_unit:.3g}{per}"
        f"<br><sub>{as_text(curve.interval.text)}; each line is one patient, re-rendered</sub>",
        margin={"t": 84},
        height=420,
    )
    return figure


def _curve(
    figure: go.Figure, x: NDArray[np.float64], effects: NDArray[np.float64], patients: tuple[object, ...] | None,
    name: str, colour: str, dash: str,
) -> None:  # fmt: skip
    ends = [None if patients is None else mean_interval(e, patients).ends for e in effects.T]
    if all(e is not None for e in ends):
        low, high = np.array([e for e in ends if e is not None]).T
        _band(figure, x, low, high, colour, "")
    figure.add_scatter(
        x=x, y=effects.mean(0), mode="lines+markers", name=name, line={"color": colour, "dash": dash, "width": 2},
        marker={"size": 7}, hovertemplate="%{x:.3g}: %{y:.3g}<extra>" + name + "</extra>",
    )  # fmt: skip


def _band(
    figure: go.Figure,
    x: NDArray[np.float64],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    colour: str,
    name: str,
) -> None:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    figure.add_scatter(
        x=np.r_[x, x[::-1]], y=np.r_[high, low[::-1]], fill="toself", mode="lines", line={"width": 0}, hoverinfo="skip",
        fillcolor=f"rgba({red},{green},{blue},0.18)", name=name, showlegend=bool(name),
    )  # fmt: skip
