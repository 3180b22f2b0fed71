"""A set of images from many NIfTI volumes: whole, or sliced, with the patients they belong to."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mechinterp.attributes.table import Attribute, AttributeTable
from mechinterp.errors import ImagesError, nearest
from mechinterp.images.dataset_description import read_description
from mechinterp.images.findings import SetAside
from mechinterp.images.image_set import ImageSet, Masks
from mechinterp.images.intensity import checked_range, range_of
from mechinterp.images.mask_files import label_masks
from mechinterp.images.metadata_table import (
    MASK_COLUMN,
    Row,
    attributes_of,
    column_of,
    find_table,
    is_mask_column,
    mask_name,
    note_of_text,
    read_rows,
    text_columns,
)
from mechinterp.images.nifti import slice_names
from mechinterp.images.pseudonyms import key_setting, pseudonyms
from mechinterp.images.volume import Axis, Volume, load_volume
from mechinterp.images.windows import window_range

SUFFIXES = (".nii", ".nii.gz")
_MASK_WORDS = re.compile(r"(^|[_\-.])(mask|seg|label|labels|dseg)([_\-.]|$)", re.IGNORECASE)


@dataclass(frozen=True)
class _Image:
    """One volume of a file, or one slice of it."""

    path: Path
    masks: tuple[tuple[str, Path], ...]
    axis: Axis
    index: int | None


def from_nifti_files(
    path: str | Path,
    *,
    volumes: bool = False,
    axis: Axis = "axial",
    step_mm: float = 2.0,
    window: str | None = None,
    intensity_range: tuple[float, float] | None = None,
    key: str | Path | None = None,
    name: str | None = None,
    licence: str | None = None,
) -> ImageSet:
    """Open a folder of NIfTI volumes, or one file as a volume.

    With a ``metadata.csv`` or ``metadata.parquet`` its rows are the volumes (columns as in
    :func:`mechinterp.images.image_folder.from_folder`). Without one, all files are taken but those that are masks by
    their name (``mask``, ``seg``, ``label``, ``labels`` or ``dseg`` between ``_``, ``-`` or ``.``); a mask beside its
    volume is called like it, with such a word added. The patient is the table's ``group``; without one, BIDS's
    ``sub-…`` in the path; without that, each file is a patient.

    Parameters
    ----------
    path
        The folder, or one ``.nii`` or ``.nii.gz``.
    volumes
        Whole volumes: depth × height × width, from the feet up, each plane with the front at its top and the patient's
        left at the image's left. Otherwise slices, as :func:`mechinterp.images.nifti.from_nifti` makes them.
    axis, step_mm
        Of slices.
    window, intensity_range
        Black and white: a window (:func:`mechinterp.images.windows.window_range`) or two values. Without either, those
        of each volume are 0 (or its smallest value, if that is below) and its largest.
    key
        Replaces groups, cases and file names with keyed hashes; see :mod:`mechinterp.images.pseudonyms`.
    name, licence
        What is shown on pages.

    Returns
    -------
    ImageSet
        Each file is read once at opening; then one volume is held in memory at a time.

    Raises
    ------
    ImagesError
        If there is no volume, or none can be read.
    MissingDependencyError
        If nibabel is not installed.

    """
    root = Path(path)
    folder = root if root.is_dir() else root.parent
    said = read_description(folder / "dataset.yaml") if root.is_dir() else read_description(Path())
    rows = _rows(root)
    table = find_table(folder) if root.is_dir() else None
    names = None if key is None else pseudonyms(key)
    given = window_range(window) if window is not None else None
    if intensity_range is not None:
        given = checked_range(intensity_range, "intensity_range")
    given = given or said.intensity_range
    images: list[_Image] = []
    owners: list[int] = []
    ids: list[str] = []
    ranges: list[tuple[float, float]] = []
    spacings: list[tuple[float, ...]] = []
    positions: list[float] = []
    other_units: Counter[str] = Counter()
    set_aside: list[SetAside] = []
    for i, row in enumerate(rows):
        file = folder / row["file_name"]
        shown = row["file_name"] if names is None else names("file", row["file_name"])
        try:
            volume = load_volume(file)
        except ImagesError as error:
            reason = str(error).replace(str(file), "it") if names is None else "it cannot be read as NIfTI"
            set_aside.append(SetAside(shown, reason, True, file))
            continue
        if volume.stated_in is not None:
            other_units[volume.stated_in] += 1
        black_and_white = given or range_of([np.array([volume.array.min(), volume.array.max()], dtype=np.float32)])
        masks = tuple((mask_name(c), folder / row[c]) for c in row if is_mask_column(c) and row[c].strip())
        stem = re.sub(r"\.nii(\.gz)?$", "", shown)
        if volumes:
            x, y, z = volume.voxel_mm
            found: list[tuple[str, int | None, float]] = [(stem, None, np.nan)]
            spacing: tuple[float, ...] = (z, y, x)
        else:
            kept, at = volume.every(axis, step_mm), volume.positions_mm(axis)
            titles = slice_names(axis, at[kept].tolist())
            found = [(f"{stem}/{t}", k, float(at[k])) for t, k in zip(titles, kept, strict=True)]
            spacing = volume.plane_spacing_mm(axis)
        for title, index, position in found:
            ids.append(title)
            images.append(_Image(file, masks, axis, index))
            owners.append(i)
            ranges.append(black_and_white)
            spacings.append(spacing)
            positions.append(position)
    if not images:
        raise ImagesError(f"none of the {len(rows)} NIfTI files of {root} can be read ({set_aside[0].reason})")
    attributes = attributes_of(rows, said, "metadata table" if table is None else table.name).select(owners)
    if not volumes:
        where = Attribute("slice_position", "mm", measured=f"{axis} coordinate of the slice's centre")
        attributes = attributes.joined(AttributeTable.from_columns([(where, positions)]))

    def of(what: str) -> tuple[str | None, ...] | None:
        words = column_of(rows, what)
        if words is None:
            return None
        hashed = {"group": "patient", "case": "case"}.get(what)
        chosen = [words[i] for i in owners]
        return tuple(names(hashed, w) if names and hashed and w is not None else w for w in chosen)

    settings: dict[str, Any] = {"volumes": volumes or None, "window": window, "name": name, "licence": licence}
    if not volumes:
        settings |= {"axis": axis, "step_mm": float(step_mm)}
    settings |= key_setting(key)
    settings["intensity_range"] = None if intensity_range is None else [float(v) for v in intensity_range]
    return ImageSet(
        ids=tuple(ids),
        read=partial(_read, tuple(images)),
        intensity_ranges=tuple(ranges),
        spacing_mm=tuple(spacings),
        labels=of("label"),
        groups=of("group"),
        cases=of("case"),
        splits=of("split"),
        attributes=attributes,
        read_masks=_Masks(tuple(images)) if any(image.masks for image in images) else None,
        axes=3 if volumes else 2,
        set_aside=tuple(set_aside),
        notes=(
            f"{len(images)} {'volumes' if volumes else f'{axis} slices'} of {len(rows) - len(set_aside)} NIfTI files",
            *(f"{n} of the files state lengths in {unit}, turned into mm" for unit, n in sorted(other_units.items())),
            *note_of_text(text_columns(rows, said)),
        ),
        source={
            "kind": "nifti_files",
            "path": root.resolve().as_posix(),
            **{k: v for k, v in settings.items() if v is not None},
        },
        name=name or said.name or re.sub(r"\.nii(\.gz)?$", "", root.resolve().name),
        licence=licence or said.licence,
        units_are_patients=said.units_are_patients and root.is_dir(),
    )


def is_nifti(path: Path) -> bool:
    """Say whether a path looks like a NIfTI volume; hidden files do not."""
    return path.name.lower().endswith(SUFFIXES) and not path.name.startswith(".")


def _rows(root: Path) -> list[Row]:
    """Return a row per volume, with its masks and its patient."""
    if root.is_file():
        return [{"file_name": root.name, "group": "", "case": ""}]
    if not root.is_dir():
        siblings = [p.name for p in root.parent.iterdir()] if root.parent.is_dir() else []
        raise ImagesError(f"NIfTI folder {root} is not there: {nearest(root.name, siblings)}")
    table = find_table(root)
    if table is not None:
        rows = read_rows(table, is_nifti, SUFFIXES)
    else:
        files = sorted(p.relative_to(root) for p in root.rglob("*") if is_nifti(p) and p.is_file())
        masks = [f for f in files if _MASK_WORDS.search(_bare(f))]
        images = [f for f in files if f not in masks]
        if not images:
            raise ImagesError(f"{root} holds no NIfTI volume: put {' or '.join(SUFFIXES)} files into it")
        rows = []
        for file in images:
            ours = [
                m
                for m in masks
                if m.parent == file.parent and _MASK_WORDS.sub("_", _bare(m)).strip("_-.") == _bare(file)
            ]
            rows.append({"file_name": file.as_posix(), MASK_COLUMN: ours[0].as_posix() if ours else ""})
    if not any(row.get("group", "").strip() for row in rows):
        for row in rows:
            subject = re.search(r"(?:^|/)(sub-[A-Za-z0-9]+)", row["file_name"])
            row["group"] = subject[1] if subject else row["file_name"]
    return rows


def _bare(file: Path) -> str:
    return re.sub(r"\.nii(\.gz)?$", "", file.name, flags=re.IGNORECASE)


@lru_cache(maxsize=2)
def _loaded(path: Path) -> Volume:
    return load_volume(path)


def _upright(values: NDArray[Any]) -> NDArray[Any]:
    """Turn right–front–up axes into depth (up) × height (front to back) × width (left to right)."""
    return np.ascontiguousarray(values.transpose(2, 1, 0)[:, ::-1])


def _read(images: Sequence[_Image], i: int) -> NDArray[Any]:
    image = images[i]
    volume = _loaded(image.path)
    return _upright(volume.array) if image.index is None else volume.plane(image.axis, image.index)


@dataclass(frozen=True)
class _Masks:
    """Reads the masks of images: the same structure by the same name in all, whichever labels one file holds."""

    images: tuple[_Image, ...]

    @cached_property
    def numbered(self) -> frozenset[str]:
        """The titles under which some file holds other labels than 0 and 1."""
        files = dict.fromkeys(pair for image in self.images for pair in image.masks)
        return frozenset(
            title for title, path in files if set(label_masks(load_volume(path).array, path.name)) - {"mask"}
        )

    def __call__(self, i: int) -> Masks:
        return _masks(self.images[i], self.numbered)


def _masks(image: _Image, numbered: frozenset[str]) -> Masks:
    found: dict[str, NDArray[np.bool_]] = {}
    for title, path in image.masks:
        mask = _loaded(path)
        _loaded(image.path).require_same_grid(mask)
        for label, inside in label_masks(mask.array, path.name, numbered=title in numbered).items():
            whole = Volume(inside, mask.affine, mask.name)
            name = title if label == "mask" else label if title == "mask" else f"{title} {label}"
            found[name] = _upright(inside) if image.index is None else whole.plane(image.axis, image.index)
    return found
