"""The pages that single stages write into a run, found again so that they stand in the run's one navigation."""

from __future__ import annotations

import html
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from experiments.dashboard.notes import FILE as NOTES

EXPORT = "mechinterp-pages.json"
"""Stands in a folder that is an export of pages; its own pages are none of a stage's."""

DEEPEST = 4
SCRIPT = "plotly.min.js"  # beside pages that do not hold it themselves
_TITLE = re.compile(r"<title>(.*?)</title>", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True)
class Room:
    """A part of the navigation.

    Parameters
    ----------
    name
        Its heading.
    stems
        Names of files, without their ending, that belong there.
    commands
        What writes them, said where there are none.
    folder
        Whatever is called in a folder of this name belongs there too.

    """

    name: str
    stems: tuple[str, ...]
    commands: str
    folder: str = ""


ROOMS = (
    Room("The five-element report", ("report",), "mechinterp report"),
    Room("Training and comparison of autoencoders", ("training", "pareto"), "mechinterp train-sae, compare-saes"),
    Room("Attribute matrix", ("attributes",), "mechinterp attributes"),
    Room("Probes and layer profiles", ("probe",), "mechinterp probe", "probes"),
    Room("Interpretable heads", (), "mechinterp heads", "heads"),
    Room("Circuits", ("circuit",), "mechinterp circuit"),
    Room("Localization", ("localization",), "mechinterp localize"),
    Room("Shortcuts, edits, steering", ("shortcuts", "edit", "steer", "counterfactuals"), "mechinterp shortcuts, edit, steer, counterfactuals"),
    Room("Subgroups and deferral", ("subgroups", "defer"), "mechinterp subgroups, defer"),
    Room("Checkpoints", ("diff-models",), "mechinterp diff-models"),
    Room("Ratings by people", ("ratings",), "mechinterp rate, ratings"),
)  # fmt: skip
OTHER = Room("Other pages", (), "")


@dataclass(frozen=True)
class RunPage:
    """A page that a stage wrote.

    Parameters
    ----------
    path
        Relative to the run.
    title
        As it stands in the page.
    room
        Where it belongs.

    """

    path: str
    title: str
    room: Room


def pages_of_stages(run_dir: Path) -> list[RunPage]:
    """Return the pages of stages in a run, in the order of their rooms; exports and hidden folders are left out."""
    found = [_page(run_dir, path) for path in _html_files(run_dir)]
    order = {room.name: i for i, room in enumerate((*ROOMS, OTHER))}
    return sorted(found, key=lambda page: (order[page.room.name], page.path))


def files_of_run(run_dir: Path) -> frozenset[str]:
    """Return the files beside the pictures that the pages may show, relative to the run.

    Those are stages' pages, the drawing script that some of them have beside them, and the notes.
    """
    pages = {page.path for page in pages_of_stages(run_dir)}
    scripts = {PurePosixPath(page).with_name(SCRIPT).as_posix() for page in pages}
    notes = {NOTES} if (run_dir / NOTES).is_file() else set()
    return frozenset(pages | {script for script in scripts if _is_own_file(run_dir / script)} | notes)


def _is_own_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _html_files(run_dir: Path) -> Iterator[PurePosixPath]:
    base = run_dir.resolve()
    for folder, inside, names in os.walk(base):
        here = Path(folder).relative_to(base)
        if EXPORT in names or len(here.parts) >= DEEPEST:
            inside.clear()
        inside[:] = sorted(name for name in inside if not name.startswith("."))
        if EXPORT in names:
            continue
        for name in sorted(names):
            path = here / name
            # a link may lead out of the run
            if name.endswith(".html") and (base / path).resolve().is_relative_to(base):
                yield PurePosixPath(path.as_posix())


def _page(run_dir: Path, path: PurePosixPath) -> RunPage:
    with (run_dir / path).open("rb") as file:
        match = _TITLE.search(file.read(4096).decode("utf-8", errors="replace"))
    title = html.unescape(match[1]).strip() if match else ""
    room = next((r for r in ROOMS if r.folder and r.folder in path.parts[:-1]), None)
    room = room or next((r for r in ROOMS if path.stem in r.stems), OTHER)
    return RunPage(path.as_posix(), title or path.stem, room)
