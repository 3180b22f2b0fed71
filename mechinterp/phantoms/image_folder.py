"""Phantoms as a folder of PNG files that every image reader of the field opens."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from numpy.typing import NDArray
from PIL import Image

from mechinterp.files import write_bytes
from mechinterp.progress import Progress

if TYPE_CHECKING:
    from mechinterp.attributes.table import AttributeTable
    from mechinterp.phantoms.phantom_set import PhantomSet


def write_image_folder(phantoms: PhantomSet, out: Path, *, masks: bool, progress: Progress) -> Path:
    """Write images, masks, ``metadata.csv`` and ``dataset.yaml``.

    Parameters
    ----------
    phantoms
        What to write.
    out
        Folder: ``images/ID.png`` (8 bit, RGB or grey), ``masks/STRUCTURE/ID.png`` (8-bit, 255 where the structure covers all
        of a pixel), ``metadata.csv`` (file_name, label, group, split, one column an attribute), ``dataset.yaml``
        (spacing and what the columns mean).
    masks
        Whether to write them.
    progress
        Told of every image.

    Returns
    -------
    Path
        The folder. ``metadata.csv`` is written last, so a folder that was cut short names no missing image.

    """
    table = phantoms.attributes()
    rows = []
    for i in progress.track(range(len(phantoms)), "writing phantoms", total=len(phantoms)):
        phantom, name = phantoms.phantom(i), phantoms.ids[i]
        write_bytes(out / "images" / f"{name}.png", png(phantom.pixels))
        if masks:
            for structure, covered in phantom.coverage.items():
                write_bytes(out / "masks" / structure / f"{name}.png", png(covered))
        values = [_cell(table, i, k) for k in range(len(table.names))]
        rows.append([f"images/{name}.png", phantoms.labels[i], phantoms.groups[i], phantoms.splits[i], *values])
    write_bytes(out / "dataset.yaml", _description(phantoms, table).encode())
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["file_name", "label", "group", "split", *table.names])
    writer.writerows(rows)
    write_bytes(out / "metadata.csv", text.getvalue().encode())
    return out


def png(pixels: NDArray[np.float32]) -> bytes:
    """Encode values 0 to 1, height × width (× 3), as an 8-bit PNG."""
    file = io.BytesIO()
    Image.fromarray(np.round(np.clip(pixels, 0, 1) * 255).astype(np.uint8)).save(file, "PNG", optimize=True)
    return file.getvalue()


def _cell(table: AttributeTable, image: int, column: int) -> str:
    value = float(table.values[image, column])
    names = table.categories.get(table.names[column])
    if np.isnan(value):
        return ""
    return names[int(value)] if names else f"{value:.8g}"


def _description(phantoms: PhantomSet, table: AttributeTable) -> str:
    attributes: dict[str, dict[str, Any]] = {}
    for attribute in table:
        said: dict[str, Any] = {"unit": attribute.unit, "kind": attribute.kind, "measured": attribute.measured}
        if attribute.name in table.categories:
            said["categories"] = list(table.categories[attribute.name])
        attributes[attribute.name] = said
    described = {
        "name": phantoms.kind.title,
        "licence": "CC0-1.0",
        "intensity_range": [0, 255],
        "spacing_mm": list(phantoms.example.spacing_mm),
        "attributes": attributes,
    }
    return yaml.safe_dump(described, allow_unicode=True, sort_keys=False)
