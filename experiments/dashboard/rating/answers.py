"""Raters' files, as their page saves them: JSON or CSV, one rater each."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.dashboard.record import Record
from mechinterp.errors import ConfigError, DamagedFileError
from mechinterp.files import read_json

SEEN = ("yes", "unsure", "no")
COLUMNS = ("plan", "rater", "item", "position", "seen", "name", "match", "seconds")


@dataclass(frozen=True)
class Answer:
    """What a rater said of an item.

    Parameters
    ----------
    item
        Which.
    seen
        Whether something in common was seen: ``yes``, ``unsure`` or ``no``.
    name
        What it was called; may be empty.
    match
        Which candidate was chosen.

    """

    item: str
    seen: str
    name: str
    match: int


@dataclass(frozen=True)
class Rating:
    """One rater's answers.

    Parameters
    ----------
    plan
        Hash of the items that were shown.
    rater
        Initials or a code.
    answers
        Those that are whole; an item without both answers is left out.

    """

    plan: str
    rater: str
    answers: tuple[Answer, ...]


def read_ratings(files: Sequence[Path]) -> list[Rating]:
    """Read raters' files.

    Raises
    ------
    ConfigError
        If there is none, one rater's answers come twice, or the files answer different plans.
    DamagedFileError
        If one is not what the rater's page saves.

    """
    if not files:
        raise ConfigError("no file of ratings: give those that raters saved from their page")
    found = [_read(Path(file)) for file in files]
    names = [rating.rater for rating in found]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"two files are by the rater '{name}': give one file a rater")
    plans = sorted({rating.plan for rating in found})
    if len(plans) > 1:
        raise ConfigError(f"the files answer different plans ({', '.join(plans)}): rate and score one page at a time")
    return found


def _read(file: Path) -> Rating:
    if not file.is_file():
        raise ConfigError(f"{file} is no file: give those that raters saved from their page")
    content = _csv(file) if file.suffix.lower() == ".csv" else Record(read_json(file))
    plan, rater = content["plan"].text(), content["rater"].text()
    if not plan or not rater or not isinstance(content["answers"].value, list):
        raise DamagedFileError(f"{file} holds no ratings: give the file that the rater's page saved, unchanged")
    answers = []
    for entry in content["answers"].entries():
        item, seen, match = entry["item"].text(), entry["seen"].text(), entry["match"].integer()
        if item and seen in SEEN and match is not None:
            answers.append(Answer(item, seen, entry["name"].text().strip(), match))
    if len({answer.item for answer in answers}) < len(answers):
        raise DamagedFileError(f"{file} answers an item twice: give the file that the rater's page saved, unchanged")
    return Rating(plan, rater, tuple(answers))


def _csv(file: Path) -> Record:
    try:
        rows = list(csv.DictReader(io.StringIO(file.read_text(encoding="utf-8-sig"))))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DamagedFileError(
            f"{file} is no CSV in UTF-8 ({error}): give the file that the rater's page saved"
        ) from None
    if not rows or not set(COLUMNS) <= set(rows[0]):
        return Record(None)
    answers = [{**row, "match": int(row["match"]) if (row["match"] or "").isdecimal() else None} for row in rows]
    same = {(row["plan"], row["rater"]) for row in rows}
    plan, rater = next(iter(same)) if len(same) == 1 else ("", "")
    return Record({"plan": plan, "rater": rater, "answers": answers})
