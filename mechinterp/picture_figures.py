"""A picture with values painted over it, in millimetres, with a scale bar and the letters of its sides."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float, Shaped

from mechinterp.errors import ShapeError
from mechinterp.figures import HEAT, as_text, themed_figure
from mechinterp.token_grid import Placement, TokenGrid

ON_PICTURE = "rgba(0,0,0,0.55)"
"""Behind letters that stand on a picture."""

COLOUR_BAR_PX = 52
"""Height of the colour bar with its numbers and title below a picture."""

_SCALE_STEPS = (0.5, 1.0, 2.0, 5.0, 10.0)


def scale_bar_mm(width_mm: float) -> float:
    """Return the length of a scale bar: the largest of 1, 2, 5 times a power of ten within 30 % of the width.

    Examples
    --------
    >>> scale_bar_mm(197.0), scale_bar_mm(4.2)
    (50.0, 1.0)

    """
    limit = 0.3 * width_mm
    power = 10.0 ** np.floor(np.log10(limit))
    # The steps reach past one decade, and the limit has a hair's room, because a logarithm rounds at powers of ten.
    return float(max(step * power for step in _SCALE_STEPS if step * power <= limit * (1 + 1e-9)))


def picture_url(pixels: Shaped[np.ndarray, "row column *channel"], window: tuple[float, float] | None = None) -> str:
    """Return pixels as a PNG in a ``data:`` URL, for figures outside a run folder.

    Parameters
    ----------
    pixels
        Grey (row, column) or colour (row, column, 3) values in any unit.
    window
        The values drawn black and white; the smallest and largest pixel by default.

    """
    from PIL import Image

    values = np.asarray(pixels, dtype=float)
    low, high = window if window is not None else (float(np.nanmin(values)), float(np.nanmax(values)))
    grey = np.clip((np.nan_to_num(values, nan=low) - low) / ((high - low) or 1.0), 0, 1)
    file = io.BytesIO()
    Image.fromarray(np.round(255 * grey).astype(np.uint8)).save(file, format="PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def cells_in_mm(
    grid: TokenGrid, placement: Placement, spacing_mm: tuple[float, float]
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return where a site's cells lie on an image: first centre and step, (row, column) in mm from its top-left corner.

    Parameters
    ----------
    grid
        The site's cells in the model's input.
    placement
        From the input to the image.
    spacing_mm
        Millimetres per image pixel, (row, column).

    """
    spacing = np.asarray(spacing_mm)
    centre = placement.to_image(np.asarray(grid.first_centre)) * spacing
    step = np.asarray(grid.stride) * np.asarray(placement.scale) * spacing
    return (float(centre[0]), float(centre[1])), (float(step[0]), float(step[1]))


def image_with_overlay(
    image: str,
    size_mm: tuple[float, float],
    values: Float[np.ndarray, "row column"] | None = None,
    *,
    first_centre_mm: tuple[float, float] = (0.0, 0.0),
    step_mm: tuple[float, float] = (1.0, 1.0),
    label: str = "activation",
    unit: str = "",
    limits: tuple[float, float] | None = None,
    opacity: float = 0.62,
    paint_zero: bool = False,
    colour_bar: bool = True,
    orientation: Mapping[str, str] | None = None,
    length_unit: str = "mm",
    width_px: int | None = None,
) -> go.Figure:
    """Draw a picture in millimetres with values painted over the cells they belong to.

    The picture and the cells share one coordinate system, millimetres from the picture's top-left corner with rows
    downwards, and one aspect; what lies over what is therefore fixed by the numbers, whatever the screen's size.

    Parameters
    ----------
    image
        URL of the picture: a path relative to the page, or a ``data:`` URL from :func:`picture_url`.
    size_mm
        Height and width of the picture.
    values
        One value per cell, or ``None`` for the picture alone. Not-a-number is left unpainted.
    first_centre_mm
        Centre of cell (0, 0), (row, column).
    step_mm
        Distance of neighbouring centres, (row, column): a cell is painted half a step to each side of its centre.
    label, unit
        What the values are, for the colour bar.
    limits
        Values at the ends of the colour bar: zero (or the smallest value, if negative) and the largest by default. Give
        the same limits to pictures that are compared.
    opacity
        Of the overlay; 0 shows the picture alone, 1 hides it.
    paint_zero
        Paint cells whose value is exactly zero too, otherwise the picture shows there unchanged.
    colour_bar
        Whether to draw one below the picture.
    orientation
        Letters for the sides: keys among ``top``, ``bottom``, ``left``, ``right``; for example ``{"left": "R"}``.
    length_unit
        Of all lengths given and of the scale bar; ``px`` for images without physical spacing.
    width_px
        The figure's width; its height follows from the aspect. Without it the figure fills its place.

    Raises
    ------
    ShapeError
        If `values` is no grid, or the picture's size or the cells' steps are not positive.

    """
    height, width = (float(x) for x in size_mm)
    if not (height > 0 and width > 0):
        raise ShapeError(f"size_mm is ({height:g}, {width:g}): give the picture's height and width in mm, both above 0")
    if values is None:
        # A figure without any trace has no axes for the picture to stand on.
        trace: dict[str, Any] = {
            "type": "scatter", "x": [0, width], "y": [0, height], "mode": "markers", "marker": {"opacity": 0},
            "hoverinfo": "skip", "showlegend": False,
        }  # fmt: skip
    else:
        trace = _heatmap(
            np.asarray(values, dtype=float),
            first_centre_mm,
            step_mm,
            label,
            unit,
            limits,
            opacity,
            paint_zero,
            colour_bar,
            length_unit,
        )
    bar = COLOUR_BAR_PX if values is not None and colour_bar else 0
    picture = {
        "source": image, "xref": "x", "yref": "y", "x": 0, "y": 0, "sizex": width, "sizey": height,
        "xanchor": "left", "yanchor": "top", "sizing": "stretch", "layer": "below",
    }  # fmt: skip
    bar_shapes, bar_text = _scale_bar(height, width, length_unit)
    axis = {"visible": False, "constrain": "domain", "fixedrange": True}
    layout: dict[str, Any] = {
        "images": [picture],
        "shapes": bar_shapes,
        "annotations": [bar_text, *_side_letters(orientation or {})],
        "xaxis": {**axis, "range": [0, width]},
        "yaxis": {**axis, "range": [height, 0], "scaleanchor": "x", "scaleratio": 1},
        "margin": {"l": 0, "r": 0, "t": 0, "b": bar},
        "showlegend": False,
    }
    if width_px is not None:
        layout |= {"width": width_px, "height": round(width_px * height / width) + bar}
    return themed_figure([trace], layout)


def _heatmap(
    values: Float[np.ndarray, "row column"],
    first: tuple[float, float],
    step: tuple[float, float],
    label: str,
    unit: str,
    limits: tuple[float, float] | None,
    opacity: float,
    paint_zero: bool,
    colour_bar: bool,
    length_unit: str,
) -> dict[str, Any]:
    """Return the cells as a heatmap; ``x0`` and ``dx`` say where each lies, so that even a single cell has a size."""
    if values.ndim != 2 or not values.size:
        raise ShapeError(
            f"values have shape {values.shape}: an overlay needs one value per (row, column) of the site's grid"
        )
    if not (step[0] > 0 and step[1] > 0):
        raise ShapeError(f"step_mm is ({step[0]:g}, {step[1]:g}): neighbouring cells must be more than 0 mm apart")
    finite = values[np.isfinite(values)]
    low, high = limits if limits is not None else (min(0.0, finite.min(initial=0.0)), finite.max(initial=0.0))
    name = f"{label} [{unit}]" if unit else label
    lengths = as_text(length_unit)
    # Single precision halves the page; a screen shows eight bits.
    shown = (values if paint_zero else np.where(values == 0, np.nan, values)).astype(np.float32)
    return {
        "type": "heatmap", "z": shown, "x0": first[1], "dx": step[1], "y0": first[0], "dy": step[0],
        "zmin": float(low), "zmax": float(high) if high > low else float(low) + 1.0,
        "colorscale": HEAT, "opacity": opacity, "hoverongaps": False, "showscale": colour_bar, "name": as_text(name),
        "hovertemplate": f"row %{{y:.0f}} {lengths}, column %{{x:.0f}} {lengths}<br>" + as_text(name) + " %{z:.3g}<extra></extra>",
        "colorbar": {
            "orientation": "h", "thickness": 8, "len": 0.9, "y": -0.02, "yanchor": "top", "outlinewidth": 0, "ypad": 2,
            "title": {"text": as_text(name), "side": "bottom", "font": {"size": 11}},
            "tickfont": {"size": 11}, "nticks": 5,
        },
    }  # fmt: skip


def _scale_bar(height: float, width: float, length_unit: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return a bar with its length for the lower left, light on dark so that it reads on any picture."""
    length = scale_bar_mm(width)
    left, row = 0.04 * width, 0.955 * height
    ends = {"type": "line", "x0": left, "x1": left + length, "y0": row, "y1": row, "name": "scale bar"}
    lines = [{**ends, "line": {"color": colour, "width": px}} for colour, px in (("#000000", 6), ("#ffffff", 3))]
    text = {
        "x": left, "y": row, "text": f"{length:g} {as_text(length_unit)}", "xanchor": "left", "yanchor": "bottom", "yshift": 3,
        "showarrow": False, "font": {"size": 11, "color": "#ffffff"}, "bgcolor": ON_PICTURE, "borderpad": 1,
    }  # fmt: skip
    return lines, text


def _side_letters(letters: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return a letter for the middle of each named side."""
    places = {
        "top": (0.5, 1.0, "center", "top"),
        "bottom": (0.5, 0.0, "center", "bottom"),
        "left": (0.0, 0.5, "left", "middle"),
        "right": (1.0, 0.5, "right", "middle"),
    }
    return [
        {
            "text": as_text(letters[side]), "xref": "x domain", "yref": "y domain", "x": x, "y": y,
            "xanchor": horizontal, "yanchor": vertical, "showarrow": False, "borderpad": 2,
            "font": {"size": 12, "color": "#ffffff"}, "bgcolor": ON_PICTURE,
        }
        for side, (x, y, horizontal, vertical) in places.items()
        if letters.get(side)
    ]  # fmt: skip
