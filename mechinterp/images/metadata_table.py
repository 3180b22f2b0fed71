"""The table beside a folder's images: one row per image, from CSV or Parquet."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from mechinterp.attributes.columns import table_of_columns
from mechinterp.attributes.table import AttributeTable
from mechinterp.errors import AttributeTableError, ConfigError, ImagesError, nearest
from mechinterp.images.dataset_description import DatasetDescription
from mechinterp.images.intensity import checked_spacing

TABLES = ("metadata.csv", "metadata.parquet")
SPACING_COLUMNS = ("spacing_row_mm", "spacing_column_mm")
MASK_COLUMN = "mask_file_name"  # or NAME_mask_file_name, as Hugging Face's imagefolder calls columns of files
GROUPS = ("group", "patient", "patient_id", "subject", "subject_id")
CASES = ("case", "case_id", "study", "study_id", "exam", "exam_id")
_RESERVED = ("file_name", "label", "group", "case", "split", *SPACING_COLUMNS)
SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}

Row = dict[str, str]
_DIGITS = re.compile(r"\s*[-+]?\d")  # a word that begins like a number is a mistake in a number, not text


def find_table(root: Path) -> Path | None:
    """Return the table of a folder, if it has one.

    Raises
    ------
    ImagesError
        If it has two, which may say different things.

    """
    there = [root / name for name in TABLES if (root / name).is_file()]
    if len(there) > 1:
        raise ImagesError(f"{root} holds both {' and '.join(TABLES)}: remove one")
    return there[0] if there else None


def read_rows(path: Path, is_wanted: Callable[[Path], bool], suffixes: Sequence[str]) -> list[Row]:
    """Read a table, checking every row's file and split.

    Parameters
    ----------
    path
        ``metadata.csv`` or ``metadata.parquet``; its folder is the images'.
    is_wanted
        Says whether a file could have been named, for proposals.
    suffixes
        Of the files that may be named.

    Returns
    -------
    list of dict
        Column to word, with empty words where a value is missing. A column ``patient``, ``patient_id``, ``subject`` or
        ``subject_id`` is called ``group``, and one of :data:`CASES` ``case``, where there is none of that name.

    Raises
    ------
    ImagesError
        If it cannot be read, or a row names no image below the folder; row and remedy are named.

    """
    columns, rows = read_cells(path)
    if "file_name" not in columns:
        raise ImagesError(f"{path} has no column 'file_name': {nearest('file_name', columns)}")
    masks = [c for c in columns if is_mask_column(c)]
    lines: dict[str, int] = {}
    for line, row in enumerate(rows, start=2):
        where = f"{path}, row {line}"
        row["file_name"] = _safe_name(row["file_name"], path.parent, where, is_wanted, suffixes)
        for column in masks:
            if row[column].strip():
                row[column] = _safe_name(row[column], path.parent, where, Path.is_file, ())
        if row.get("split"):
            row["split"] = split_of(row["split"], where)
        if (earlier := lines.setdefault(row["file_name"], line)) != line:
            raise ImagesError(
                f"{where}: image '{row['file_name']}' stands in row {earlier} already: remove one of them"
            )
    return rows


def read_cells(path: Path) -> tuple[list[str], list[Row]]:
    """Read a table's columns and rows as words, whatever its rows are of.

    Returns
    -------
    columns
        Their names. One of :data:`GROUPS` is called ``group``, and one of :data:`CASES` ``case``, where there is none of
        that name.
    rows
        Column to word, with empty words where a value is missing.

    Raises
    ------
    ImagesError
        If it cannot be read, has no rows, or a row has too few or too many cells.

    """
    columns, rows = _csv(path) if path.suffix == ".csv" else _parquet(path)
    if len(set(columns)) != len(columns) or "" in columns:
        raise ImagesError(f"{path} names a column twice, or not at all: every column needs a name of its own")
    if not rows:
        raise ImagesError(f"{path} has no rows: name one image in each")
    for line, row in enumerate(rows, start=2):
        if None in row or None in row.values():
            raise ImagesError(f"{path}, row {line} does not have {len(columns)} cells: quote values that hold a comma")
    _rename(columns, rows, "group", GROUPS)
    _rename(columns, rows, "case", CASES)
    return columns, rows


def is_mask_column(column: str) -> bool:
    """Say whether a column names mask files: ``mask_file_name``, or ``NAME_mask_file_name``."""
    return column == MASK_COLUMN or column.endswith(f"_{MASK_COLUMN}")


def mask_name(column: str) -> str:
    """Return what the masks of a column are called."""
    return column.removesuffix(MASK_COLUMN).rstrip("_") or "mask"


def split_of(word: str, where: str) -> str:
    """Return ``train``, ``validation`` or ``test`` for what people write.

    Raises
    ------
    ImagesError
        If it is none of them.

    """
    found = SPLITS.get(word.strip().lower())
    if found is None:
        raise ImagesError(f"{where}: split '{word}' is none: {nearest(word, ('train', 'validation', 'test'))}")
    return found


def column_of(rows: Sequence[Mapping[str, str]], what: str) -> tuple[str | None, ...] | None:
    """Return one column, empty cells as ``None``; ``None`` where it is empty throughout."""
    values = tuple((row.get(what) or "").strip() or None for row in rows)
    return values if any(values) else None


def spacings_of(
    rows: Sequence[Mapping[str, str]], default: tuple[float, float] | None, table: str
) -> tuple[tuple[float, float] | None, ...] | None:
    """Return the spacing of each row's image, (row, column); `default` where its cells are empty.

    Raises
    ------
    ImagesError
        If a spacing is none.

    """
    present = [c for c in SPACING_COLUMNS if c in rows[0]]
    if not present:
        return None if default is None else (default,) * len(rows)
    if len(present) == 1:
        raise ImagesError(f"{table} has '{present[0]}' alone: give both {' and '.join(SPACING_COLUMNS)}")
    found: list[tuple[float, float] | None] = []
    for line, row in enumerate(rows, start=2):
        words = [row[c].strip() for c in SPACING_COLUMNS]
        try:
            found.append(checked_spacing(words, f"{table}, row {line}: spacing") if all(words) else default)
        except ConfigError as error:
            raise ImagesError(str(error)) from None
    return tuple(found)


def text_columns(rows: Sequence[Mapping[str, str]], said: DatasetDescription) -> tuple[str, ...]:
    """Return the columns of words that nothing is said of: no attributes, since they may name people.

    A column that holds one number, or what begins like one, is none of them.
    """
    words = {c: [row[c] for row in rows if row[c].strip()] for c in _own(rows) if c not in said.columns}
    return tuple(c for c, there in words.items() if there and not any(_DIGITS.match(w) for w in there))


def note_of_text(left_out: Sequence[str]) -> tuple[str, ...]:
    """Return a sentence on the columns that were left out, none without any."""
    if not left_out:
        return ()
    return (
        f"no attributes, since they hold words: {', '.join(left_out)} (to compare images by one, say 'kind: categorical' "
        "of it in dataset.yaml)",
    )


def attributes_of(rows: Sequence[Mapping[str, str]], said: DatasetDescription, table: str) -> AttributeTable:
    """Return every column that has no other meaning as an attribute; those of :func:`text_columns` are left out.

    Raises
    ------
    AttributeTableError
        If a value is no number; row and column are named.

    """
    left_out = text_columns(rows, said)
    columns = {c: [row[c] for row in rows] for c in _own(rows) if c not in left_out}
    try:
        return table_of_columns(columns, said.columns, len(rows))
    except AttributeTableError as error:
        raise AttributeTableError(f"{table}: {error}") from None


def _own(rows: Sequence[Mapping[str, str]]) -> list[str]:
    return [c for c in rows[0] if c not in _RESERVED and not is_mask_column(c)]


def _rename(columns: list[str], rows: Sequence[dict[str, Any]], name: str, usual: Sequence[str]) -> None:
    """Give the first column that is usually called so its name here, so that patients are not taken for an attribute."""
    by_lower = {c.lower(): c for c in reversed(columns)}
    found = next((by_lower[u] for u in usual if u in by_lower), None)
    if found is None or name in columns:
        return
    columns[columns.index(found)] = name
    for row in rows:
        row[name] = row.pop(found)


def _csv(path: Path) -> tuple[list[str], list[Any]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            header = file.readline()
            file.seek(0)
            # spreadsheets of half of the world write semicolons
            between = next((d for d in ";\t" if d in header and "," not in header), ",")
            reader = csv.DictReader(file, strict=True, delimiter=between)
            columns = [(c or "").strip() for c in reader.fieldnames or ()]
            reader.fieldnames = columns
            return columns, list(reader)
    except (csv.Error, UnicodeDecodeError) as error:
        raise ImagesError(f"{path} is no readable CSV ({error}): save it as comma-separated UTF-8") from error


def _parquet(path: Path) -> tuple[list[str], list[Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # without partitioning by folder names, which might add columns
        table = pq.read_table(path, partitioning=None)
    except (pa.ArrowException, OSError) as error:
        raise ImagesError(f"{path} is no readable Parquet ({' '.join(str(error).split())}): write it again") from error
    columns = [str(c).strip() for c in table.column_names]
    words = [[_word(v) for v in column.to_pylist()] for column in table.columns]
    return columns, [dict(zip(columns, row, strict=True)) for row in zip(*words, strict=True)]


def _word(value: Any) -> str:
    """Write a value as a CSV would hold it."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return str(int(value)) if isinstance(value, bool) else str(value)


def _safe_name(
    file_name: str, root: Path, where: str, is_wanted: Callable[[Path], bool], suffixes: Iterable[str]
) -> str:
    """Return a file's name relative to the folder, with forward slashes; it must be there and inside."""
    name = PurePosixPath(file_name.strip().replace("\\", "/"))
    if not name.name or name.is_absolute() or ".." in name.parts or ":" in name.parts[0]:
        raise ImagesError(f"{where}: file_name '{file_name}' must be a path below {root}")
    allowed = tuple(suffixes)
    if allowed and not name.name.lower().endswith(allowed):
        raise ImagesError(f"{where}: '{name}' is not one of {', '.join(allowed)}")
    if not (root / name).is_file():
        folder = (root / name).parent
        siblings = [p.name for p in folder.iterdir() if is_wanted(p)] if folder.is_dir() else []
        raise ImagesError(f"{where}: image '{name}' is not there: {nearest(name.name, siblings)}")
    return name.as_posix()
