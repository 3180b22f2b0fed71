"""A set of images from a folder: Hugging Face's imagefolder with a table, or one subfolder per class."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mechinterp.errors import ImagesError, UnreadableImageError, nearest
from mechinterp.images.dataset_description import read_description
from mechinterp.images.findings import SetAside
from mechinterp.images.image_files import SUFFIXES, is_image_file, read_image_file, recorded_type
from mechinterp.images.image_set import ImageSet
from mechinterp.images.intensity import checked_range, checked_spacing, range_of
from mechinterp.images.mask_files import FOLDER as MASKS
from mechinterp.images.mask_files import mask_files
from mechinterp.images.metadata_table import (
    SPLITS,
    TABLES,
    Row,
    attributes_of,
    column_of,
    find_table,
    note_of_text,
    read_rows,
    spacings_of,
    text_columns,
)
from mechinterp.images.pseudonyms import key_setting, pseudonyms


def from_folder(
    path: str | Path,
    *,
    name: str | None = None,
    intensity_range: tuple[float, float] | None = None,
    spacing_mm: float | tuple[float, float] | None = None,
    licence: str | None = None,
    key: str | Path | None = None,
    tolerant: bool = False,
) -> ImageSet:
    """Open a folder of PNG, JPEG or TIFF images of 8 or 16 bits, or of arrays (``.npy``).

    With a ``metadata.csv`` or ``metadata.parquet`` its rows are the images: ``file_name`` (relative to the folder), and
    optionally ``label``, ``group`` (the patient), ``case`` (the examination), ``split``, ``spacing_row_mm`` and
    ``spacing_column_mm``; ``mask_file_name`` and ``NAME_mask_file_name`` name masks; every other column of numbers is an
    attribute, and one of words if ``dataset.yaml`` says so. Without one, all images below the folder are taken in the order of their names; their folder is the
    label, and ``train``, ``validation`` and ``test`` folders above it are the splits. Masks may lie in ``masks/`` (see
    :func:`mechinterp.images.mask_files.mask_files`), and the images then in ``images/``. An optional ``dataset.yaml``
    says what the numbers mean (see :func:`mechinterp.images.dataset_description.read_description`).

    Parameters
    ----------
    path
        The folder.
    name, intensity_range, spacing_mm, licence
        What would stand in ``dataset.yaml``; given here, they win. Spacing columns win over both. Without an
        intensity range, 8-bit images have 0..255, and deeper ones are read once to find their largest value.
    key
        Where groups, cases or file names are patients': a key file, by which all of them are replaced with keyed
        hashes (see :func:`mechinterp.images.pseudonyms.pseudonyms`). By default they stay what they are.
    tolerant
        Set deeper images that cannot be read aside, with their reason, instead of raising.

    Returns
    -------
    ImageSet
        The images; pixels are read when they are needed.

    Raises
    ------
    ImagesError
        If the folder, an image named in its table, or any image at all is missing, or a row cannot be meant.
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
    table = find_table(root)
    rows = _rows_of_subfolders(root) if table is None else read_rows(table, is_image_file, SUFFIXES)
    said_in = TABLES[0] if table is None else table.name
    default_spacing = said.spacing_mm if spacing_mm is None else checked_spacing(spacing_mm, "spacing_mm")
    chosen_range = (
        said.intensity_range if intensity_range is None else checked_range(intensity_range, "intensity_range")
    )
    set_aside: list[SetAside] = []
    names = None if key is None else pseudonyms(key)
    attributes, left_out = attributes_of(rows, said, said_in), text_columns(rows, said)
    if chosen_range is None:
        chosen_range, bad = _common_range([root / row["file_name"] for row in rows], root, tolerant=tolerant)
        shown = [row["file_name"] if names is None else f"file {i + 1} of {len(rows)}" for i, row in enumerate(rows)]
        set_aside = [SetAside(shown[i], reason, True, root / rows[i]["file_name"]) for i, reason in bad.items()]
        kept = [i for i in range(len(rows)) if i not in bad]
        rows, attributes = [rows[i] for i in kept], attributes.select(kept)
    ids = tuple(row["file_name"] for row in rows)
    groups, cases = column_of(rows, "group"), column_of(rows, "case")
    if names is not None:
        ids = tuple(names("file", i) for i in ids)
        groups = None if groups is None else tuple(None if g is None else names("patient", g) for g in groups)
        cases = None if cases is None else tuple(None if c is None else names("case", c) for c in cases)
    return ImageSet(
        ids=ids,
        read=partial(_read, tuple(root / row["file_name"] for row in rows)),
        intensity_range=chosen_range,
        spacing_mm=spacings_of(rows, default_spacing, said_in),
        labels=column_of(rows, "label"),
        groups=groups,
        cases=cases,
        splits=column_of(rows, "split"),
        attributes=attributes,
        read_masks=mask_files(root, rows, ids),
        set_aside=tuple(set_aside),
        notes=note_of_text(left_out),
        source={
            "kind": "folder",
            "path": root.resolve().as_posix(),
            **({} if name is None else {"name": name}),
            **({} if intensity_range is None else {"intensity_range": [float(v) for v in intensity_range]}),
            **({} if spacing_mm is None else {"spacing_mm": list(checked_spacing(spacing_mm, "spacing_mm"))}),
            **({} if licence is None else {"licence": licence}),
            **key_setting(key),
            **({"tolerant": True} if tolerant else {}),
        },
        name=name or said.name or root.resolve().name,
        licence=licence or said.licence,
        units_are_patients=said.units_are_patients,
    )


def _read(files: Sequence[Path], i: int) -> NDArray[Any]:
    return read_image_file(files[i])


def _rows_of_subfolders(root: Path) -> list[Row]:
    """Take all images below a folder: ``[split/][label/]…/file``; with ``masks/`` beside, ``images/`` is no label."""
    files = sorted(
        p.relative_to(root)
        for p in root.rglob("*")
        if is_image_file(p) and p.is_file() and not any(part.startswith(".") for part in p.relative_to(root).parts)
    )
    beside_masks = (root / MASKS).is_dir() and (root / "images").is_dir()
    if beside_masks:
        files = [f for f in files if f.parts[0] == "images"]
    if not files:
        raise ImagesError(f"image folder {root} holds no image: put {', '.join(SUFFIXES)} files into it")
    inner = [Path(*f.parts[1:]) if beside_masks else f for f in files]
    has_splits = all(len(p.parts) > 1 and p.parts[0].lower() in SPLITS for p in inner)
    rows = []
    for file, inside in zip(files, inner, strict=True):
        folders = list(inside.parts[:-1])
        row = {"file_name": file.as_posix()}
        if has_splits:
            row["split"] = SPLITS[folders.pop(0).lower()]
        row["label"] = folders[0] if folders else ""
        rows.append(row)
    return rows


def _common_range(files: Sequence[Path], root: Path, *, tolerant: bool) -> tuple[tuple[float, float], dict[int, str]]:
    """Return black and white of images of one type, and the unreadable ones by position; mixed types have no common one."""
    first: dict[np.dtype[Any], Path] = {}
    bad: dict[int, str] = {}

    def kept(i: int, error: UnreadableImageError) -> None:
        if not tolerant:
            raise error
        bad[i] = error.reason

    for i, path in enumerate(files):
        try:
            first.setdefault(recorded_type(path), path)
        except UnreadableImageError as error:
            kept(i, error)
        if len(first) > 1:
            (one, a), (other, b) = first.items()
            raise ImagesError(
                f"{a} is {one} and {b} is {other}: say in {root / 'dataset.yaml'} which values are black and white, "
                "as 'intensity_range: [0, 4095]'"
            )
    if first and next(iter(first)) == np.uint8:
        return (0.0, 255.0), bad

    def readable() -> Any:
        for i, path in enumerate(files):
            if i not in bad:
                try:
                    yield read_image_file(path)
                except UnreadableImageError as error:
                    kept(i, error)

    try:
        return range_of(readable(), root.name), bad
    except ImagesError:
        if len(bad) < len(files):
            raise
        first_bad = min(bad)
        raise ImagesError(f"no image of {root} can be read (first {files[first_bad].name}: {bad[first_bad]})") from None
