"""What single stages wrote about the run: one list, so that nothing that was found is out of reach."""

from __future__ import annotations

from experiments.dashboard.page import Block, Facts, File, Files, Heading, Page, Text
from experiments.dashboard.run_files import OTHER, ROOMS, pages_of_stages
from experiments.dashboard.run_view import RunView

SLUG = "stages"


def build(view: RunView) -> Page:
    """Build the list."""
    found = pages_of_stages(view.run_dir)
    blocks: list[Block] = [
        Text(
            (
                "Pages that commands wrote into this run, each one file that opens alone. What was not run is named with its command.",
            ),
            "muted",
        )
    ]
    for room in (*ROOMS, OTHER):
        inside = [page for page in found if page.room == room]
        if inside:
            files = tuple(File(page.path, page.title, f"({page.path})") for page in inside)
            blocks += [Heading(room.name, 3), Files(room.name, files)]
    absent = [room for room in ROOMS if not any(page.room == room for page in found)]
    if absent:
        blocks.append(Heading("Not run", 3))
        blocks.append(Facts(tuple((room.name, f"not run: {room.commands}") for room in absent)))
    return Page(SLUG, "All results", tuple(blocks))
