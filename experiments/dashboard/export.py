"""A run's pages as a folder that opens from disk, without a server and without any network.

Browsers refuse ``fetch`` and modules on ``file://``, so ``index.html`` is a shell that loads each page as a small script
when it is asked for: ten thousand features are ten thousand files, of which a reader loads the one that is read. The text
appears first; Plotly, which weighs five megabytes, is loaded after it, once.
"""

from __future__ import annotations

import json
import os
import shutil
from functools import cache
from html import escape
from importlib.resources import files as package_files
from pathlib import Path
from string import Template
from typing import Any

import plotly
from plotly.utils import PlotlyJSONEncoder

from experiments.dashboard.feature_details import ensure_details
from experiments.dashboard.html_text import to_html
from experiments.dashboard.markup import Element, Node, element, href, page_elements
from experiments.dashboard.page import FeatureTable, FigureBlock, Link, Page, sort_key
from experiments.dashboard.run_files import EXPORT, files_of_run
from experiments.dashboard.run_view import RunView
from experiments.dashboard.site import STORED_DESKS, Pages, missing_page, stamps
from mechinterp.errors import ConfigError, DiskError
from mechinterp.figures import theme
from mechinterp.progress import SILENT, Progress

WIDGETS = ("widgets.js", "widgets_desk.js", "widgets_notes.js", "widgets_window.js")
"""Scripts that the served pages have too; the first is what the others register with."""

MARKER = EXPORT
"""Names a folder as an export, so that a later export may replace it and nothing else."""


def export_static(run_dir: Path, out: Path, progress: Progress = SILENT, *, stored_desks: int = STORED_DESKS) -> Path:
    """Write a run's pages to a folder and return the path of its ``index.html``.

    Parameters
    ----------
    run_dir
        The run.
    out
        The folder to make. An earlier export there is replaced once the new one is whole; until then it is untouched.
    progress
        Told of every page.
    stored_desks
        On how many images moves of the intervention desk are computed beforehand; 0 loads no model and
        computes nothing that the run does not hold.

    Raises
    ------
    ConfigError
        If the run has no results, or `out` holds something that is no export.
    DiskError
        If the folder cannot be written.

    """
    pages = Pages(RunView.read(Path(run_dir)), stored_desks=stored_desks)
    if stored_desks:
        ensure_details(pages.view, pages.desk, progress=progress)
    out = Path(out).resolve()
    _refuse_foreign(out)
    building = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        building.mkdir(parents=True)
        _write_site(pages, building, progress)
        _put_in_place(building, out)
    except OSError as error:
        raise DiskError(f"cannot write {out}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return out / "index.html"


def _refuse_foreign(out: Path) -> None:
    if out.is_dir() and not any(out.iterdir()):
        return
    if out.exists() and not (out / MARKER).is_file():
        raise ConfigError(f"{out} exists and is no export of pages: choose another folder, or remove it first")


def _put_in_place(building: Path, out: Path) -> None:
    """Move the finished folder to its place; what stood there goes only when the new one is whole."""
    old = out.with_name(f".{out.name}.{os.getpid()}.old")
    if out.exists():
        out.replace(old)
    building.replace(out)
    shutil.rmtree(old, ignore_errors=True)


def _write_site(pages: Pages, folder: Path, progress: Progress) -> None:
    view = pages.view
    for name in ("style.css", *WIDGETS):
        _copy_asset(f"assets/{name}", folder / name)
    _copy_asset("static/site.js", folder / "site.js")
    shutil.copyfile(Path(plotly.__file__).parent / "package_data" / "plotly.min.js", folder / "plotly.min.js")
    copies = [(name, name) for name in sorted(view.pictures)]
    copies += [(name, f"files/{name}") for name in sorted(files_of_run(view.run_dir))]
    for name, place in copies:
        target = folder / place
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(view.run_dir / name, target)
    made: set[Path] = set()
    for slug in progress.track(pages, "writing pages", total=len(pages)):
        file = folder / "pages" / f"{slug}.js"
        if file.parent not in made:
            file.parent.mkdir(parents=True, exist_ok=True)
            made.add(file.parent)
        file.write_text(_script("mechinterpPage", payload(pages[slug])), encoding="utf-8")
    manifest = {
        "title": view.title,
        "start": next(iter(pages)),
        "slugs": list(pages),
        "missing": payload(missing_page("…")),
        "theme": theme(),
    }
    (folder / "manifest.js").write_text(_script("window.mechinterpManifest = ", manifest), encoding="utf-8")
    (folder / MARKER).write_text(json.dumps({"format": 1, "pages": len(pages)}) + "\n", encoding="utf-8")
    (folder / "index.html").write_text(_shell(pages), encoding="utf-8")


def _copy_asset(name: str, target: Path) -> None:
    target.write_bytes(package_files("experiments.dashboard").joinpath(name).read_bytes())


def payload(page: Page) -> dict[str, Any]:
    """Return what the shell's script needs of a page: its HTML, its figures, its feature table."""
    leaves: list[FigureBlock | FeatureTable] = []

    def leaf(block: FigureBlock | FeatureTable) -> Element:
        leaves.append(block)
        return placeholder(block, len(leaves) - 1)

    html = to_html(page_elements(page), leaf)
    return {
        "slug": page.slug,
        "title": page.title,
        "html": html,
        "figures": {i: figure_json(b) for i, b in enumerate(leaves) if isinstance(b, FigureBlock)},
        "tables": {i: table_json(b) for i, b in enumerate(leaves) if isinstance(b, FeatureTable)},
    }


def placeholder(block: FigureBlock | FeatureTable, number: int) -> Element:
    """Return what stands where the script will draw."""
    if isinstance(block, FeatureTable):
        return element("div", css="feature-table", data_table=str(number))
    waiting: Node = element("span", "drawing …", css="waiting")
    named = {"data_plot": block.name} if block.name else {}
    return element(
        "div", waiting, css="plot", data_figure=str(number), role="img", aria_label=block.alt,
        style=f"height: {block.height_px}px", **named,
    )  # fmt: skip


def figure_json(block: FigureBlock) -> dict[str, Any]:
    """Return a figure's data and layout; the theme is left out, for it is the same for all and stands in the manifest."""
    figure = block.figure.to_plotly_json()
    layout = dict(figure["layout"])
    layout.pop("template", None)
    return {"data": figure["data"], "layout": layout}


def table_json(table: FeatureTable) -> dict[str, Any]:
    """Return a feature table's texts and sort keys, so that the browser formats nothing itself."""
    rows = []
    for row in table.rows:
        texts = [column.text(cell) for column, cell in zip(table.columns, row, strict=True)]
        slugs = [cell.slug for cell in row if isinstance(cell, Link)]
        rows.append([slugs[0] if slugs else "", texts, [sort_key(cell) for cell in row]])
    return {
        "caption": table.caption,
        "columns": [{"label": c.heading, "numeric": c.numeric, "explanation": c.explanation} for c in table.columns],
        "rows": rows,
        "filters": [{"column": i, "choices": table.choices(i)} for i in table.filters],
        "sort": table.sort,
        "descending": table.descending,
        "pageRows": table.page_rows,
    }


def _script(function: str, value: object) -> str:
    """Return a script that hands a value to a function; nothing in the value can end the script or open a tag."""
    text = json.dumps(value, cls=PlotlyJSONEncoder, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return f"{function}({text});\n"


def _shell(pages: Pages) -> str:
    view = pages.view
    links = [
        element("li", element("a", link.text, href=href(link.slug), data_slug=link.slug)) for link in pages.navigation
    ]
    footer = escape(" · ".join(stamp.text for stamp in stamps(view) if not stamp.banner))
    return _template().substitute(
        title=escape(view.title),
        navigation=to_html(element("ul", *links), _no_leaf),
        stamps=footer,
        widgets="".join(f'<script src="{name}"></script>\n' for name in WIDGETS),
    )


def _no_leaf(block: FigureBlock | FeatureTable) -> Element:
    raise TypeError(f"the shell holds no {type(block).__name__}")


@cache
def _template() -> Template:
    return Template(package_files("experiments.dashboard").joinpath("static/index.html").read_text(encoding="utf-8"))
