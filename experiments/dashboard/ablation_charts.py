"""Figures of the set experiment: what happens as more features are replaced, beside sets chosen at random."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from experiments.dashboard.charts import Numbers
from mechinterp.figures import COLOURS, apply_theme, as_text

CONTROL_FILL = "rgba(138, 148, 158, 0.28)"


@dataclass(frozen=True)
class Curve:
    """One quantity over the number of features replaced, beside the random sets.

    Parameters
    ----------
    name
        The ablation.
    sizes
        How many features were replaced.
    chosen
        The chosen set's value at each size.
    median, low, high
        Of the random sets: the middle one and the 95 % band.

    """

    name: str
    sizes: Numbers
    chosen: Numbers
    median: Numbers = ()
    low: Numbers = ()
    high: Numbers = ()


def set_size_curves(flipped: Sequence[Curve], delta: Sequence[Curve], chosen_size: float | None = None) -> go.Figure:
    """Draw the share of answers flipped (above) and the logit difference's change (below), one column per ablation.

    All columns share their axes' ranges, so that heights can be compared across ablations.
    """
    from plotly.subplots import make_subplots

    rows = [
        (curves, title)
        for curves, title in ((flipped, "answers flipped"), (delta, "change of logit difference"))
        if curves
    ]
    columns = max((len(curves) for curves, _ in rows), default=1)
    titles = [as_text(curve.name) for curve in (rows[0][0] if rows else ())]
    figure = make_subplots(
        rows=max(len(rows), 1), cols=columns, shared_xaxes=True, shared_yaxes=True,
        column_titles=titles or None, horizontal_spacing=0.025, vertical_spacing=0.07,
    )  # fmt: skip
    for row, (curves, title) in enumerate(rows, start=1):
        for column, curve in enumerate(curves, start=1):
            _draw(figure, curve, row, column, first=row == 1 and column == 1)
            if chosen_size is not None:
                figure.add_vline(
                    x=chosen_size, line={"color": COLOURS["line"], "width": 1, "dash": "dash"}, row=row, col=column
                )
        figure.update_yaxes(title_text=title, row=row, col=1)
    apply_theme(figure)
    if flipped:
        figure.update_yaxes(range=[-0.03, 1.05], tickformat=".0%", row=1)
    if delta:
        figure.update_yaxes(zeroline=True, zerolinecolor=COLOURS["line"], range=_common_range(delta), row=len(rows))
    figure.update_xaxes(title_text="features replaced", row=max(len(rows), 1))
    figure.update_layout(legend={"y": 1.07, "yanchor": "bottom"}, margin={"t": 64})
    return figure


def before_after(
    before: Numbers, after: Numbers, names: Sequence[str], target: str, threshold: float | None
) -> go.Figure:
    """Draw each image's probability of the target before and after as a line between two axes.

    A line that ends below one half is drawn in another colour and with an open mark: the model no longer favours the
    target there.
    """
    figure = go.Figure()
    groups: dict[bool, list[int]] = {False: [], True: []}
    for i, (b, a) in enumerate(zip(before, after, strict=False)):
        if b is not None and a is not None:
            groups[a < 0.5].append(i)
    styles = {
        False: ("stays above 0.5", COLOURS["blue"], "circle"),
        True: ("falls below 0.5", COLOURS["vermilion"], "circle-open"),
    }
    for fallen, images in groups.items():
        name, colour, symbol = styles[fallen]
        x: list[str | None] = []
        y: list[float | None] = []
        text: list[str] = []
        for i in images:
            x += ["before", "after", None]
            y += [before[i], after[i], None]
            text += [as_text(names[i]) if i < len(names) else ""] * 3
        if images:
            figure.add_scatter(
                x=x, y=y, text=text, mode="lines+markers", name=f"{name} ({len(images)})", opacity=0.75,
                line={"color": colour, "width": 1.2}, marker={"symbol": symbol, "size": 6},
                hovertemplate="%{text}: %{y:.3f}<extra>%{x}</extra>",
            )  # fmt: skip
    if threshold is not None:
        figure.add_hline(y=threshold, line={"color": COLOURS["line"], "width": 1, "dash": "dot"})
    apply_theme(figure)
    figure.update_xaxes(
        type="category", categoryorder="array", categoryarray=["before", "after"], range=[-0.25, 1.25], showgrid=False
    )
    figure.update_yaxes(title_text=as_text(f"p({target})"), range=[-0.03, 1.05])
    figure.update_layout(showlegend=True)
    return figure


def _common_range(curves: Sequence[Curve]) -> list[float]:
    """Return a range that holds every curve and zero, so that no column hides what another shows."""
    lines = [line for curve in curves for line in (curve.chosen, curve.median, curve.low, curve.high)]
    values = [0.0, *(value for line in lines for value in line if value is not None)]
    room = 0.06 * ((max(values) - min(values)) or 1.0)
    return [min(values) - room, max(values) + room]


def _draw(figure: go.Figure, curve: Curve, row: int, column: int, *, first: bool) -> None:
    """Draw the random sets' band and median, and the chosen set over them."""
    place = {"row": row, "col": column}
    inside = [
        (n, lo, hi) for n, lo, hi in zip(curve.sizes, curve.low, curve.high, strict=False) if None not in (n, lo, hi)
    ]
    if inside:
        forth, back = inside, inside[::-1]
        figure.add_scatter(
            x=[n for n, _, _ in forth] + [n for n, _, _ in back],
            y=[hi for _, _, hi in forth] + [lo for _, lo, _ in back],
            fill="toself", fillcolor=CONTROL_FILL, line={"width": 0}, mode="lines", hoverinfo="skip",
            name="random sets, 95 %", legendgroup="band", showlegend=first, **place,
        )  # fmt: skip
    if curve.median:
        figure.add_scatter(
            x=list(curve.sizes), y=list(curve.median), mode="lines", name="random sets, median", legendgroup="median",
            line={"color": COLOURS["muted"], "width": 1.5, "dash": "dash"}, showlegend=first,
            hovertemplate="%{x} features: %{y:.3g}<extra>random sets, median</extra>", **place,
        )  # fmt: skip
    figure.add_scatter(
        x=list(curve.sizes), y=list(curve.chosen), mode="lines+markers", name="chosen set", legendgroup="chosen",
        line={"color": COLOURS["blue"], "width": 2.5}, marker={"size": 6}, showlegend=first,
        hovertemplate="%{x} features: %{y:.3g}<extra>chosen set</extra>", **place,
    )  # fmt: skip
