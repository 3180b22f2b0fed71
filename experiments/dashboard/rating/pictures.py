"""An image with the outline of a feature's places, as a small JPEG that says nothing of where it came from."""

from __future__ import annotations

import base64
import io

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from PIL import Image

from experiments.dashboard.rating.items import Shown
from experiments.dashboard.run_view import Cells, RunView

SIDE_PX = 220
OUTLINE = (255, 226, 38)
AROUND = 0.5
"""Cells with at least this share of the map's largest value are outlined."""


def marked_picture(view: RunView, shown: Shown) -> str:
    """Return a picture with its mark as a ``data:`` URL; the longer side has 220 pixels.

    Parameters
    ----------
    view
        The run.
    shown
        Image and map. Without a map, or where the run does not say where its cells lie, the picture stands alone.

    """
    source = view.picture(shown.image)
    with Image.open(view.run_dir / str(source)) as opened:
        size = view.size_mm(shown.image) or (float(opened.height), float(opened.width))
        longer = max(size)
        height, width = (max(1, round(SIDE_PX * side / longer)) for side in size)
        pixels = np.array(opened.convert("RGB").resize((width, height), Image.Resampling.BILINEAR))
    cells = view.cells(shown.image)
    values = np.array(shown.values, dtype=float)
    if cells is not None and values.size and values.max() > 0:
        inside = _marked(values, cells, (height, width), (height / size[0], width / size[1]))
        pixels[_edge(inside)] = OUTLINE
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def _marked(
    values: Float[NDArray[np.float64], "row column"],
    cells: Cells,
    shape: tuple[int, int],
    px_per_mm: tuple[float, float],
) -> Bool[NDArray[np.bool_], "height width"]:
    """Return the pixels whose cell is strongly active."""
    strong = values >= AROUND * values.max()
    at = []
    for axis in (0, 1):
        mm = (np.arange(shape[axis]) + 0.5) / px_per_mm[axis]
        at.append(np.floor((mm - cells.first_centre_mm[axis]) / cells.step_mm[axis] + 0.5).astype(int))
    row, column = at
    there = ((row >= 0) & (row < values.shape[0]))[:, None] & ((column >= 0) & (column < values.shape[1]))[None, :]
    picked = strong[np.clip(row, 0, values.shape[0] - 1)][:, np.clip(column, 0, values.shape[1] - 1)]
    marked: NDArray[np.bool_] = picked & there
    return marked


def _edge(inside: Bool[NDArray[np.bool_], "height width"]) -> Bool[NDArray[np.bool_], "height width"]:
    """Return the pixels of a region that touch its outside, two pixels deep."""
    from scipy.ndimage import binary_erosion

    edge: NDArray[np.bool_] = inside & ~binary_erosion(inside, iterations=2, border_value=0)
    return edge
