"""Figures of encoding models: fields in the visual field, and scores of regions beside the noise ceiling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mechinterp.errors import ShapeError
from mechinterp.figures import COLOURS, SEQUENCE, apply_theme, as_text
from probes.receptive_fields import ReceptiveFields

_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "star")


def field_figure(fields: ReceptiveFields, regions: Sequence[str], true: ReceptiveFields | None = None) -> go.Figure:
    """Draw where each voxel looks, in degrees of visual angle, a panel for each region, with a line from where it truly does.

    Parameters
    ----------
    fields
        Each voxel's receptive field.
    regions
        Of each voxel: a colour and a symbol.
    true
        Where they truly are, if that is known.

    Raises
    ------
    ShapeError
        If there is not one region, and one true field, for each voxel.

    """
    if len(regions) != len(fields) or (true is not None and len(true) != len(fields)):
        raise ShapeError(
            f"{len(fields)} fields and {len(regions)} regions: give one for each, and one true field where known"
        )
    names = list(dict.fromkeys(regions)) or [""]
    known = fields if true is None else true
    far = [float(np.abs(v).max()) for f in (fields, known) for v in (f.up_deg, f.right_deg) if len(v)]
    reach = 1.1 * max([1.0, *far])
    # a panel each: two hundred voxels over each other cannot be told apart
    figure = make_subplots(
        rows=1, cols=len(names), shared_yaxes=True, horizontal_spacing=0.03,
        subplot_titles=[f"{as_text(name)} ({sum(r == name for r in regions)} voxels)" for name in names],
    )  # fmt: skip
    for k, name in enumerate(names):
        mine, at = np.flatnonzero(np.asarray(regions) == name), {"row": 1, "col": k + 1}
        colour, symbol = SEQUENCE[k % len(SEQUENCE)], _SYMBOLS[k % len(_SYMBOLS)]
        if true is not None:
            gap = np.full(len(mine), np.nan)
            figure.add_scatter(
                x=np.stack([true.right_deg[mine], fields.right_deg[mine], gap], 1).ravel(),
                y=np.stack([true.up_deg[mine], fields.up_deg[mine], gap], 1).ravel(),
                mode="lines", line={"color": COLOURS["control"], "width": 1}, hoverinfo="skip", showlegend=False, **at,
            )  # fmt: skip
            figure.add_scatter(
                x=true.right_deg[mine], y=true.up_deg[mine], mode="markers", hoverinfo="skip",
                name=f"{as_text(name)}: true middle",
                marker={"symbol": f"{symbol}-open", "size": 9, "color": colour, "line": {"width": 1.2}}, **at,
            )  # fmt: skip
        figure.add_scatter(
            x=fields.right_deg[mine], y=fields.up_deg[mine], mode="markers",
            name=as_text(name) if true is None else f"{as_text(name)}: found",
            marker={"symbol": symbol, "size": 5, "color": colour}, customdata=fields.size_deg[mine],
            hovertemplate="%{y:.1f}° up, %{x:.1f}° right, size %{customdata:.1f}°<extra>" + as_text(name) + "</extra>",
            **at,
        )  # fmt: skip
        figure.update_yaxes(
            range=[-reach, reach], scaleanchor=f"x{k + 1 if k else ''}", constrain="domain", **at
        )  # fmt: skip
    figure.add_hline(y=0, line={"color": COLOURS["line"], "width": 1})
    figure.add_vline(x=0, line={"color": COLOURS["line"], "width": 1})
    figure.update_xaxes(title_text="right of fixation [°]", range=[-reach, reach], constrain="domain")
    figure.update_yaxes(title_text="above fixation [°]", row=1, col=1)
    figure = apply_theme(figure)
    figure.update_layout(height=470, margin_t=90, legend={"y": 1.16})
    return figure


def region_score_figure(
    scores: Mapping[str, Mapping[str, float]], ceilings: Mapping[str, float] | None = None
) -> go.Figure:
    """Draw each region's mean correlation for several networks, with the noise ceiling as a line over the bars.

    Parameters
    ----------
    scores
        Name of the network → region → mean correlation; the first is the model, the others are controls.
    ceilings
        Region → largest mean correlation that any model can reach.

    """
    figure = go.Figure()
    for k, (name, by_region) in enumerate(scores.items()):
        figure.add_bar(
            x=[as_text(r) for r in by_region], y=list(by_region.values()), name=as_text(name),
            marker={
                "color": COLOURS["blue"] if k == 0 else COLOURS["control"],
                "pattern": {"shape": ("", "/", "x", ".")[k % 4]},
            },
            hovertemplate="%{x}: %{y:.2f}<extra>" + as_text(name) + "</extra>",
        )  # fmt: skip
    if ceilings:
        figure.add_scatter(
            x=[as_text(r) for r in ceilings], y=list(ceilings.values()), mode="markers", name="noise ceiling",
            marker={"symbol": "line-ew-open", "size": 120, "color": COLOURS["ink"], "line": {"width": 2}},
            hovertemplate="%{x}: at most %{y:.2f}<extra>noise ceiling</extra>",
        )  # fmt: skip
    # the ceiling's broad marker would stretch the axis
    lowest = min((v for by_region in scores.values() for v in by_region.values()), default=0.0)
    figure.update_yaxes(title_text="mean correlation with held-out responses", range=[min(0.0, 1.1 * lowest), 1.0])
    figure.update_layout(barmode="group", height=380)
    return apply_theme(figure)
