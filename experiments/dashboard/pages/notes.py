"""Reader's notes: the one on a page, and the page of all of them."""

from __future__ import annotations

from collections.abc import Mapping

from experiments.dashboard.notes import FILE, LONGEST, Note
from experiments.dashboard.page import Block, File, Files, Heading, Link, Links, Page, Text, Widget

SLUG = "notes"


def note_on_page(slug: str, note: Note | None, *, live: bool) -> list[Block]:
    """Return a page's note: to be written where a server keeps it, otherwise to be read.

    Parameters
    ----------
    slug
        The page.
    note
        Its note, if it has one.
    live
        Whether a server stands behind the page.

    """
    if live:
        config = {
            "slug": slug, "text": note.text if note else "", "written": note.written if note else "", "longest": LONGEST,
            "file": FILE,
        }  # fmt: skip
        return [Heading("Notes"), Widget("notes", config, "Note of the reader")]
    if note is None:
        return []
    return [Heading("Notes"), *_shown(note)]


def build(notes: Mapping[str, Note], titles: Mapping[str, str], *, live: bool) -> Page:
    """Build the page of all notes.

    Parameters
    ----------
    notes
        By the address of their page.
    titles
        What those pages are called; a note on a page that is no more is shown without a link.
    live
        Whether a server stands behind the page.

    """
    how = (
        f"Write on a feature's page; what you write is kept in {FILE} in the run's folder."
        if live
        else f"Notes are read-only in these pages; they were written in the served ones and stand in {FILE}."
    )
    blocks: list[Block] = [Text((how,), "muted")]
    if not notes:
        return Page(SLUG, "Notes", (*blocks, Text(("No note has been written.",))))
    for slug, note in notes.items():
        title = titles.get(slug)
        blocks.append(Heading(title or slug, 3))
        blocks += _shown(note)
        if title:
            blocks.append(Links(f"To {title}", (Link(f"Open “{title}”", slug),)))
    blocks.append(Files("The file", (File(FILE, f"All notes ({FILE})", download=True),)))
    return Page(SLUG, "Notes", tuple(blocks))


def _shown(note: Note) -> list[Block]:
    paragraphs = tuple(part for part in note.text.splitlines() if part.strip())
    return [Text(paragraphs), *([Text((f"Written {note.written}.",), "muted")] if note.written else [])]
