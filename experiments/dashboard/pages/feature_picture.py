"""One image with a feature's values over it, as all galleries of a feature draw it."""

from __future__ import annotations

import numpy as np

from experiments.dashboard.formatting import format_value
from experiments.dashboard.page import Block, FigureBlock, Text
from experiments.dashboard.record import Record
from experiments.dashboard.run_view import Cells, RunView
from mechinterp.picture_figures import image_with_overlay

OPACITY = 0.6
PICTURE_WIDTH_PX = 310
"""About what a picture gets on the page; only the height reserved for it depends on this, never the register."""


def picture(view: RunView, feature: Record, entry: Record, highest: float) -> Block:
    """Return one image of a gallery with the feature's values over it.

    Parameters
    ----------
    view, feature
        The run and the feature.
    entry
        ``image``, ``value``, ``map``.
    highest
        Value at the end of the colour bar, the same for all pictures of a gallery.

    """
    image = entry["image"].integer() or 0
    name, value = view.image_name(image), format_value(entry["value"].number())
    details = [name]
    if view.image_label(image):
        details.append(f"labelled {view.image_label(image)}")
    probability = view.probability(image, view.target_index)
    if probability is not None:
        details.append(f"p({view.target}) {probability:.2f}")
    caption = f"value {value} · " + " · ".join(details)
    source, size, cells = view.picture(image), view.size_mm(image), view.cells(image)
    grid = entry["map"].grid()
    if source is None or size is None:
        return Text((caption, "The picture of this image was not kept."), "muted")
    values = np.array(grid, dtype=float) if grid and cells else None
    where = _peak_words(values, cells, view.length_unit) if values is not None and cells else ""
    figure = image_with_overlay(
        source,
        size,
        values,
        first_centre_mm=cells.first_centre_mm if cells else (0.0, 0.0),
        step_mm=cells.step_mm if cells else (1.0, 1.0),
        label="feature value",
        limits=(0.0, highest) if highest > 0 else None,
        orientation=view.orientation,
        length_unit=view.length_unit,
        opacity=OPACITY,
    )
    alt = f"{name} with the values of {view.feature_name(feature)} painted over it; highest {value}{where}."
    if values is None:
        caption += " · no map was kept"
        alt = f"{name}, without overlay."
    height = round(PICTURE_WIDTH_PX * size[0] / size[1]) + (52 if values is not None else 0)
    return FigureBlock(figure, caption, alt, height_px=min(height, 560))


def _peak_words(values: np.ndarray, cells: Cells, unit: str) -> str:
    if not np.isfinite(values).any():
        return ""
    row, column = np.unravel_index(np.nanargmax(values), values.shape)
    down = cells.first_centre_mm[0] + row * cells.step_mm[0]
    right = cells.first_centre_mm[1] + column * cells.step_mm[1]
    return f", {down:.0f} {unit} from the top and {right:.0f} {unit} from the left"
