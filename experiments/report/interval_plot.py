"""A claim's metric with its interval, beside its criterion and controls: drawn as SVG, so that it needs no script and prints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from experiments.dashboard.formatting import format_value
from experiments.dashboard.markup import Element, Node

WIDTH, LEFT, RIGHT, ROW, TOP = 760, 250, 650, 24, 26
CLAIM, CONTROL, CRITERION = "#00598c", "#a53f00", "#556270"


def interval_plot(claim: Mapping[str, Any], path: str) -> Element | None:
    """Return the plot of a claim's JSON, or ``None`` where it has no value to draw.

    Controls are drawn where they are measured in the claim's own metric and held against a bound.

    Parameters
    ----------
    claim
        As in the report's JSON.
    path
        JSON pointer of the claim: every number that is drawn carries its own.

    """
    value, interval, bound = claim["value"], claim["interval"], claim.get("bound")
    if value is None:
        return None
    controls = [
        (at, c)
        for at, c in enumerate(claim["controls"])
        if c["value"] is not None and c.get("bound") is not None and not c.get("measure")
    ]
    known: list[float] = [
        value,
        *(interval or ()),
        *([bound["threshold"]] if bound else ()),
        *(c["value"] for _, c in controls),
    ]
    if len(set(known)) < 2:
        return None
    low, high = float(min(known)), float(max(known))
    pad = 0.06 * (high - low)

    def x(number: float) -> float:
        return LEFT + (number - low + pad) / (high - low + 2 * pad) * (RIGHT - LEFT)

    height = TOP + ROW * (1 + len(controls)) + 6
    parts: list[Node] = []
    if bound:
        at = x(bound["threshold"])
        parts += [
            _line(at, TOP - 8, at, height - 4, CRITERION, 1.5, dash="4 3"),
            _text(
                at,
                12,
                f"criterion: {bound['side']} {format_value(bound['threshold'])}",
                f"{path}/bound/threshold",
                "middle",
            ),
        ]
    y = TOP + ROW / 2
    parts.append(_text(0, y + 4, "this claim"))
    if interval:
        parts.append(_line(x(interval[0]), y, x(interval[1]), y, CLAIM, 5))
    parts += [
        _mark("circle", CLAIM, cx=f"{x(value):.1f}", cy=f"{y:.1f}", r="6"),
        _text(RIGHT + 14, y + 4, format_value(value), f"{path}/value"),
    ]
    for row, (at, control) in enumerate(controls, 1):
        y = TOP + ROW * (row + 0.5)
        name = control["name"]
        parts += [
            _text(0, y + 4, name if len(name) < 40 else f"{name[:38]}…", f"{path}/controls/{at}/name", faint=True),
            _mark("rect", CONTROL, x=f"{x(control['value']) - 5:.1f}", y=f"{y - 5:.1f}", width="10", height="10"),
            _text(RIGHT + 14, y + 4, format_value(control["value"]), f"{path}/controls/{at}/value", faint=True),
        ]
    label = "The metric with its interval, its criterion as a dashed line, and its controls as squares; the same numbers stand in the text"
    attributes = {"class": "interval-plot", "viewBox": f"0 0 {WIDTH} {height:.0f}", "role": "img", "aria-label": label}
    return Element("svg", attributes, tuple(parts))


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, width: float, dash: str = "") -> Element:
    ends = {"x1": f"{x1:.1f}", "y1": f"{y1:.1f}", "x2": f"{x2:.1f}", "y2": f"{y2:.1f}"}
    dashed = {"stroke-dasharray": dash} if dash else {"stroke-linecap": "round", "opacity": "0.45"}
    return Element("line", {**ends, "stroke": colour, "stroke-width": f"{width:g}", **dashed})


def _mark(tag: str, colour: str, **place: str) -> Element:
    return Element(tag, {**place, "fill": colour})


def _text(x: float, y: float, text: str, path: str = "", anchor: str = "start", *, faint: bool = False) -> Element:
    where = {"x": f"{x:.1f}", "y": f"{y:.1f}", "text-anchor": anchor}
    return Element(
        "text", where | ({"data-path": path} if path else {}) | ({"class": "faint"} if faint else {}), (text,)
    )
