"""Open a set of images from a path, a name, or what an earlier set said of its source."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from mechinterp.errors import ImagesError, nearest
from mechinterp.images.image_set import ImageSet

_NIFTI = (".nii", ".nii.gz")


def open_images(source: Mapping[str, Any] | str | Path) -> ImageSet:
    """Open a set of images.

    Parameters
    ----------
    source
        :attr:`ImageSet.source` of an earlier set; or the path of a folder or of a ``.nii``/``.nii.gz`` file; or
        ``template:NAME`` for heads that come with other packages (``mni152``, ``ch2``, ``ch2bet``).

    Raises
    ------
    ImagesError
        If there is nothing of that kind; what lies beside it is proposed.

    """
    return _reopened(source) if isinstance(source, Mapping) else _opened(str(source))


def _openers() -> dict[str, Callable[..., ImageSet]]:
    from mechinterp.images.brain_template import ch2_slices, mni_template_slices
    from mechinterp.images.image_folder import from_folder
    from mechinterp.images.nifti import from_nifti
    from mechinterp.phantoms.datasets import KINDS, phantom_images

    return {
        "folder": from_folder,
        "nifti": from_nifti,
        "mni152": mni_template_slices,
        "ch2": ch2_slices,
        **{f"{kind}_phantom": partial(phantom_images, kind) for kind in KINDS},
    }


def _reopened(source: Mapping[str, Any]) -> ImageSet:
    if not source:
        raise ImagesError("these images have no source to open again (a subset, or made in memory): open the originals")
    settings, openers = dict(source), _openers()
    kind = str(settings.pop("kind", ""))
    if kind not in openers:
        raise ImagesError(f"images of kind '{kind}' cannot be opened: {nearest(kind, openers)}")
    for key in ("intensity_range", "spacing_mm", "pattern"):
        if isinstance(settings.get(key), list):
            settings[key] = tuple(settings[key])
    try:
        return openers[kind](**settings)
    except TypeError as error:
        raise ImagesError(f"a source of kind '{kind}' has a setting that is none ({error}): it was altered") from error


def _opened(spec: str) -> ImageSet:
    if spec.startswith("template:"):
        return _template(spec.removeprefix("template:"))
    path = Path(spec)
    if path.is_dir():
        return _openers()["folder"](path)
    if path.is_file():
        if not path.name.endswith(_NIFTI):
            raise ImagesError(f"{path} is neither a folder of images nor a NIfTI file ({', '.join(_NIFTI)})")
        return _openers()["nifti"](path)
    parent, missing = path.parent, path.name
    while not parent.is_dir() and parent != parent.parent:
        parent, missing = parent.parent, parent.name
    siblings = sorted(
        p.name for p in parent.iterdir() if not p.name.startswith(".") and (p.is_dir() or p.name.endswith(_NIFTI))
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
