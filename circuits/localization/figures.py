"""Pictures of maps and of their table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Bool
from numpy.typing import NDArray

from circuits.localization.config import LEVELS
from circuits.localization.maps import RelevanceMaps
from mechinterp.errors import ConfigError, ImagesError
from mechinterp.figures import COLOURS, apply_theme, as_text
from mechinterp.picture_figures import image_with_overlay, picture_url

if TYPE_CHECKING:
    from circuits.localization.table import LocalizationTable

MOST_CONTOURS = 200


def map_figure(
    maps: RelevanceMaps, i: int = 0, *, truth: Sequence[str] = (), opacity: float = 0.7, width_px: int | None = 420
) -> go.Figure:
    """Draw what speaks for the metric over its image, in millimetres, with the contour of some masks.

    Only positive relevance is painted, and only above a fiftieth of the largest value, so that the image shows elsewhere.

    Parameters
    ----------
    maps, i
        Which image of which maps.
    truth
        Names of masks whose outline is drawn.
    opacity
        Of the map.
    width_px
        The figure's width.

    Raises
    ------
    ConfigError
        If there is no such image.
    ImagesError
        If the maps are of prepared images, which have no picture.

    """
    if not 0 <= i < len(maps):
        raise ConfigError(f"there is no image {i}: the maps are of 0 to {len(maps) - 1}")
    shown = maps.shown
    if shown.images is None:
        raise ImagesError("prepared images have no picture of their own: make maps of the image set")
    image = shown.images[i]
    (height, width), (down, across) = shown.sizes[i], shown.lengths(i)
    values = np.nan_to_num(maps.on_image(i))
    top = float(values.max())
    figure = image_with_overlay(
        picture_url(image.scaled(), (0.0, 1.0)),
        (height * down, width * across),
        np.where(values > 0.02 * top, values, 0.0),
        first_centre_mm=(0.5 * down, 0.5 * across),
        step_mm=(down, across),
        label=f"relevance by {maps.method}",
        limits=(0.0, top or 1.0),
        opacity=opacity,
        length_unit=shown.length_unit,
        width_px=width_px,
    )
    if truth:
        masks = shown.images.masks(i)
        union = np.logical_or.reduce(
            [masks[name] for name in truth if name in masks] or [np.zeros((height, width), bool)]
        )
        x, y = outline(union)
        figure.add_scatter(
            x=x * across, y=y * down, mode="lines", line={"color": "#ffffff", "width": 1.5}, hoverinfo="skip",
            name=as_text(" and ".join(truth)),
        )  # fmt: skip
    return figure


def maps_figure(maps: Sequence[RelevanceMaps], i: int = 0, *, truth: Sequence[str] = (), columns: int = 3) -> go.Figure:
    """Draw several methods' maps of one image side by side, each scaled to its own largest value.

    Parameters
    ----------
    maps
        Of the same images.
    i
        Which image.
    truth
        Names of masks whose outline is drawn.
    columns
        Pictures in a row.

    """
    from plotly.subplots import make_subplots

    if not maps:
        raise ConfigError("there are no maps to draw: give at least one")
    rows = -(-len(maps) // columns)
    titles = [as_text(m.method) for m in maps]
    grid = make_subplots(rows, columns, subplot_titles=titles, horizontal_spacing=0.02, vertical_spacing=0.06)
    pictures, bar = [], []
    for k, one in enumerate(maps):
        drawn = map_figure(one, i, truth=truth)
        row, column = divmod(k, columns)
        for trace in drawn.data:
            trace.showlegend = False
            if trace.type == "heatmap":
                trace.showscale = False
            grid.add_trace(trace, row + 1, column + 1)
        axis = "" if k == 0 else str(k + 1)
        picture = drawn.layout.images[0].to_plotly_json()
        pictures.append({**picture, "xref": f"x{axis}", "yref": f"y{axis}"})
        if k == 0:  # one scale bar is enough: all pictures are of one image
            bar = [drawn.layout.annotations[0].to_plotly_json()]
            grid.update_layout(shapes=[shape.to_plotly_json() for shape in drawn.layout.shapes])
        span = {"visible": False, "constrain": "domain"}
        grid.update_xaxes(range=drawn.layout.xaxis.range, **span, row=row + 1, col=column + 1)
        grid.update_yaxes(range=drawn.layout.yaxis.range, scaleanchor=f"x{axis}", **span, row=row + 1, col=column + 1)
    apply_theme(grid)
    grid.update_layout(
        annotations=[*grid.layout.annotations, *bar],
        images=pictures,
        width=280 * columns + 20,
        height=300 * rows + 20,
        margin={"l": 8, "r": 8, "t": 28, "b": 8},
    )
    return grid


def table_figure(table: LocalizationTable) -> go.Figure:
    """Draw the pixel AUPRC of every method with its interval over patients; baselines grey, flagged methods open."""
    figure = go.Figure()
    kinds: list[tuple[str, Any, str, str]] = [
        ("methods", lambda r: not r.baseline and not r.flags, COLOURS["blue"], "circle"),
        ("flagged methods", lambda r: not r.baseline and bool(r.flags), COLOURS["vermilion"], "circle-open"),
        ("baselines", lambda r: r.baseline, COLOURS["control"], "square"),
    ]
    for name, belongs, colour, symbol in kinds:
        rows = [r for r in table.rows if belongs(r) and r.score("auprc").value is not None]
        if not rows:
            continue
        scores = [r.score("auprc") for r in rows]
        ends = [s.interval.ends or (s.value, s.value) for s in scores]
        figure.add_scatter(
            x=[s.value for s in scores],
            y=[as_text(r.method) for r in rows],
            mode="markers",
            marker={"color": colour, "symbol": symbol, "size": 10, "line": {"width": 2, "color": colour}},
            error_x={
                "type": "data", "symmetric": False, "color": colour, "thickness": 1.5,
                "array": [(high or 0) - (s.value or 0) for s, (_, high) in zip(scores, ends, strict=True)],
                "arrayminus": [(s.value or 0) - (low or 0) for s, (low, _) in zip(scores, ends, strict=True)],
            },
            name=name,
            text=[as_text("; ".join(r.flags) or "no flag") for r in rows],
            hovertemplate="%{y}: %{x:.2f}<br>%{text}<extra></extra>",
        )  # fmt: skip
    figure.add_vline(
        x=table.prevalence, line={"color": COLOURS["muted"], "dash": "dot"}, annotation_text="noise",
        annotation_position="top right",
    )  # fmt: skip
    order = [as_text(r.method) for r in table.rows]
    figure.update_yaxes(categoryorder="array", categoryarray=order[::-1], title="")
    figure.update_xaxes(range=[0, None], title="area under the precision-recall curve, per pixel (95 % over patients)")
    return apply_theme(figure).update_layout(height=80 + 36 * len(order))


def outline(mask: Bool[NDArray[np.bool_], "height width"]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the outlines of a mask as one line with gaps: columns and rows in image pixels, ``k`` covering ``[k, k + 1)``."""
    from skimage.measure import find_contours

    padded = np.pad(np.asarray(mask, dtype=float), 1)
    contours: list[NDArray[np.float64]] = find_contours(padded, 0.5)  # type: ignore[no-untyped-call, unused-ignore]
    found = sorted(contours, key=len, reverse=True)[:MOST_CONTOURS]
    parts = [np.concatenate([c - 0.5, [[np.nan, np.nan]]]) for c in found]
    if not parts:
        return np.empty(0), np.empty(0)
    rows, columns = np.concatenate(parts).T
    return columns, rows


def scores_figure(table: LocalizationTable) -> go.Figure:
    """Return the main numbers with their intervals as a table; flagged methods say why."""
    unit = table.rows[0].score("distance").unit
    columns = [
        "method",
        "AUPRC",
        "at tokens",
        "at regions",
        "pointing",
        "Dice",
        f"distance [{unit}]",
        "deletion",
        "flags",
    ]
    lines = []
    for row in table.rows:
        by = row.scores["auprc"]
        deletion = row.faithfulness.get("deletion")
        lines.append(
            [
                row.method,
                *(by[level].text if level in by else "–" for level in LEVELS),
                *(row.score(name, next(iter(row.scores[name]))).text for name in ("pointing", "dice", "distance")),
                "–" if deletion is None else deletion.text,
                "; ".join(row.flags) or "none",
            ]
        )
    colours = [COLOURS["band"] if row.baseline else COLOURS["paper"] for row in table.rows]
    figure = go.Figure(
        go.Table(
            columnwidth=[1.3, 1.3, 1.3, 1.3, 1.3, 1.3, 1.3, 1.3, 2.6],
            header={"values": columns, "align": "left", "fill": {"color": COLOURS["grid"]}, "line": {"width": 0}},
            cells={
                "values": [[as_text(cell) for cell in column] for column in zip(*lines, strict=True)],
                "align": "left", "fill": {"color": [colours]}, "line": {"color": COLOURS["grid"]}, "height": 46,
            },
        )
    )  # fmt: skip
    return apply_theme(figure).update_layout(height=70 + 58 * len(lines), margin={"l": 0, "r": 0, "t": 8, "b": 0})
