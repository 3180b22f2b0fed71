"""Pictures of the images as pages show them, and where a site's cells lie on them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mechinterp.files import write_atomically
from mechinterp.images.image_set import ImageSet
from mechinterp.images.preparation import Preparation
from mechinterp.models.vision_model import InputContract
from mechinterp.progress import SILENT, Progress
from mechinterp.sites import Site

_SIDES = {
    "axial": {"top": "A", "bottom": "P", "left": "L", "right": "R"},
    "coronal": {"top": "S", "bottom": "I", "left": "L", "right": "R"},
    "sagittal": {"top": "S", "bottom": "I", "left": "A", "right": "P"},
}
"""What lies at the sides of an upright slice, see :class:`mechinterp.images.volume.Volume`."""


def _axis(source: Mapping[str, Any]) -> str | None:
    """Return the plane of slices of a volume, ``None`` for other images."""
    return "axial" if source.get("kind") in {"mni152", "ch2"} else source.get("axis")


def write_pictures(images: ImageSet, folder: Path, *, progress: Progress = SILENT) -> list[str]:
    """Write every image as an 8-bit PNG named by its position, and return the names, relative to the folder's parent.

    The files carry no id and no metadata: what a page shows of an image is decided by the page.
    """
    names = []
    for i in progress.track(range(len(images)), "pictures", total=len(images)):
        pixels = np.round(images[i].scaled() * 255).astype(np.uint8)
        picture = Image.fromarray(pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels)
        name = f"image-{i:05d}.png"

        def write(temporary: Path, picture: Image.Image = picture) -> None:
            picture.save(temporary, format="PNG", optimize=True)

        write_atomically(folder / name, write)
        names.append(f"{folder.name}/{name}")
    return names


def registration(
    images: ImageSet, site: Site, contract: InputContract, preparation: Preparation
) -> dict[str, Any] | None:
    """Return where the cells of a site lie on every image, in millimetres from its top-left corner.

    Where one image has no spacing all lengths are in pixels, so that one unit holds for the page.

    Returns
    -------
    dict or None
        ``rows``, ``columns``, and per image the first cell's ``tiles_mm_first`` (top, left, bottom, right) and
        ``centre_mm_first``, and ``step_mm`` between cells, all (row, column); ``None`` for a site without a grid.

    """
    if site.grid is None:
        return None
    per_image: list[dict[str, Any]] = []
    lengths = _pixel_lengths(images)
    for image in images:
        _, placement = preparation.apply(image, contract)
        spacing = lengths[len(per_image)]
        tiles = site.grid.boxes_mm(placement, spacing, tiles=True)
        step = np.asarray(site.grid.stride) * placement.scale * spacing
        centre = placement.to_image(site.grid.centres()[:1])[0] * spacing
        per_image.append({"tiles_mm_first": tiles[0], "centre_mm_first": centre, "step_mm": step})
    same = all(all(np.array_equal(p[k], per_image[0][k]) for k in p) for p in per_image)
    shape = {"rows": site.grid.rows, "columns": site.grid.columns}
    return {**shape, "shared": per_image[0]} if same else {**shape, "per_image": per_image}


def _known(images: ImageSet) -> bool:
    return images.spacing_mm is not None and all(s is not None for s in images.spacing_mm)


def _pixel_lengths(images: ImageSet) -> list[tuple[float, ...]]:
    """Return each image's (row, column) length of a pixel: in millimetres if all are known, otherwise 1."""
    return [s or (1.0, 1.0) for s in images.spacing_mm or ()] if _known(images) else [(1.0, 1.0)] * len(images)


def image_facts(images: ImageSet, files: list[str], logits: Any, probabilities: Any) -> dict[str, Any]:
    """Return the ``images`` part of ``results.json``."""
    sizes = []
    for image, spacing in zip(images, _pixel_lengths(images), strict=True):
        sizes.append([image.pixels.shape[0] * spacing[0], image.pixels.shape[1] * spacing[1]])
    table = images.attributes
    position = next((a for a in table if a.name == "slice_position"), None)
    return {
        "name": images.name,
        "licence": images.licence,
        "n": len(images),
        "units_are_patients": images.units_are_patients,
        "length_unit": "mm" if _known(images) else "px",
        "ids": images.ids,
        "labels": images.labels,
        "groups": images.groups,
        "splits": images.splits,
        "position": None if position is None else table.column(position.name),
        "position_label": None if position is None else position.label,
        "files": files,
        "size_mm": sizes,
        "orientation_labels": _SIDES.get(str(_axis(images.source))),
        "attributes": [
            {
                "name": a.name,
                "unit": a.unit,
                "label": a.label,
                "measured": a.measured,
                "level": a.level,
                "kind": a.kind,
                "values": table.column(a.name),
            }
            for a in table
        ],
        "probabilities": probabilities,
        "logits": logits,
    }
