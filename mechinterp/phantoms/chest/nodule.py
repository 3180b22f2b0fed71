"""Where a nodule lies and what it is shaped like."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mechinterp.phantoms.chest import anatomy
from mechinterp.phantoms.chest.parameters import ChestParameters
from mechinterp.phantoms.coverage import Blobs
from mechinterp.phantoms.curves import covered
from mechinterp.phantoms.random_streams import Identity
from mechinterp.phantoms.view import View

Image = NDArray[np.float64]


def place_mm(p: ChestParameters, who: Identity) -> tuple[float, float]:
    """Return the nodule's middle, pulled in from wall, mediastinum and diaphragm."""
    sign = -1.0 if p.nodule_side == "right" else 1.0
    row = anatomy.APEX_MM + p.nodule_below_apex_mm
    half = float(anatomy.wall_half_width_mm(np.array([row]), p.thorax_width_mm)[0])
    from_midline = float(np.clip(p.nodule_from_midline_mm, min(46.0, half - 12.0), max(half - 14.0, 30.0)))
    dome = anatomy.diaphragm_row_mm(np.array([sign * from_midline]), p, who)[0 if p.nodule_side == "right" else 1]
    return min(row, float(dome[0]) - 16.0), sign * from_midline


def nodule(p: ChestParameters, who: Identity) -> Blobs:
    """Return the nodule: nearly round, its outline lobulated by its own draw."""
    random = who.of_image("nodule")
    return Blobs(
        centres_mm=np.array([place_mm(p, who)]),
        sizes=np.ones(1),
        waves=random.uniform(0.02, 0.08, (1, 3)) * (1.0, 0.8, 0.6),
        phases=random.uniform(0, 2 * np.pi, (1, 3)),
        elongations=random.uniform(1.0, 1.25, 1),
        directions=random.uniform(0, np.pi, 1),
    )


def room(view: View, p: ChestParameters, who: Identity) -> Image:
    """Return where a nodule can show: all of the thorax above the diaphragm."""
    rows, columns = view.grid_mm[..., 0], view.grid_mm[..., 1]
    inside: Image = covered(anatomy.wall_half_width_mm(rows, p.thorax_width_mm) - np.abs(columns), view)
    above: Image = covered(np.where(columns < 0, *anatomy.diaphragm_row_mm(columns, p, who)) - rows, view)
    return inside * above


def thickness(view: View, p: ChestParameters, who: Identity) -> Image:
    """Return how thick a ball is over its middle's thickness, never below 0.3 within the nodule."""
    radius = max(p.nodule_diameter_mm / 2, 0.5)
    squared = np.square(view.grid_mm - place_mm(p, who)).sum(-1) / radius**2
    share: Image = 0.3 + 0.7 * np.sqrt(np.clip(1 - squared / 1.15, 0, 1))
    return share
