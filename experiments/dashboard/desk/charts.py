"""Figures of the desk: the answer before and after, and a map over the picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float

from experiments.dashboard.run_view import RunView
from mechinterp.figures import COLOURS, as_text, themed_figure
from mechinterp.picture_figures import image_with_overlay

OPACITY = 0.75
EITHER_WAY = ((0.0, "rgba(0,114,178,1)"), (0.5, "rgba(247,247,247,0)"), (1.0, "rgba(213,94,0,1)"))
"""The theme's blue and vermilion, see-through where there is nothing either way."""


def answer_figure(names: Sequence[str], before: Sequence[float], after: Sequence[float]) -> go.Figure:
    """Draw each class's logit before and after moves; the second trace is what a desk draws anew.

    Parameters
    ----------
    names
        Of the classes.
    before, after
        One logit per class.

    """
    shown = [as_text(name) for name in names]
    looks: tuple[tuple[str, Sequence[float], dict[str, Any]], ...] = (
        ("as it is", before, {"color": COLOURS["control"]}),
        (
            "after the moves",
            after,
            {"color": COLOURS["blue"], "pattern": {"shape": "/", "fillmode": "overlay", "fgcolor": "#ffffff", "fgopacity": 0.7, "size": 6, "solidity": 0.25}},
        ),
    )  # fmt: skip
    traces = [
        {
            "type": "bar", "name": name, "x": shown, "y": [float(v) for v in values], "marker": marker,
            "hovertemplate": "%{x}: %{y:.3g}<extra>" + name + "</extra>",
        }
        for name, values, marker in looks
    ]  # fmt: skip
    layout = {
        "xaxis": {"type": "category", "showline": False, "ticks": ""},
        "yaxis": {"title": {"text": "logit"}, "zeroline": True, "zerolinecolor": COLOURS["control"]},
        "barmode": "group", "bargap": 0.35, "bargroupgap": 0.06, "showlegend": True,
    }  # fmt: skip
    return themed_figure(traces, layout)


def map_figure(
    view: RunView,
    image: int,
    values: Float[np.ndarray, "row column"],
    label: str,
    limits: tuple[float, float],
) -> go.Figure | None:
    """Draw a map of the site over an image; ``None`` where the run kept no picture or no place of the cells.

    Parameters
    ----------
    view, image
        The run, and which image of it.
    values
        One per cell.
    label
        What they are.
    limits
        Ends of the colour bar; from below zero, colours diverge from zero.

    """
    source, size, cells = view.picture(image), view.size_mm(image), view.cells(image)
    if source is None or size is None or cells is None:
        return None
    figure = image_with_overlay(
        source, size, values, first_centre_mm=cells.first_centre_mm, step_mm=cells.step_mm, label=label, limits=limits,
        orientation=view.orientation, length_unit=view.length_unit, opacity=OPACITY,
    )  # fmt: skip
    if limits[0] < 0:
        figure.data[0].colorscale = EITHER_WAY
    return figure
