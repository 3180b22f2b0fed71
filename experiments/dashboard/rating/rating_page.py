"""The page a rater works with: one file that opens from disk, holds no names, and saves answers as JSON or CSV."""

from __future__ import annotations

import json
from html import escape
from importlib.resources import files as package_files
from pathlib import Path
from string import Template
from typing import Any

from experiments.dashboard.rating.items import Plan
from experiments.dashboard.rating.pictures import marked_picture
from experiments.dashboard.run_view import RunView
from mechinterp.files import write_bytes, write_json
from mechinterp.progress import SILENT, Progress

PAGE = "rating.html"
KEY_FOLDER = "ratings"
TITLE = "What do these images have in common?"


def write_rating(view: RunView, plan: Plan, out: Path, *, progress: Progress = SILENT) -> tuple[Path, Path]:
    """Write the page for raters into a folder, and its key into the run; return both paths.

    Parameters
    ----------
    view
        The run.
    plan
        The items.
    out
        Folder of the page, outside of what is published with names.
    progress
        Sees every item.

    Raises
    ------
    DiskError
        If a file cannot be written.

    """
    items = [
        {
            "item": item.name,
            "gallery": [marked_picture(view, shown) for shown in item.gallery],
            "candidates": [marked_picture(view, shown) for shown in item.candidates],
        }
        for item in progress.track(plan.items, "items", total=len(plan.items))
    ]
    page = Path(out) / PAGE
    write_bytes(page, rating_html({"plan": plan.name, "items": items}).encode())
    key = view.run_dir / KEY_FOLDER / f"key-{plan.name}.json"
    write_json(key, plan.key())
    return page, key


def rating_html(content: dict[str, Any]) -> str:
    """Return the page; nothing in its content can end the script that holds it."""

    def asset(name: str) -> str:
        return package_files("experiments.dashboard").joinpath(name).read_text(encoding="utf-8")

    data = json.dumps(content, separators=(",", ":"))
    for character in "<>&":
        data = data.replace(character, f"\\u{ord(character):04x}")
    return Template(asset("static/rating.html")).substitute(
        title=escape(TITLE),
        style=asset("assets/style.css"),
        script=asset("assets/widgets.js") + asset("static/rating.js"),
        data=data,
    )
