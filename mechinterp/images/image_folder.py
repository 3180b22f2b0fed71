"""A set of images from a folder: Hugging Face's imagefolder with ``metadata.csv``, or one subfolder per class."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from mechinterp.attributes.columns import table_of_columns
from mechinterp.attributes.table import AttributeTable
from mechinterp.errors import AttributeTableError, ConfigError, ImagesError, nearest
from mechinterp.images.dataset_description import DatasetDescription, read_description
from mechinterp.images.image_files import SUFFIXES, is_image_file, read_image_file, recorded_type
from mechinterp.images.image_set import ImageSet
from mechinterp.images.intensity import checked_range, checked_spacing, range_of

METADATA = "metadata.csv"
_SPACING_COLUMNS = ("spacing_row_mm", "spacing_column_mm")
_RESERVED = ("file_name", "label", "group", "split", *_SPACING_COLUMNS)
_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}


def from_folder(
    path: str | Path,
    *,
    name: str | None = None,
    intensity_range: tuple[float, float] | None = None,
    spacing_mm: float | tuple[float, float] | None = None,
    licence: str | None = None,
) -> ImageSet:
    """Open a folder of PNG, JPEG or TIFF images of 8 or 16 bits.

    With a ``metadata.csv`` its rows are the images: ``file_name`` (relative to the folder), and optionally ``label``,
    ``group`` (the patient), ``split``, ``spacing_row_mm`` and ``spacing_column_mm``; every other column is an
    attribute. Without one, all images below the folder are taken in the order of their names; their folder is the
    label, and ``train``, ``validation`` and ``test`` folders above it are the splits. An optional ``dataset.yaml``
    says what the numbers mean (see :func:`mechinterp.images.dataset_description.read_description`).

    Parameters
    ----------
    path
        The folder.
    name, intensity_range, spacing_mm, licence
        What would stand in ``dataset.yaml``; given here, they win. Spacing columns win over both. Without an
        intensity range, 8-bit images have 0..255, and deeper ones are read once to find their largest value.

    Returns
    -------
    ImageSet
        The images; pixels are read when they are needed.

    Raises
    ------
    ImagesError
        If the folder, an image named in ``metadata.csv``, or any image at all is missing, or a row cannot be meant.
    AttributeTableError
        If an attribute's value is no number; row and column are named.
    LeakageError
        If a group stands in two splits.

    """
    root = Path(path)
    if not root.is_dir():
        siblings = [p.name for p in root.parent.iterdir() if p.is_dir()] if root.parent.is_dir() else []
        what = "is a file, not a folder" if root.exists() else f"is not there: {nearest(root.name, siblings)}"
        raise ImagesError(f"image folder {root} {what}")
    said = read_description(root / "dataset.yaml")
    rows = _rows_of_metadata(root) if (root / METADATA).is_file() else _rows_of_subfolders(root)
    files = tuple(root / row["file_name"] for row in rows)
    default_spacing = said.spacing_mm if spacing_mm is None else checked_spacing(spacing_mm, "spacing_mm")
    chosen_range = (
        said.intensity_range if intensity_range is None else checked_range(intensity_range, "intensity_range")
    )
    return ImageSet(
        ids=tuple(row["file_name"] for row in rows),
        read=lambda i: read_image_file(files[i]),
        intensity_range=chosen_range or _common_range(files, root),
        spacing_mm=_spacings(rows, default_spacing),
        labels=_column(rows, "label"),
        groups=_column(rows, "group"),
        splits=_column(rows, "split"),
        attributes=_attributes(rows, said),
        source={
            "kind": "folder",
            "path": root.resolve().as_posix(),
            **({} if name is None else {"name": name}),
            **({} if intensity_range is None else {"intensity_range": [float(v) for v in intensity_range]}),
            **({} if spacing_mm is None else {"spacing_mm": list(checked_spacing(spacing_mm, "spacing_mm"))}),
            **({} if licence is None else {"licence": licence}),
        },
        name=name or said.name or root.resolve().name,
        licence=licence or said.licence,
        units_are_patients=said.units_are_patients,
    )


def _rows_of_metadata(root: Path) -> list[dict[str, str]]:
    """Read ``metadata.csv``, checking every row's file and split."""
    path = root / METADATA
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            columns = [(c or "").strip() for c in reader.fieldnames or ()]
            reader.fieldnames = columns
            rows = list(reader)
    except (csv.Error, UnicodeDecodeError) as error:
        raise ImagesError(f"{path} is no readable CSV ({error}): save it as comma-separated UTF-8") from error
    if "file_name" not in columns:
        raise ImagesError(f"{path} has no column 'file_name': {nearest('file_name', columns)}")
    if len(set(columns)) != len(columns) or "" in columns:
        raise ImagesError(f"{path} names a column twice, or not at all: every column needs a name of its own")
    if not rows:
        raise ImagesError(f"{path} has no rows: name one image in each")
    for line, row in enumerate(rows, start=2):
        if None in row or None in row.values():
            raise ImagesError(f"{path}, row {line} does not have {len(columns)} cells: quote values that hold a comma")
        row["file_name"] = _safe_name(row["file_name"], root, line)
        if row.get("split"):
            row["split"] = _split(row["split"], f"{path}, row {line}")
    return rows


def _safe_name(file_name: str, root: Path, line: int) -> str:
    """Return a file's name relative to the folder, with forward slashes; it must be there and inside."""
    name = PurePosixPath(file_name.strip().replace("\\", "/"))
    where = f"{root / METADATA}, row {line}"
    if not name.name or name.is_absolute() or ".." in name.parts or ":" in name.parts[0]:
        raise ImagesError(f"{where}: file_name '{file_name}' must be a path below {root}")
    if name.suffix.lower() not in SUFFIXES:
        raise ImagesError(f"{where}: '{name}' is not one of {', '.join(SUFFIXES)}")
    if not (root / name).is_file():
        folder = (root / name).parent
        siblings = [p.name for p in folder.iterdir() if is_image_file(p)] if folder.is_dir() else []
        raise ImagesError(f"{where}: image '{name}' is not there: {nearest(name.name, siblings)}")
    return name.as_posix()


def _split(word: str, where: str) -> str:
    found = _SPLITS.get(word.strip().lower())
    if found is None:
        raise ImagesError(f"{where}: split '{word}' is none: {nearest(word, ('train', 'validation', 'test'))}")
    return found


def _rows_of_subfolders(root: Path) -> list[dict[str, str]]:
    """Take all images below a folder: ``[split/][label/]…/file``."""
    files = sorted(
        p.relative_to(root)
        for p in root.rglob("*")
        if is_image_file(p) and p.is_file() and not any(part.startswith(".") for part in p.relative_to(root).parts)
    )
    if not files:
        raise ImagesError(f"image folder {root} holds no image: put {', '.join(SUFFIXES)} files into it")
    has_splits = all(len(p.parts) > 1 and p.parts[0].lower() in _SPLITS for p in files)
    rows = []
    for file in files:
        folders = list(file.parts[:-1])
        row = {"file_name": file.as_posix()}
        if has_splits:
            row["split"] = _SPLITS[folders.pop(0).lower()]
        row["label"] = folders[0] if folders else ""
        rows.append(row)
    return rows


def _column(rows: Sequence[Mapping[str, str]], what: str) -> tuple[str | None, ...] | None:
    """Return one column, empty cells as ``None``; ``None`` where it is empty throughout."""
    values = tuple((row.get(what) or "").strip() or None for row in rows)
    return values if any(values) else None


def _spacings(
    rows: Sequence[Mapping[str, str]], default: tuple[float, float] | None
) -> tuple[tuple[float, float] | None, ...] | None:
    present = [c for c in _SPACING_COLUMNS if c in rows[0]]
    if not present:
        return None if default is None else (default,) * len(rows)
    if len(present) == 1:
        raise ImagesError(f"{METADATA} has '{present[0]}' alone: give both {' and '.join(_SPACING_COLUMNS)}")
    found: list[tuple[float, float] | None] = []
    for line, row in enumerate(rows, start=2):
        words = [row[c].strip() for c in _SPACING_COLUMNS]
        try:
            found.append(checked_spacing(words, f"{METADATA}, row {line}: spacing") if all(words) else default)
        except ConfigError as error:
            raise ImagesError(str(error)) from None
    return tuple(found)


def _attributes(rows: Sequence[Mapping[str, str]], said: DatasetDescription) -> AttributeTable:
    columns = {c: [row[c] for row in rows] for c in rows[0] if c not in _RESERVED}
    try:
        return table_of_columns(columns, said.columns, len(rows))
    except AttributeTableError as error:
        raise AttributeTableError(f"{METADATA}: {error}") from None


def _common_range(files: Sequence[Path], root: Path) -> tuple[float, float]:
    """Return black and white of images of one type; mixed types have none in common."""
    first: dict[np.dtype[Any], Path] = {}
    for path in files:
        first.setdefault(recorded_type(path), path)
        if len(first) > 1:
            (one, a), (other, b) = first.items()
            raise ImagesError(
                f"{a} is {one} and {b} is {other}: say in {root / 'dataset.yaml'} which values are black and white, "
                "as 'intensity_range: [0, 4095]'"
            )
    return range_of((read_image_file(path) for path in files), root.name)
