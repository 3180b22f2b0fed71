"""Masks in files beside the images: pictures, arrays, NIfTI."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mechinterp.errors import ImagesError, UnreadableImageError
from mechinterp.images.image_files import SUFFIXES, is_image_file, read_image_file, recorded_shape
from mechinterp.images.metadata_table import is_mask_column, mask_name

FOLDER = "masks"
_MOST_LABELS = 256
_MOST_LEVELS, _LEAST_FLAT = 16, 8  # a drawn label map has few levels, each over many pixels


@dataclass(frozen=True)
class MaskFiles:
    """Reads the masks of images from files.

    Parameters
    ----------
    files
        Per image, mask file by name.
    images
        Their own files.
    ids
        Names of the images, for errors.

    """

    files: tuple[Mapping[str, Path], ...]
    images: tuple[Path, ...]
    ids: tuple[str, ...]

    def __call__(self, i: int) -> dict[str, NDArray[np.bool_]]:
        """Return the masks of image `i`.

        Raises
        ------
        ImagesError
            If one cannot be read, or is of another size than its image: its pixels would be of another size in mm too.

        """
        masks: dict[str, NDArray[np.bool_]] = {}
        for name, path in self.files[i].items():
            masks |= read_mask_file(path, name)
            require_size(masks[name], recorded_shape(self.images[i]), name, self.ids[i])
        return masks


def require_size(mask: NDArray[np.bool_], size: tuple[int, ...], name: str, image: str) -> None:
    """Check that a mask has its image's height and width.

    Raises
    ------
    ImagesError
        If it has others.

    """
    if mask.shape != size:
        raise ImagesError(
            f"mask '{name}' of image '{image}' is {' × '.join(map(str, mask.shape))} pixels, the image "
            f"{' × '.join(map(str, size))}: resample it to the image's size"
        )


def mask_files(root: Path, rows: Sequence[Mapping[str, str]], ids: Sequence[str]) -> MaskFiles | None:
    """Find the masks of a folder's images; ``None`` where there are none.

    In this order: columns ``mask_file_name`` or ``NAME_mask_file_name`` of the table; ``masks/NAME/`` and ``masks/``
    with files called like the images, whose own path may begin with ``images/``.
    """
    columns = [c for c in rows[0] if is_mask_column(c)]
    images = tuple(root / row["file_name"] for row in rows)
    if columns:
        found = [{mask_name(c): root / row[c] for c in columns if row[c].strip()} for row in rows]
        return MaskFiles(tuple(found), images, tuple(ids))
    folder = root / FOLDER
    if not folder.is_dir():
        return None
    by_stem: dict[str, dict[str, Path]] = {}
    for path in sorted(p for p in folder.rglob("*") if is_image_file(p)):
        within = path.relative_to(folder)
        by_stem.setdefault(within.with_suffix("").as_posix(), {})["mask"] = path
        if len(within.parts) > 1:
            rest = Path(*within.parts[1:]).with_suffix("").as_posix()
            by_stem.setdefault(rest, {})[within.parts[0]] = path
    matched = [by_stem.get(_stem(row["file_name"]), {}) for row in rows]
    return MaskFiles(tuple(matched), images, tuple(ids)) if any(matched) else None


def _stem(file_name: str) -> str:
    path = Path(file_name)
    within = Path(*path.parts[1:]) if path.parts[0] == "images" and len(path.parts) > 1 else path
    return within.with_suffix("").as_posix()


def read_mask_file(path: Path, name: str = "mask") -> dict[str, NDArray[np.bool_]]:
    """Read a picture or an array as a mask.

    Values of 0 and 1 are outside and inside; otherwise inside is from half of the type's white on, so that the smooth
    edges of a drawn mask are cut at one half. What covers less than half of every pixel is inside nowhere.

    Raises
    ------
    ImagesError
        If the file cannot be read, has several channels that differ, or looks like a map of several labels.

    """
    if not path.name.lower().endswith(SUFFIXES):
        raise ImagesError(f"mask {path} is not one of {', '.join(SUFFIXES)}")
    values = read_image_file(path)
    if values.ndim == 3:
        if not (values == values[..., :1]).all():
            raise UnreadableImageError(path.name, "a mask in colour: save it in grey")
        values = values[..., 0]
    return {name: inside(values, path.name)}


def inside(values: NDArray[Any], name: str) -> NDArray[np.bool_]:
    """Return which values of a mask are inside; see :func:`read_mask_file`."""
    if values.dtype == np.bool_:
        return np.asarray(values)
    if not np.issubdtype(values.dtype, np.integer):
        return np.asarray(values >= 0.5)
    largest = int(values.max())
    if largest <= 1:
        return np.asarray(values == 1)
    white = np.iinfo(values.dtype).max
    if largest < white / 2 and _like_labels(values):
        raise UnreadableImageError(
            name, f"a mask whose largest value is {largest}: save 0 and {white}, or one file for each label"
        )
    return np.asarray(values >= white / 2)


def _like_labels(values: NDArray[Any]) -> bool:
    """Say whether values are few and flat, as labels are; the coverage of something smaller than a pixel is neither."""
    levels, counts = np.unique(values[values > 0], return_counts=True)
    return len(levels) <= _MOST_LEVELS and float(counts.mean()) >= _LEAST_FLAT


def label_masks(values: NDArray[Any], name: str, *, numbered: bool = False) -> dict[str, NDArray[np.bool_]]:
    """Return a label volume's masks: ``mask`` where there are only 0 and 1, otherwise one for each whole number.

    Parameters
    ----------
    values
        Of the volume.
    name
        Of its file, for the error.
    numbered
        Name a 1 by its number too: other volumes of the set hold more labels, and this one may lack all but the first.

    Raises
    ------
    UnreadableImageError
        If the values are no labels.

    """
    labels = np.unique(values)
    if len(labels) > _MOST_LABELS or not np.equal(np.mod(labels, 1), 0).all():
        raise UnreadableImageError(name, "its mask holds no whole numbers: it is no label map")
    if not numbered and set(labels.tolist()) <= {0, 1}:
        return {"mask": values == 1}
    return {str(int(label)): values == label for label in labels if label != 0}
