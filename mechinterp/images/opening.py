"""Open a set of images from a path, a name, or what an earlier set said of its source."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from mechinterp.errors import ImagesError, nearest
from mechinterp.images.findings import MaxBad
from mechinterp.images.image_set import ImageSet
from mechinterp.progress import SILENT, Progress

_NIFTI = (".nii", ".nii.gz")
_ARRAYS = (".npy", ".npz")
_LOOKED_AT = 1000  # files of a folder, to tell what it holds
_LOOKED_FOR = (
    "a folder of pictures (.png, .jpg, .tif, .npy), of DICOM or of NIfTI files, a saved Hugging Face data set, a .nii or "
    ".nii.gz volume, a DICOM file, an .npy or MedMNIST .npz file"
)
# What a spec may begin with, and the reader that takes the rest of it.
_PREFIXES = {
    "folder": "folder",
    "dicom": "dicom",
    "nifti": "nifti_files",
    "volumes": "volumes",
    "arrays": "arrays",
    "hf-dataset": "hf_dataset",
}
_FILES = frozenset({"folder", "dicom", "nifti", "nifti_files", "arrays", "hf_dataset"})
_TAKES_WINDOW = frozenset({"dicom", "nifti_files"})
_TAKES_KEY = frozenset({"dicom", "nifti_files", "folder", "hf_dataset"})


def open_images(
    source: Mapping[str, Any] | str | Path,
    *,
    window: str | None = None,
    key: str | Path | None = None,
    max_bad: MaxBad | str | float | None = None,
    look: bool = True,
    progress: Progress = SILENT,
) -> ImageSet:
    """Open a set of images.

    Parameters
    ----------
    source
        :attr:`ImageSet.source` of an earlier set; or a path: a folder of pictures, of DICOM files or of NIfTI volumes, a
        Hugging Face data set saved to disk, a ``.nii``/``.nii.gz`` file, a DICOM file, an ``.npy``/``.npz`` file
        (MedMNIST too). What it is is recognised and noted; ``folder:``, ``dicom:``, ``nifti:``, ``volumes:`` (whole
        volumes, of DICOM series or NIfTI files), ``arrays:`` or ``hf-dataset:`` before the path says it. Or ``phantom``
        or ``phantom:KIND`` for rendered images, or ``template:NAME`` for heads that come with other packages
        (``mni152``, ``ch2``, ``ch2bet``).
    window
        Which values are black and white, for DICOM and NIfTI; see :func:`mechinterp.images.windows.window_range`.
    key
        Key file by which patients are named; see :mod:`mechinterp.images.pseudonyms`.
    max_bad
        Given, every image is read once: those that cannot be are set aside, up to this count or share. See
        :func:`mechinterp.images.screening.screened`. Otherwise an image that cannot be read raises when it is needed.
    look
        With `max_bad`: look for burned-in text and faces too.
    progress
        Sees long work.

    Raises
    ------
    ImagesError
        If there is nothing of that kind; what lies beside it is proposed. If more images are damaged than allowed.

    """
    limit = None if max_bad is None else MaxBad.parse(max_bad)
    images = _reopened(source) if isinstance(source, Mapping) else _opened(str(source), window, key, limit, look)
    if limit is None or images.source.get("kind") not in _FILES:
        return images  # what is rendered, or comes with a package, is whole and nobody's
    from mechinterp.images.screening import screened

    return screened(images, max_bad=limit, look=look, progress=progress)


def _openers() -> dict[str, Callable[..., ImageSet]]:
    from mechinterp.images.array_files import from_array_file
    from mechinterp.images.brain_template import ch2_slices, mni_template_slices
    from mechinterp.images.dicom.reading import from_dicom
    from mechinterp.images.hf_datasets import from_hf_dataset
    from mechinterp.images.image_folder import from_folder
    from mechinterp.images.nifti import from_nifti
    from mechinterp.images.nifti_files import from_nifti_files
    from mechinterp.phantoms.datasets import KINDS, phantom_images

    return {
        "folder": from_folder,
        "nifti": from_nifti,
        "nifti_files": from_nifti_files,
        "dicom": from_dicom,
        "arrays": from_array_file,
        "hf_dataset": from_hf_dataset,
        "mni152": mni_template_slices,
        "ch2": ch2_slices,
        **{f"{kind}_phantom": partial(phantom_images, kind) for kind in KINDS},
    }


def _reopened(source: Mapping[str, Any]) -> ImageSet:
    if not source:
        raise ImagesError("these images have no source to open again (a subset, or made in memory): open the originals")
    settings, openers = dict(source), _openers()
    kind = str(settings.pop("kind", ""))
    without, of_split = settings.pop("without", ()), settings.pop("of_split", None)
    tested_on = settings.pop("tested_on", None)
    if kind not in openers:
        raise ImagesError(f"images of kind '{kind}' cannot be opened: {nearest(kind, openers)}")
    for name in ("intensity_range", "spacing_mm", "pattern"):
        if isinstance(settings.get(name), list):
            settings[name] = tuple(settings[name])
    try:
        opened = openers[kind](**settings).without(without)
    except TypeError as error:
        raise ImagesError(f"a source of kind '{kind}' has a setting that is none ({error}): it was altered") from error
    if tested_on is not None:
        opened = opened.tested_on(tested_on)
    return opened if of_split is None else opened.of_split(of_split)


def _opened(spec: str, window: str | None, key: str | Path | None, limit: MaxBad | None, look: bool) -> ImageSet:
    if spec.startswith("template:"):
        return _template(spec.removeprefix("template:"))
    if spec.startswith("phantom:") or (spec == "phantom" and not Path(spec).exists()):
        from mechinterp.phantoms.datasets import phantom_images

        return phantom_images(spec.partition(":")[2] or "fundus")
    prefix, _, rest = spec.partition(":")
    if rest and prefix in _PREFIXES:
        path, kind = Path(rest), _PREFIXES[prefix]
        _require(path)
    else:
        path = Path(spec)
        _require(path)
        kind = recognised(path)
    settings: dict[str, Any] = {}
    if kind == "volumes":
        kind = "dicom" if path.is_dir() and not _counts(path).get("nifti_files") else "nifti_files"
        settings["volumes"] = True
    if window is not None and kind == "nifti":
        from mechinterp.images.windows import window_range

        settings["intensity_range"] = window_range(window)
    elif window is not None and kind not in _TAKES_WINDOW:
        raise ImagesError(
            f"a window is for DICOM and NIfTI, but {path} holds neither: say intensity_range in dataset.yaml"
        )
    elif window is not None:
        settings["window"] = window
    if key is not None and kind in _TAKES_KEY:
        settings["key"] = key
    if kind == "folder" and limit is not None:
        settings["tolerant"] = True
    if kind in {"dicom", "nifti"} and limit is not None and look:
        settings["look_for_faces"] = True
    images = _openers()[kind](path, **settings)
    return replace(images, notes=(f"recognised as {_SAID[kind]}", *images.notes))


_SAID = {
    "folder": "a folder of pictures",
    "nifti": "a NIfTI volume, sliced",
    "nifti_files": "NIfTI volumes",
    "dicom": "DICOM",
    "arrays": "arrays",
    "hf_dataset": "a Hugging Face data set",
}


def recognised(path: Path) -> str:
    """Say which reader a path is for: the kind that :attr:`ImageSet.source` names.

    Raises
    ------
    ImagesError
        If it is for none, or a folder holds several kinds.

    """
    from mechinterp.images.dicom.headers import looks_like_dicom
    from mechinterp.images.metadata_table import TABLES

    if path.is_file():
        if path.name.lower().endswith(_NIFTI):
            return "nifti"
        if path.suffix.lower() in _ARRAYS:
            return "arrays"
        if looks_like_dicom(path):
            return "dicom"
        raise ImagesError(f"{path} is none of these: {_LOOKED_FOR}")
    if any((path / mark).is_file() for mark in ("dataset_dict.json", "state.json")):
        return "hf_dataset"
    there = _counts(path)
    if len(there) == 1 or (there and (path / TABLES[0]).is_file()):
        return max(there, key=lambda kind: there[kind])
    if there:
        found = ", ".join(f"{n} of {_SAID[kind]}" for kind, n in there.items())
        prefixes = " or ".join(f"{p}:{path}" for p, kind in _PREFIXES.items() if kind in there)
        raise ImagesError(f"{path} holds files of several kinds ({found}): say which with {prefixes}")
    if any((path / table).is_file() for table in TABLES):
        return "folder"  # whose reader says which of the table's images are missing
    raise ImagesError(f"image folder {path} holds no image (looked for {_LOOKED_FOR})")


def _counts(path: Path) -> dict[str, int]:
    """Count the files of each kind among the first of a folder; kinds without any are left out."""
    from mechinterp.images.dicom.headers import looks_like_dicom
    from mechinterp.images.image_files import is_image_file
    from mechinterp.images.nifti_files import is_nifti

    counts: dict[str, int] = {}
    for file in islice(path.rglob("*"), _LOOKED_AT):
        if not file.is_file() or file.name.startswith("."):
            continue
        tests = (("folder", is_image_file), ("nifti_files", is_nifti), ("dicom", looks_like_dicom))
        kind = next((kind for kind, is_one in tests if is_one(file)), None)
        if kind is not None:
            counts[kind] = counts.get(kind, 0) + 1
    return counts


def _require(path: Path) -> None:
    """Say what lies beside a path that is not there."""
    if path.exists():
        return
    parent, missing = path.parent, path.name
    while not parent.is_dir() and parent != parent.parent:
        parent, missing = parent.parent, parent.name
    siblings = sorted(
        p.name
        for p in parent.iterdir()
        if not p.name.startswith(".") and (p.is_dir() or p.name.endswith((*_NIFTI, *_ARRAYS, ".dcm")))
    )
    raise ImagesError(f"images {path} are not there: {parent} has no '{missing}', {nearest(missing, siblings)}")


def _template(name: str) -> ImageSet:
    from mechinterp.images.brain_template import ch2_slices, mni_template_slices

    match name:
        case "mni152":
            return mni_template_slices()
        case "ch2":
            return ch2_slices()
        case "ch2bet":
            return ch2_slices(stripped=True)
    raise ImagesError(f"there is no template '{name}': {nearest(name, ('mni152', 'ch2', 'ch2bet'))}")
