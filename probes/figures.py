"""Figures of probes and of the attribute matrix: functions that return a Plotly figure."""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float
from numpy.typing import NDArray

from mechinterp.attributes.table import Attribute
from mechinterp.errors import ShapeError
from mechinterp.figures import COLOURS, DIVERGING, apply_theme, as_text
from probes.matrix_result import AttributeMatrix
from probes.results import ProbeResult


def attribute_matrix_figure(matrix: AttributeMatrix, n_features: int = 40, n_attributes: int = 40) -> go.Figure:
    """Draw held-out rank correlations as a heat map, features by attributes; a confirmed pair carries a dot.

    Parameters
    ----------
    matrix
        What was measured.
    n_features
        How many features to show: those that follow their attribute most closely on the discovery images, so that what
        is seen of the held-out images is not what was selected on.
    n_attributes
        How many attributes: of more, those that one of these features follows most closely there, in the table's order.

    """
    rows = np.flatnonzero(matrix.best >= 0)
    order = np.argsort(-np.abs(matrix.rho_discovery[rows, matrix.best[rows]]), kind="stable")
    rows = rows[order][:n_features]
    closest = np.nan_to_num(np.abs(matrix.rho_discovery[rows])).max(0, initial=0)
    columns = np.sort(np.argsort(-closest, kind="stable")[:n_attributes])
    names = [as_text(matrix.attributes[j].label) for j in columns]
    labels = [f"feature {i}" for i in rows]
    discovery, values, p = (
        v[np.ix_(rows, columns)] for v in (matrix.rho_discovery, matrix.rho_confirmation, matrix.test.p_corrected)
    )
    hover = [
        [
            f"{labels[i]}<br>{names[j]}<br>held-out ρ {values[i, j]:.2f}, discovery ρ {discovery[i, j]:.2f}<br>"
            + ("not the pair chosen" if np.isnan(p[i, j]) else f"corrected p {p[i, j]:.2g}")
            for j in range(len(names))
        ]
        for i in range(len(rows))
    ]
    figure = go.Figure(
        go.Heatmap(
            z=values, x=names, y=labels, zmin=-1, zmax=1, colorscale=DIVERGING, text=hover, xgap=1, ygap=1,
            hovertemplate="%{text}<extra></extra>", colorbar={"title": {"text": "held-out ρ"}, "thickness": 10},
        )
    )  # fmt: skip
    confirmed = np.argwhere(matrix.test.findings[np.ix_(rows, columns)])
    if len(confirmed):
        figure.add_scatter(
            x=[names[j] for _, j in confirmed], y=[labels[i] for i, _ in confirmed], mode="markers", hoverinfo="skip",
            marker={"color": COLOURS["ink"], "size": 7}, name="significant after correction",
        )  # fmt: skip
    apply_theme(figure)
    figure.update_yaxes(
        autorange="reversed", type="category", tickmode="array", tickvals=labels
    )  # every row has its label
    figure.update_xaxes(type="category", tickangle=-30)
    left_out = len(matrix.attributes) - len(columns)
    note = f"<br><sub>{left_out} attributes that these features follow less are not drawn</sub>" if left_out else ""
    figure.update_layout(
        height=120 + 18 * max(8, len(rows)), title=f"{as_text(matrix.text)}{note}", margin={"t": 84 if note else 64}
    )
    return figure


def feature_attribute_figure(
    feature: Float[NDArray[Any], " image"],
    attribute: Float[NDArray[Any], " image"],
    about: Attribute,
    *,
    name: str = "feature",
    discovery: NDArray[Any] | None = None,
    ids: tuple[str, ...] = (),
) -> go.Figure:
    """Draw a feature's image-level value against an attribute in its unit, one mark per image.

    Parameters
    ----------
    feature, attribute
        Per image.
    about
        Name and unit of the attribute.
    name
        Label of the feature's axis.
    discovery
        Positions of the images the pair was chosen on; drawn as open circles.
    ids
        Names of the images, shown on hover.

    Raises
    ------
    ShapeError
        If the two are not of the same images.

    """
    f, a = np.asarray(feature, dtype=float), np.asarray(attribute, dtype=float)
    if f.shape != a.shape or f.ndim != 1:
        raise ShapeError(f"the feature has shape {f.shape}, the attribute {a.shape}: one value per image each")
    chosen = np.zeros(len(f), dtype=bool)
    if discovery is not None:
        chosen[discovery] = True
    text = np.array([as_text(i) for i in ids] or [f"image {i}" for i in range(len(f))])
    figure = go.Figure()
    label, unit = as_text(about.label), "" if about.unit in {"", "1"} else f" {as_text(about.unit)}"
    for part, said, symbol, colour in (
        (chosen, "discovery", "circle-open", COLOURS["control"]),
        (~chosen, "held out" if discovery is not None else "images", "circle", COLOURS["blue"]),
    ):
        if part.any():
            figure.add_scatter(
                x=a[part], y=f[part], mode="markers", name=said, text=text[part],
                marker={"symbol": symbol, "color": colour, "size": 7},
                hovertemplate="%{text}<br>%{x:.4g}" + unit + "<br>" + as_text(name) + " %{y:.3g}<extra></extra>",
            )  # fmt: skip
    apply_theme(figure)
    figure.update_xaxes(title=label)
    figure.update_yaxes(title=as_text(name))
    figure.update_layout(showlegend=discovery is not None)
    return figure


def probe_figure(result: ProbeResult) -> go.Figure:
    """Draw what a probe predicted for images it had not seen against the truth, in the attribute's unit.

    A binary attribute is drawn as the log-odds of both classes.
    """
    label = as_text(Attribute(result.attribute, result.unit).label)
    figure = go.Figure()
    if result.kind == "binary":
        for value, colour in ((0, COLOURS["control"]), (1, COLOURS["blue"])):
            figure.add_box(
                y=result.predicted[result.truth == value], name=f"{label} = {value}", boxpoints="all", pointpos=0,
                jitter=0.4, marker={"color": colour, "size": 5}, hovertemplate="log-odds %{y:.2f}<extra></extra>",
            )  # fmt: skip
        apply_theme(figure)
        figure.update_yaxes(title="predicted log-odds, out of fold")
    else:
        ends = [
            float(min(result.truth.min(), result.predicted.min())),
            float(max(result.truth.max(), result.predicted.max())),
        ]
        figure.add_scatter(
            x=ends, y=ends, mode="lines", line={"color": COLOURS["control"], "dash": "dash"}, name="predicted = true",
            hoverinfo="skip",
        )  # fmt: skip
        unit = "" if result.unit in {"", "1"} else f" {as_text(result.unit)}"
        figure.add_scatter(
            x=result.truth, y=result.predicted, mode="markers", name="held-out images", customdata=result.images,
            marker={"color": COLOURS["blue"], "size": 7},
            hovertemplate="image %{customdata}<br>true %{x:.4g}" + unit + "<br>predicted %{y:.4g}" + unit + "<extra></extra>",
        )  # fmt: skip
        apply_theme(figure)
        figure.update_xaxes(title=f"true {label}")
        figure.update_yaxes(title=f"predicted {label}, out of fold")
        figure.add_annotation(
            x=ends[1], y=ends[1], text="predicted = true", showarrow=False, xanchor="right", yanchor="bottom", xshift=-6,
            font={"color": COLOURS["muted"]},
        )  # fmt: skip
    # Two lines: what was read, and below how far it can be believed.
    first, *rest = result.text.split("; ")
    figure.update_layout(
        title=f"{as_text(first)}<br><sub>{as_text('; '.join(rest))}</sub>", margin={"t": 84}, showlegend=False
    )
    return figure
