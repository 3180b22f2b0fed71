"""Figures of probes beside their controls: over the layers, calibration, learning curve, sparse probes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from mechinterp.attributes.table import Attribute
from mechinterp.errors import ConfigError
from mechinterp.figures import COLOURS, apply_theme, as_text
from probes.results import ProbeResult
from probes.sample_efficiency import LearningCurve
from probes.scores import CHANCE
from probes.sparse import SparseProbe

_CONTROLS = {
    "shuffled attribute": ("x", "dot", "95 % of shuffled attributes stay below"),
    "pixel baseline": ("square-open", "dash", "pixel baseline"),
    "untrained network": ("diamond-open", "dashdot", "untrained network"),
    "control task": ("triangle-up-open", "longdash", "control task"),
}
"""Controls whose value is a score; a symbol and a line of its own for each, since all are grey."""


def layer_profile_figure(results: Sequence[ProbeResult]) -> go.Figure:
    """Draw one attribute's held-out score at every site, with intervals over patients, beside the controls.

    Parameters
    ----------
    results
        Of one attribute, site by site, from the input on.

    Raises
    ------
    ConfigError
        If there are none, or they are of several attributes.

    """
    if not results or len({r.attribute for r in results}) > 1:
        raise ConfigError(f"a layer profile needs the results of one attribute, not of {len(results)} mixed ones")
    sites = [as_text(r.site or "activations") for r in results]
    figure = go.Figure()
    for name, (symbol, dash, said) in _CONTROLS.items():
        values = [next((c.value for c in r.controls if c.name == name), None) for r in results]
        if any(v is not None and np.isfinite(v) for v in values):
            figure.add_scatter(
                x=sites, y=values, mode="lines+markers", name=said, line={"color": COLOURS["control"], "dash": dash, "width": 1.5},
                marker={"symbol": symbol, "size": 8, "color": COLOURS["control"]},
                hovertemplate="%{x}<br>" + said + " %{y:.3f}<extra></extra>",
            )  # fmt: skip
    ends = [r.interval.ends for r in results]
    scores = [r.score for r in results]
    error = None
    if any(ends):
        error = {
            "type": "data", "symmetric": False, "thickness": 1.5, "width": 4, "color": COLOURS["blue"],
            "array": [e[1] - s if e else 0 for e, s in zip(ends, scores, strict=True)],
            "arrayminus": [s - e[0] if e else 0 for e, s in zip(ends, scores, strict=True)],
        }  # fmt: skip
    met = [r.claim().verdict == "met" for r in results]
    figure.add_scatter(
        x=sites, y=scores, mode="lines+markers", name="probe (hollow: a control failed)", error_y=error,
        line={"color": COLOURS["blue"], "width": 2.5},
        marker={"size": 11, "symbol": ["circle" if m else "circle-open" for m in met], "color": COLOURS["blue"], "line": {"width": 2}},
        text=[as_text(r.text) + f"<br><b>{'met' if m else 'not met'}</b>" for r, m in zip(results, met, strict=True)],
        hovertemplate="%{x}<br>%{text}<extra></extra>",
    )  # fmt: skip
    first = results[0]
    figure.add_hline(y=CHANCE[first.kind], line={"color": COLOURS["line"], "width": 1})
    apply_theme(figure)
    known = [v for v in scores if np.isfinite(v)]
    low = min([CHANCE[first.kind], *known, *(e[0] for e in ends if e)])
    figure.update_yaxes(title=f"{first.metric} on held-out images", range=[max(low, -0.5) - 0.06, 1.04])
    figure.update_xaxes(type="category", tickangle=-25 if len(sites) > 5 else 0)
    label = Attribute(first.attribute, first.unit).label
    said = first.interval.text.partition("(")[2].rstrip(")") if any(ends) else first.interval.text
    figure.update_layout(
        title=f"Where {as_text(label)} can be read<br><sub>95 % intervals: {as_text(said)}</sub>",
        height=460, margin={"t": 132}, legend={"y": 1.0, "yanchor": "bottom"},
    )  # fmt: skip
    return figure


def calibration_figure(result: ProbeResult) -> go.Figure:
    """Draw what was true over what was predicted, in bins of out-of-fold predictions.

    Raises
    ------
    ConfigError
        If the result carries no calibration.

    """
    found = result.calibration
    if found is None:
        raise ConfigError(f"the result of '{result.attribute}' carries no calibration: fit the probe again")
    label = as_text(Attribute(result.attribute, result.unit).label)
    unit = "" if result.unit in {"", "1"} else f" {as_text(result.unit)}"
    figure = go.Figure()
    if result.kind == "continuous":
        figure.add_scatter(
            x=result.predicted, y=result.truth, mode="markers", marker={"color": COLOURS["line"], "size": 5}, name="images",
            hovertemplate="predicted %{x:.4g}" + unit + "<br>true %{y:.4g}" + unit + "<extra></extra>",
        )  # fmt: skip
        ends = [float(min(result.predicted.min(), 0)), float(result.predicted.max())]
        axes = (f"predicted {label}", f"true {label}")
    else:
        ends = [0.0, 1.0]
        share = "of the predicted class" if result.kind in {"ordinal", "categorical"} else f"of {label}"
        axes = (f"predicted probability {share}", "share that is true")
    figure.add_scatter(
        x=ends, y=ends, mode="lines", line={"color": COLOURS["control"], "dash": "dash"}, name="perfect", hoverinfo="skip"
    )  # fmt: skip
    size = np.sqrt(np.asarray(found.count) / max(found.count)) * 16 + 5
    figure.add_scatter(
        x=found.predicted, y=found.observed, mode="lines+markers", name="bins", customdata=found.count,
        line={"color": COLOURS["blue"]}, marker={"color": COLOURS["blue"], "size": size},
        hovertemplate="predicted %{x:.3g}<br>true %{y:.3g}<br>%{customdata} images<extra></extra>",
    )  # fmt: skip
    apply_theme(figure)
    figure.update_xaxes(title=axes[0])
    figure.update_yaxes(title=axes[1])
    where = f" at {as_text(result.site)}" if result.site else ""
    figure.update_layout(
        title=f"Calibration of {as_text(result.attribute)}{where}<br><sub>{as_text(found.text)}</sub>", margin={"t": 96},
        height=460, legend={"x": 1, "xanchor": "right", "y": 1.0},
    )  # fmt: skip
    return figure


def learning_curve_figure(curve: LearningCurve, name: str = "attribute") -> go.Figure:
    """Draw the held-out score over the number of training patients; the band spans the repeats."""
    figure = go.Figure()
    figure.add_scatter(
        x=[*curve.patients, *reversed(curve.patients)], y=[*curve.high, *reversed(curve.low)], fill="toself", mode="lines",
        line={"width": 0}, fillcolor="rgba(0,114,178,0.15)", hoverinfo="skip", showlegend=False,
    )  # fmt: skip
    figure.add_scatter(
        x=curve.patients, y=curve.score, mode="lines+markers", line={"color": COLOURS["blue"]}, showlegend=False,
        hovertemplate="%{x} patients<br>" + curve.metric + " %{y:.3f}<extra></extra>",
    )  # fmt: skip
    apply_theme(figure)
    figure.update_xaxes(
        title="patients that trained", type="log", tickvals=curve.patients, ticktext=[str(n) for n in curve.patients]
    )
    figure.update_yaxes(title=f"{curve.metric} on the same held-out patients")
    figure.update_layout(title=f"How many patients a probe of {as_text(name)} needs", height=380, margin={"t": 56})
    return figure


def sparse_probe_figure(probes: Sequence[SparseProbe]) -> go.Figure:
    """Draw held-out scores over the number of features, one line for each encoder.

    Parameters
    ----------
    probes
        Of one attribute; the first is drawn in colour, the others (neurons, PCA, random directions) as controls.

    Raises
    ------
    ConfigError
        If there are none.

    """
    if not probes:
        raise ConfigError("no sparse probe to draw: give one at least")
    figure = go.Figure()
    for j, probe in enumerate(probes):
        colour = COLOURS["blue"] if j == 0 else COLOURS["control"]
        ends = [i.ends for i in probe.intervals]
        error = {
            "type": "data", "symmetric": False, "thickness": 1, "width": 3,
            "array": [e[1] - s if e else 0 for e, s in zip(ends, probe.scores, strict=True)],
            "arrayminus": [s - e[0] if e else 0 for e, s in zip(ends, probe.scores, strict=True)],
        }  # fmt: skip
        figure.add_scatter(
            x=probe.sizes, y=probe.scores, mode="lines+markers", name=as_text(probe.encoder), error_y=error,
            line={"color": colour, "dash": ("solid", "dash", "dot", "dashdot")[j % 4]},
            marker={"symbol": ("circle", "square-open", "diamond-open", "x")[j % 4], "size": 9},
            hovertemplate="%{x} features<br>" + probe.metric + " %{y:.3f}<extra></extra>",
        )  # fmt: skip
    apply_theme(figure)
    first = probes[0]
    figure.update_xaxes(
        title="number of features, chosen on training patients",
        type="log",
        tickvals=first.sizes,
        ticktext=[str(k) for k in first.sizes],
    )
    figure.update_yaxes(title=f"{first.metric} on held-out patients")
    figure.update_layout(
        title=f"{as_text(first.attribute)} from a few features (all {as_text(first.encoder)}: {first.dense:.2f})", height=400, margin={"t": 84}
    )  # fmt: skip
    return figure
