"""One file with a heading, some lines and some figures, which opens from disk and can be sent: what a single stage shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files as package_files
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.dashboard.html_text import to_html
from mechinterp.files import write_bytes

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from experiments.dashboard.markup import Element
    from experiments.dashboard.page import FeatureTable, FigureBlock

NOTICE = "Research use only. Not a medical device."


@dataclass(frozen=True)
class Shown:
    """A figure with what it is called and what it says, for those who cannot see it.

    Parameters
    ----------
    heading
        Above it.
    figure
        The figure.
    text
        Below the heading: what to look for, in words.

    """

    heading: str
    figure: go.Figure
    text: str = ""


def write_single_page(
    path: Path,
    title: str,
    lines: Sequence[str],
    figures: Sequence[Shown],
    *,
    before: Sequence[Element] = (),
    after: Sequence[Element] = (),
    style: str = "",
    script: str = "",
    refresh_seconds: int | None = None,
) -> Path:
    """Write a page.

    Parameters
    ----------
    path
        Where; an earlier page there is replaced once this one is whole.
    title
        Of the page.
    lines
        Paragraphs of plain text, shown before Plotly is loaded.
    figures
        Under them.
    before, after
        What else stands there: between lines and figures, and under the figures.
    style, script
        The page's own, for what `before` and `after` hold; the script runs before Plotly is read.
    refresh_seconds
        After how long a browser reads the page anew, while the work it shows goes on.

    Raises
    ------
    DiskError
        If the file cannot be written.

    """
    from plotly.offline import get_plotlyjs

    common = package_files("experiments.dashboard").joinpath("assets/style.css").read_text(encoding="utf-8")
    refresh = f'<meta http-equiv="refresh" content="{refresh_seconds}">' if refresh_seconds else ""
    text = "".join(f'<p class="text">{escape(line)}</p>' for line in lines)
    parts = [
        f'<h2>{escape(shown.heading)}</h2><p class="text">{escape(shown.text)}</p>'
        f'<div id="figure-{at}" role="img" aria-label="{escape(shown.heading)}. {escape(shown.text)}"></div>'
        for at, shown in enumerate(figures)
    ]
    # a figure's strings may hold markup: inside a script only "<" could end it
    calls = "".join(
        f"draw({at}, {(shown.figure.to_json() or '').replace('<', chr(92) + 'u003c')});"
        for at, shown in enumerate(figures)
    )
    above, below = ("".join(to_html(node, _refused) for node in nodes) for nodes in (before, after))
    own = f"<script>{script}</script>" if script else ""
    draw = (
        "function draw(at, figure) { Plotly.newPlot('figure-' + at, figure.data, figure.layout, "
        "{responsive: true, displaylogo: false, displayModeBar: false}); }"
    )
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'{refresh}<title>{escape(title)}</title><link rel="icon" href="data:,"><style>{common}{style}</style></head>'
        f'<body><main><div class="page"><h1>{escape(title)}</h1>{text}{above}{"".join(parts)}{below}'
        f'<p class="text muted">{NOTICE}</p></div></main>'
        f"{own}<script>{get_plotlyjs()}</script><script>{draw}{calls}</script></body></html>\n"
    )
    write_bytes(path, page.encode())
    return path


def _refused(block: FigureBlock | FeatureTable) -> Element:
    raise TypeError(f"a single page draws no {type(block).__name__}: give its figure among the figures")
