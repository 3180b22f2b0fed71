"""What a reader writes about a page, kept in the run as ``notes.json``: plain text, one note a page."""

from __future__ import annotations

import datetime
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from experiments.dashboard.record import Record
from mechinterp.errors import ConfigError, DamagedFileError
from mechinterp.files import read_json, write_json

FILE = "notes.json"
FORMAT = 1
LONGEST = 20_000
"""Characters of one note."""


@dataclass(frozen=True)
class Note:
    """One note.

    Parameters
    ----------
    text
        As it was written.
    written
        When, in ISO 8601 with the zone.

    """

    text: str
    written: str


class Notes:
    """The notes of one run.

    Parameters
    ----------
    run_dir
        The run's folder.

    """

    def __init__(self, run_dir: Path) -> None:
        self.path = Path(run_dir) / FILE
        self._lock = threading.Lock()

    def read(self) -> dict[str, Note]:
        """Return all notes by the address of their page; none where nothing was written.

        Raises
        ------
        DamagedFileError
            If the file is there and holds no notes of this format.

        """
        if not self.path.is_file():
            return {}
        content = Record(read_json(self.path))
        if content["format"].integer() != FORMAT or not isinstance(content["notes"].value, dict):
            raise DamagedFileError(f"{self.path} holds no notes of format {FORMAT}: move it away to begin anew")
        notes = {slug: Note(note["text"].text(), note["written"].text()) for slug, note in content["notes"].items()}
        return {slug: note for slug, note in notes.items() if note.text}

    def of(self, slug: str) -> Note | None:
        """Return a page's note, if it has one."""
        return self.read().get(slug)

    def write(self, slug: str, text: str, *, instead_of: str) -> Note | None:
        """Put a note in place of what the reader saw there; an empty one removes it.

        The whole file is written under another name and moved into its place, so that no reader and no crash ever sees half
        of it.

        Parameters
        ----------
        slug
            The page's address.
        text
            The note.
        instead_of
            The text that the reader's page showed before, so that a note written in another window is not lost unseen.

        Returns
        -------
        Note or None
            What stands there now.

        Raises
        ------
        ConfigError
            If the note is too long, or another one stands there by now.
        DiskError
            If it cannot be written.

        """
        text = text.strip()
        if len(text) > LONGEST:
            raise ConfigError(f"the note has {len(text):,} characters: at most {LONGEST:,} are kept; shorten it")
        with self._lock:
            notes = self.read()
            there = notes[slug].text if slug in notes else ""
            if there not in (instead_of.strip(), text):
                raise ConfigError(
                    "the note was changed in another window: copy your text, load the page again, then save"
                )
            if there == text:
                return notes.get(slug)
            notes.pop(slug, None)
            if text:
                now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
                notes[slug] = Note(text, now)
            self._save(notes)
            return notes.get(slug)

    def _save(self, notes: Mapping[str, Note]) -> None:
        content = {slug: {"text": note.text, "written": note.written} for slug, note in sorted(notes.items())}
        write_json(self.path, {"format": FORMAT, "notes": content})
