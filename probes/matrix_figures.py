"""The survivors of an attribute matrix with their intervals."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from mechinterp.figures import COLOURS, apply_theme, as_text
from probes.matrix_result import AttributeMatrix


def survivors_figure(matrix: AttributeMatrix, most: int = 40) -> go.Figure:
    """Draw each survivor's held-out rank correlation with its 95 % interval, beside the one it was chosen by.

    Parameters
    ----------
    matrix
        What was measured.
    most
        How many to draw: the strongest.

    """
    found = matrix.survivors[:most]
    labels = [f"{as_text(matrix.kind)} {f.feature} · {as_text(f.attribute.replace('_', ' '))}" for f in found]
    figure = go.Figure()
    figure.add_scatter(
        x=[f.rho_discovery for f in found], y=labels, mode="markers", name="discovery patients",
        marker={"symbol": "circle-open", "color": COLOURS["control"], "size": 8}, hovertemplate="%{x:.2f}<extra>discovery</extra>",
    )  # fmt: skip
    rho = np.array([f.rho_confirmation for f in found])
    ends = np.array([f.interval or (f.rho_confirmation, f.rho_confirmation) for f in found]).reshape(-1, 2)
    figure.add_scatter(
        x=rho, y=labels, mode="markers", name="held-out patients, 95 % interval", marker={"color": COLOURS["blue"], "size": 8},
        error_x={"type": "data", "symmetric": False, "array": ends[:, 1] - rho, "arrayminus": rho - ends[:, 0]},
        hovertext=[f.interval_note for f in found], hovertemplate="%{x:.2f} %{hovertext}<extra>held out</extra>",
    )  # fmt: skip
    apply_theme(figure)
    figure.add_vline(x=0, line={"color": COLOURS["line"], "width": 1})
    chance = matrix.chance()
    if np.isfinite(chance):
        figure.add_vrect(
            x0=-chance, x1=chance, fillcolor=COLOURS["band"], line_width=0, layer="below",
            annotation={"text": "shuffled attributes stay here", "font": {"color": COLOURS["muted"], "size": 11}},
            annotation_position="bottom left",
        )  # fmt: skip
    figure.update_xaxes(title="rank correlation", range=[-1.05, 1.05])
    figure.update_yaxes(autorange="reversed", type="category")
    figure.update_layout(height=150 + 24 * max(3, len(found)))
    return figure
