"""A set of images from a Hugging Face data set that was saved to disk."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mechinterp.attributes.table import Attribute, AttributeTable
from mechinterp.errors import ImagesError, MissingDependencyError, nearest
from mechinterp.images.image_files import read_image_bytes, read_image_file
from mechinterp.images.image_set import ImageSet, Masks
from mechinterp.images.intensity import checked_range, checked_spacing, range_of
from mechinterp.images.mask_files import inside, require_size
from mechinterp.images.metadata_table import CASES, GROUPS, SPLITS
from mechinterp.images.pseudonyms import key_setting, pseudonyms

MARKS = ("dataset_dict.json", "state.json")
_NO_CLASS = -1  # what data sets write for a class that is kept back
_TAKEN = ("label", "split", "spacing_mm")


def from_hf_dataset(
    path: str | Path,
    *,
    image: str | None = None,
    label: str | None = None,
    group: str | None = None,
    intensity_range: tuple[float, float] | None = None,
    spacing_mm: float | tuple[float, float] | None = None,
    key: str | Path | None = None,
    name: str | None = None,
    licence: str | None = None,
) -> ImageSet:
    """Open what ``Dataset.save_to_disk`` or ``DatasetDict.save_to_disk`` wrote.

    Parts called train, validation or test (in any usual spelling) are splits. Columns of class labels and numbers
    become attributes; text columns are left out, since they may name people.

    Parameters
    ----------
    path
        The folder.
    image, label, group
        Columns; by default the first of images, ``label`` or the first of class labels, and ``group``, ``patient``,
        ``patient_id``, ``subject`` or ``subject_id``. Other image columns with ``mask`` in their names are masks.
    intensity_range, spacing_mm
        As in :func:`mechinterp.images.arrays.from_arrays`; a column ``spacing_mm`` of (row, column) goes before.
    key
        Replaces groups and cases with keyed hashes; see :func:`mechinterp.images.pseudonyms.pseudonyms`.
    name, licence
        What is shown on pages.

    Returns
    -------
    ImageSet
        Rows stay in the data set's memory-mapped files; an image is decoded when it is needed, 16 bits as 16 bits.

    Raises
    ------
    ImagesError
        If it is no saved data set, or has no column of images or none of the name given.
    MissingDependencyError
        If ``datasets`` is not installed.

    """
    folder = Path(path)
    parts = _open(folder)
    features = next(iter(parts.values())).features
    images = [c for c, f in features.items() if type(f).__name__ == "Image" and "mask" not in c.lower()]
    classes = [c for c, f in features.items() if type(f).__name__ == "ClassLabel"]
    pictures = _column("image", image, images, features, folder)
    if pictures is None:
        raise ImagesError(f"{folder} has no column of images: {nearest('image', features)} is not of type Image")
    chosen_label = _column("label", label, ["label", *classes], features, folder)
    chosen_group = _column("group", group, GROUPS, features, folder)
    chosen_case = _column("case", None, CASES, features, folder)
    masks = [c for c, f in features.items() if type(f).__name__ == "Image" and "mask" in c.lower()]
    whole = {
        part: data.remove_columns([c for c in (pictures, *masks) if c in features]) for part, data in parts.items()
    }
    used = {chosen_label, chosen_group, chosen_case, pictures, *masks, *_TAKEN}
    names = None if key is None else pseudonyms(key)

    def hashed(what: str, values: tuple[str | None, ...] | None) -> tuple[str | None, ...] | None:
        if names is None or values is None:
            return values
        return tuple(None if v is None else names(what, v) for v in values)

    counts = {part: len(data) for part, data in parts.items()}
    read = partial(_read, folder, pictures)
    where = [(part, i) for part, count in counts.items() for i in range(count)]
    said_spacing = None if spacing_mm is None else checked_spacing(spacing_mm, "spacing_mm")
    spacings = _values(whole, "spacing_mm") if "spacing_mm" in features else None
    return ImageSet(
        ids=tuple(f"{part}/{i:06d}" for part, i in where),
        read=partial(_at, tuple(where), read),
        intensity_range=_range(where, read, folder)
        if intensity_range is None
        else checked_range(intensity_range, "intensity_range"),
        spacing_mm=tuple(checked_spacing(s, "spacing_mm") for s in spacings)
        if spacings is not None
        else (None if said_spacing is None else (said_spacing,) * len(where)),
        labels=_words(whole, chosen_label, features),
        groups=hashed("patient", _words(whole, chosen_group, features)),
        cases=hashed("case", _words(whole, chosen_case, features)),
        splits=None if set(parts) == {""} else tuple(SPLITS.get(part.lower()) for part, _ in where),
        attributes=_attributes(whole, [c for c in features if c not in used], features, len(where)),
        read_masks=partial(_at, tuple(where), partial(_read_masks, folder, pictures, tuple(masks))) if masks else None,
        source={
            "kind": "hf_dataset",
            "path": folder.resolve().as_posix(),
            **{k: v for k, v in (("image", image), ("label", label), ("group", group)) if v is not None},
            **({} if intensity_range is None else {"intensity_range": [float(v) for v in intensity_range]}),
            **({} if said_spacing is None else {"spacing_mm": list(said_spacing)}),
            **key_setting(key),
            **({} if name is None else {"name": name}),
            **({} if licence is None else {"licence": licence}),
        },
        name=name or folder.resolve().name,
        licence=licence,
    )


def _open(folder: Path) -> dict[str, Any]:
    return _opened(str(folder), max((p.stat().st_mtime_ns for p in folder.rglob("state.json")), default=0))


@lru_cache(maxsize=4)
def _opened(folder: str, changed: int) -> dict[str, Any]:
    """Return the parts of a saved data set by name, one called ``""`` where it has none, with images undecoded."""
    try:
        datasets: Any = importlib.import_module("datasets")
    except ImportError as error:
        raise MissingDependencyError("datasets", "datasets") from error
    try:
        saved = datasets.load_from_disk(folder, keep_in_memory=False)
    except (OSError, ValueError, TypeError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise ImagesError(f"{folder} is no data set saved by save_to_disk ({reason}): save it again") from error
    parts = dict(saved) if isinstance(saved, dict) else {"": saved}
    for part, data in parts.items():
        for column, feature in data.features.items():
            if type(feature).__name__ == "Image":
                parts[part] = parts[part].cast_column(column, datasets.Image(decode=False))
    return parts


def _column(what: str, given: str | None, usual: Sequence[str], features: Any, folder: Path) -> str | None:
    if given is not None and given not in features:
        raise ImagesError(f"{folder} has no column '{given}' for the {what}: {nearest(given, features)}")
    return given or next((c for c in usual if c in features), None)


def _at(where: Sequence[tuple[str, int]], read: Callable[[str, int], Any], i: int) -> Any:
    return read(*where[i])


def _read(folder: Path, column: str, part: str, i: int) -> NDArray[Any]:
    kept = _open(folder)[part][i][column]
    name = f"{part}/{i:06d}"
    if kept is None:
        raise ImagesError(f"image {name} of {folder} is missing: leave its row out")
    if kept.get("bytes") is not None:
        return read_image_bytes(kept["bytes"], name)
    return read_image_file(Path(kept["path"]))


def _read_masks(folder: Path, pictures: str, columns: Sequence[str], part: str, i: int) -> Masks:
    found: dict[str, NDArray[np.bool_]] = {}
    name = f"{part}/{i:06d}"
    there = [column for column in columns if _open(folder)[part][i][column] is not None]
    size = _read(folder, pictures, part, i).shape[:2] if there else ()
    for column in there:
        values = _read(folder, column, part, i)
        found[column] = inside(values if values.ndim == 2 else values[..., 0], name)
        require_size(found[column], size, column, name)
    return found


def _range(where: Sequence[tuple[str, int]], read: Callable[[str, int], Any], folder: Path) -> tuple[float, float]:
    return range_of((read(*at) for at in where), folder.name)


def _values(parts: dict[str, Any], column: str) -> list[Any]:
    return [value for data in parts.values() for value in data[column]]


def _words(parts: dict[str, Any], column: str | None, features: Any) -> tuple[str | None, ...] | None:
    if column is None:
        return None
    names = getattr(features[column], "names", None)

    def word(value: Any) -> str | None:
        if value is None or (names and value == _NO_CLASS):
            return None
        return names[value] if names and isinstance(value, int) else str(value)

    return tuple(word(v) for v in _values(parts, column))


def _attributes(parts: dict[str, Any], columns: Sequence[str], features: Any, n: int) -> AttributeTable:
    attributes, values, categories = [], [], {}
    for column in columns:
        feature = features[column]
        names = getattr(feature, "names", None)
        dtype = getattr(feature, "dtype", "")
        if not names and not str(dtype).startswith(("int", "uint", "float", "bool")):
            continue
        missing = (None, _NO_CLASS) if names else (None,)
        numbers = np.array([np.nan if v in missing else float(v) for v in _values(parts, column)])
        kind: Any = "categorical" if names else "binary" if dtype == "bool" else "continuous"
        attributes.append(Attribute(column, "", kind=kind, measured="column of the data set"))
        values.append(numbers)
        if names:
            categories[column] = tuple(names)
    if not attributes:
        return AttributeTable.empty(n)
    return AttributeTable(tuple(attributes), np.stack(values, axis=1), categories)
