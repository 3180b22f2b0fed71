"""The one Plotly theme, and colours that mean the same everywhere.

Colours are Okabe and Ito's, which stay apart for readers with any of the common colour vision deficiencies [1]_, and
never carry a meaning alone: words, marks or line styles say the same.

References
----------
.. [1] Okabe, Ito. Color Universal Design: how to make figures and presentations that are friendly to colorblind people.
   2008.

"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import plotly.graph_objects as go

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'DejaVu Sans', Arial, sans-serif"

COLOURS: dict[str, str] = {
    "blue": "#0072B2",
    "orange": "#E69F00",
    "green": "#009E73",
    "vermilion": "#D55E00",
    "sky": "#56B4E9",
    "purple": "#CC79A7",
    "yellow": "#F0E442",
    "ink": "#1c2733",
    "muted": "#556270",
    "line": "#c9d1d9",
    "grid": "#e8ecf0",
    "paper": "#ffffff",
    "control": "#8a949e",
    "band": "#eef1f4",
}
"""Names to colours; ``control`` is for whatever is there to be compared with."""

SEQUENCE: tuple[str, ...] = tuple(
    COLOURS[name] for name in ("blue", "vermilion", "green", "purple", "orange", "sky", "ink", "yellow")
)
"""Colours of classes in the order of the model's outputs, so that a class looks the same on every page."""

ABLATION_COLOURS: dict[str, str] = {
    "zero": COLOURS["control"],
    "mean": COLOURS["blue"],
    "resample": COLOURS["orange"],
    "towards": COLOURS["green"],
}
"""What was put in place of features looks the same in every figure."""

DIVERGING: tuple[tuple[float, str], ...] = (
    (0.0, "#0072B2"),
    (0.25, "#7fb4d6"),
    (0.5, "#f7f7f7"),
    (0.75, "#eaa97f"),
    (1.0, "#D55E00"),
)
"""Blue through white to vermilion, for signed values centred on zero."""

HEAT: tuple[tuple[float, str], ...] = (
    (0.0, "#5b2a86"),
    (0.25, "#b0328b"),
    (0.5, "#e8573f"),
    (0.75, "#fb9f1b"),
    (1.0, "#ffe226"),
)
"""Dark to bright with lightness rising evenly, for values from zero up, painted over a grey picture."""


def theme() -> go.layout.Template:
    """Return the theme as a Plotly template; one for all pages and notebooks."""
    axis = {
        "gridcolor": COLOURS["grid"],
        "linecolor": COLOURS["line"],
        "tickcolor": COLOURS["line"],
        "showline": True,
        "ticks": "outside",
        "ticklen": 4,
        "zeroline": False,
        "automargin": True,
        "title": {"standoff": 8, "font": {"size": 13}},
        "tickfont": {"size": 12, "color": COLOURS["muted"]},
    }
    return go.layout.Template(
        layout={
            "font": {"family": FONT, "size": 13, "color": COLOURS["ink"]},
            "title": {"font": {"size": 15}, "x": 0, "xref": "paper", "xanchor": "left"},
            "colorway": list(SEQUENCE),
            "paper_bgcolor": COLOURS["paper"],
            "plot_bgcolor": COLOURS["paper"],
            "margin": {"l": 56, "r": 16, "t": 28, "b": 48},
            "xaxis": axis,
            "yaxis": axis,
            "legend": {
                "orientation": "h",
                "x": 0,
                "xanchor": "left",
                "y": 1.02,
                "yanchor": "bottom",
                "font": {"size": 12},
            },
            "hoverlabel": {"font": {"family": FONT, "size": 12}, "bgcolor": "#ffffff", "bordercolor": COLOURS["line"]},
            "hovermode": "closest",
            "dragmode": "zoom",
            "colorscale": {"sequential": HEAT, "diverging": DIVERGING},
            "annotationdefaults": {"font": {"size": 12, "color": COLOURS["ink"]}, "showarrow": False},
        }
    )


@cache
def _theme_json() -> dict[str, Any]:
    return dict(theme().to_plotly_json())


def themed_figure(traces: Sequence[Mapping[str, Any]], layout: Mapping[str, Any]) -> go.Figure:
    """Return a figure of plain traces and layout with the theme.

    Plotly's own checks of every property take a hundred times longer than everything else here, which ten thousand
    feature pages cannot afford; they are left out, and the tests run them over every figure instead.

    Parameters
    ----------
    traces
        Each with its ``type``.
    layout
        Without a template.

    """
    return go.Figure({"data": list(traces), "layout": {**layout, "template": _theme_json()}}, _validate=False)


def apply_theme(figure: go.Figure) -> go.Figure:
    """Give a figure the theme, in place, and return it.

    Examples
    --------
    >>> figure = apply_theme(go.Figure(go.Scatter(x=[0, 1], y=[1, 0])))
    >>> figure.layout.template.layout.font.size
    13

    """
    figure.update_layout(template=theme())
    return figure


def class_colour(index: int) -> str:
    """Return the colour of the class at this place among the model's outputs."""
    return SEQUENCE[index % len(SEQUENCE)]


def as_text(text: str) -> str:
    """Return text that Plotly draws as it is; Plotly reads a few HTML tags and entities in any label.

    Examples
    --------
    >>> as_text("a<b>c & d")
    'a&lt;b&gt;c &amp; d'

    """
    return str(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
