"""A set of images from one ``.npy`` or ``.npz`` file: arrays of one's own, or MedMNIST."""

from __future__ import annotations

import importlib
import struct
import zipfile
from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mechinterp.attributes.table import Attribute, AttributeTable
from mechinterp.errors import ImagesError, nearest
from mechinterp.images.image_set import ImageSet
from mechinterp.images.intensity import checked_range, range_of
from mechinterp.images.metadata_table import split_of

SUFFIXES = (".npy", ".npz")
_MEDMNIST_SPLITS = ("train", "val", "test")
_PER_IMAGE = ("labels", "groups", "cases", "splits", "ids")
_LOCAL_HEADER, _NAME_LENGTH_AT = 30, 26  # of a member in a zip file (APPNOTE.TXT, 4.3.7)


def from_array_file(
    path: str | Path,
    *,
    intensity_range: tuple[float, float] | None = None,
    spacing_mm: float | tuple[float, ...] | None = None,
    class_names: Sequence[str] | None = None,
    name: str | None = None,
    licence: str | None = None,
) -> ImageSet:
    """Open an array of images.

    ``.npy``: image × height × width (× channel), or image × depth × height × width of volumes. ``.npz``: the same under
    the key ``images``, with optional ``labels``, ``groups``, ``cases``, ``splits`` and ``ids`` (one each), ``spacing_mm``
    (one, or one per image) and ``masks`` (of the images' shape). A MedMNIST file is known by its ``train_images``: its
    splits are kept, its labels named as the package ``medmnist`` names them where that is installed, and several labels
    of one image become binary attributes.

    Parameters
    ----------
    path
        The file.
    intensity_range, spacing_mm
        As in :func:`mechinterp.images.arrays.from_arrays`; spacing of a volume is (z, y, x).
    class_names
        Names of MedMNIST's classes in their order.
    name, licence
        What is shown on pages.

    Returns
    -------
    ImageSet
        Arrays that are stored plainly are mapped, not read: the file may be larger than memory. A compressed array is
        read whole when the first of its images is.

    Raises
    ------
    ImagesError
        If the file holds no images, or something that is not one per image.

    """
    path = Path(path)
    members = _members(path)
    medmnist = "train_images" in members
    if medmnist:
        parts = [p for p in _MEDMNIST_SPLITS if f"{p}_images" in members]
        keys = [f"{p}_images" for p in parts]
    elif "images" in members:
        keys = ["images"]
    else:
        raise ImagesError(
            f"{path} holds {', '.join(sorted(members))} but neither 'images' nor MedMNIST's 'train_images': "
            f"{nearest('images', members)}"
        )
    arrays = [array_in(path, key) for key in keys]
    for key, array in zip(keys, arrays, strict=True):
        _check_shape(array, path, key)
    axes = _axes(arrays[0])
    counts = [len(a) for a in arrays]
    n = sum(counts)
    said: dict[str, Any]
    if medmnist:
        said = _medmnist(path, parts, counts, class_names)
    else:
        said = {what: _words(path, what, members, n) for what in _PER_IMAGE}
        if said["splits"] is not None:
            said["splits"] = tuple(None if s is None else split_of(s, str(path)) for s in said["splits"])
        if "masks" in members:
            said["read_masks"] = partial(_masks, path, arrays[0].shape[: axes + 1])
    digits = len(str(max(n - 1, 0)))
    ids = said.pop("ids", None) or tuple(f"{i:0{digits}d}" for i in range(n))
    names = said.pop("class_names", None)
    return ImageSet(
        ids=ids,
        read=partial(_read, path, tuple(keys), tuple(counts)),
        intensity_range=range_of(arrays, path.name)
        if intensity_range is None
        else checked_range(intensity_range, "intensity_range"),
        spacing_mm=_spacings(path, members, spacing_mm, axes, n),
        axes=axes,
        source={
            "kind": "arrays",
            "path": path.resolve().as_posix(),
            **({} if intensity_range is None else {"intensity_range": [float(v) for v in intensity_range]}),
            **({} if spacing_mm is None else {"spacing_mm": np.atleast_1d(spacing_mm).tolist()}),
            **({} if names is None else {"class_names": list(names)}),
            **({} if name is None else {"name": name}),
            **({} if licence is None else {"licence": licence}),
        },
        name=name or path.stem,
        licence=licence,
        **said,
    )


def array_in(path: Path, key: str) -> NDArray[Any]:
    """Return an array of a file: mapped where it is stored plainly, read where it is compressed.

    Raises
    ------
    ImagesError
        If the file is damaged, or holds Python objects, which are never loaded.

    """
    try:
        return _opened(str(path), key, path.stat().st_mtime_ns)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, struct.error) as error:
        reason = " ".join(str(error).split())
        raise ImagesError(f"{path} cannot be read as NumPy's {path.suffix} ({reason}): write it again") from error


@lru_cache(maxsize=8)
def _opened(path: str, key: str, changed: int) -> NDArray[Any]:
    """Open one array; `changed` makes a file that was written anew another one."""
    if path.endswith(".npy"):
        return np.asanyarray(np.load(path, mmap_mode="r", allow_pickle=False))
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo(f"{key}.npy")
        if member.compress_type != zipfile.ZIP_STORED:
            with archive.open(member) as file:
                return np.asanyarray(np.lib.format.read_array(file, allow_pickle=False))
    with Path(path).open("rb") as file:
        file.seek(member.header_offset + _NAME_LENGTH_AT)
        lengths = struct.unpack("<HH", file.read(4))
        file.seek(member.header_offset + _LOCAL_HEADER + sum(lengths))
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(file)
        if dtype.hasobject:
            raise ValueError("Python objects are never loaded")
        return np.memmap(path, dtype, "r", file.tell(), shape, "F" if fortran else "C")


def _members(path: Path) -> tuple[str, ...]:
    if path.suffix == ".npy":
        return ("images",)
    try:
        with zipfile.ZipFile(path) as archive:
            return tuple(name.removesuffix(".npy") for name in archive.namelist())
    except (OSError, zipfile.BadZipFile) as error:
        raise ImagesError(f"{path} cannot be read as NumPy's .npz ({error}): write it again") from error


def _axes(array: NDArray[Any]) -> int:
    """Return 3 for volumes: four axes whose last is no channel."""
    return 3 if array.ndim == 4 and array.shape[-1] not in (1, 3, 4) else 2


def _check_shape(array: NDArray[Any], path: Path, key: str) -> None:
    if array.ndim not in (3, 4) or array.size == 0 or array.dtype.kind not in "buif":
        raise ImagesError(
            f"'{key}' of {path} is {array.dtype} of shape {array.shape}: numbers, image × height × width (× channel) or "
            "image × depth × height × width"
        )


def _read(path: Path, keys: Sequence[str], counts: Sequence[int], i: int) -> NDArray[Any]:
    for key, count in zip(keys, counts, strict=True):
        if i < count:
            return np.asarray(array_in(path, key)[i])
        i -= count
    raise IndexError(i)


def _masks(path: Path, shape: tuple[int, ...], i: int) -> Mapping[str, NDArray[np.bool_]]:
    masks = array_in(path, "masks")
    if masks.shape != shape:
        raise ImagesError(f"'masks' of {path} have shape {masks.shape}: they must be {shape}, as the images")
    return {"mask": np.asarray(masks[i]) != 0}


def _words(path: Path, what: str, members: Sequence[str], n: int) -> tuple[str | None, ...] | None:
    if what not in members:
        return None
    values = array_in(path, what)
    if values.shape != (n,):
        raise ImagesError(f"'{what}' of {path} has shape {values.shape}: it needs one value for each of {n} images")
    return tuple(None if str(v) in {"", "nan", "None"} else str(v) for v in values.tolist())


def _spacings(
    path: Path, members: Sequence[str], given: float | tuple[float, ...] | None, axes: int, n: int
) -> tuple[tuple[float, ...], ...] | None:
    if given is None and "spacing_mm" not in members:
        return None
    values = np.asarray(array_in(path, "spacing_mm") if given is None else given, dtype=float)
    try:
        per_image = np.broadcast_to(values, (n, axes))
    except ValueError:
        raise ImagesError(
            f"spacing_mm of {path} has shape {values.shape}: give {axes} numbers, once or for each of {n} images"
        ) from None
    if not (np.isfinite(per_image) & (per_image > 0)).all():
        raise ImagesError(f"spacing_mm of {path} is not positive throughout: millimetres per pixel are")
    return tuple(map(tuple, per_image.tolist()))


def _medmnist(
    path: Path, parts: Sequence[str], counts: Sequence[int], class_names: Sequence[str] | None
) -> dict[str, Any]:
    """Return splits, labels and attributes of a MedMNIST file."""
    labels = [array_in(path, f"{p}_labels").reshape(count, -1) for p, count in zip(parts, counts, strict=True)]
    every = np.concatenate(labels).astype(np.int64)
    names = tuple(class_names or _class_names(path) or ())
    said: dict[str, Any] = {
        "splits": tuple(split_of(p, str(path)) for p, count in zip(parts, counts, strict=True) for _ in range(count)),
        "ids": tuple(f"{p}/{i:06d}" for p, count in zip(parts, counts, strict=True) for i in range(count)),
        "class_names": names or None,
        "notes": (f"MedMNIST file, {' + '.join(map(str, counts))} images as {', '.join(parts)}",),
    }
    if every.shape[1] == 1:
        said["labels"] = tuple(names[v] if v < len(names) else str(v) for v in every[:, 0].tolist())
    else:
        columns = names if len(names) == every.shape[1] else tuple(f"label_{k}" for k in range(every.shape[1]))
        said["attributes"] = AttributeTable.from_columns(
            (Attribute(column, "", kind="binary", measured="label of the data set"), every[:, k])
            for k, column in enumerate(columns)
        )
    return said


def _class_names(path: Path) -> tuple[str, ...] | None:
    """Return the names that the package ``medmnist`` gives the classes of a file called like its data set."""
    try:
        info: Any = importlib.import_module("medmnist.info")
    except ImportError:
        return None
    known = info.INFO.get(path.stem.split("_")[0])
    return None if known is None else tuple(known["label"][str(k)] for k in range(len(known["label"])))
