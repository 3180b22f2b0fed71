"""Outline of a compressed breast: where the skin, the nipple and the pectoral muscle lie, in millimetres.

Coordinates are (row, column) of a left breast: columns grow from the chest wall at the image's edge towards the
nipple, rows grow downwards, and the nipple's row is near 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from mechinterp.phantoms.curves import Curve, smooth_line
from mechinterp.phantoms.mammogram.parameters import MammogramParameters
from mechinterp.phantoms.random_streams import Identity

Points = NDArray[np.float64]

# (row over the breast's height, column over its depth) from the axilla to the abdomen
_MLO = np.array([
    (-1.15, 0.40), (-0.85, 0.47), (-0.60, 0.58), (-0.34, 0.80), (-0.13, 0.955), (0.0, 1.0), (0.13, 0.965), (0.27, 0.82),
    (0.37, 0.60), (0.43, 0.40), (0.485, 0.27), (0.56, 0.245), (0.68, 0.28), (0.9, 0.33),
])  # fmt: skip


@dataclass(frozen=True)
class Outline:
    """The skin's line, and the tip of the breast.

    Parameters
    ----------
    skin
        Runs downwards, with the breast on its chest side.
    nipple_mm
        Where the skin is farthest from the chest wall.

    """

    skin: Curve
    nipple_mm: tuple[float, float]


def outline(p: MammogramParameters, who: Identity) -> Outline:
    """Return the outline of a patient's breast in one view."""
    return _outline(who.seed, who.patient, p.view, p.breast_depth_mm, p.breast_height_mm)


@lru_cache(maxsize=64)
def _outline(seed: int, patient: int, view: str, depth: float, height: float) -> Outline:
    skew, roundness, *wobble = Identity(seed, patient).of_patient("outline", view).uniform(-1, 1, 8)
    if view == "CC":
        t = np.linspace(-1.0, 1.0, 41) * np.pi / 2
        rows = np.sign(t) * np.abs(np.sin(t)) ** (1.0 + 0.08 * roundness) * height / 2
        columns = np.cos(t) ** (0.86 + 0.1 * roundness) * depth
        rows = rows + 0.05 * skew * height * np.cos(t) ** 2
        # beyond the chest wall the skin runs on
        control = np.stack([np.r_[rows[0], rows, rows[-1]], np.r_[-12.0, columns, -12.0]], -1)
    else:
        control = _MLO * (height * (1 + 0.05 * roundness), depth)
        control[:, 0] += 0.03 * skew * height * np.sin(np.linspace(0, np.pi, len(control)))
    line = smooth_line(control, 800)
    s = np.linspace(0, 1, 800)
    waves = sum(a * np.sin(2 * np.pi * (k + 2) * s) for k, a in enumerate(wobble[:4]))
    line[:, 1] *= 1 + 0.012 * np.asarray(waves)
    line[:, 1] *= depth / line[:, 1].max()
    skin = Curve.through(line)
    tip = skin.points_mm[int(np.argmax(skin.points_mm[:, 1]))]
    return Outline(skin, (float(tip[0]), float(tip[1])))


def pectoral_depth_mm(grid_mm: Points, p: MammogramParameters, who: Identity) -> Float[Points, "height width"]:
    """Return how deep every place lies in the pectoral muscle, which only the MLO view shows; negative outside."""
    if p.view == "CC":
        return np.full(grid_mm.shape[:-1], -1e3)
    width, length, bow = who.of_patient("pectoral").uniform((0.40, 0.30, 2.0), (0.58, 0.55, 7.0))
    top, bottom = -0.62 * p.breast_height_mm, (length - 0.32) * p.breast_height_mm
    edge = np.array([bottom - top, -width * p.breast_depth_mm])
    edge /= np.linalg.norm(edge)
    offset = grid_mm - (top, width * p.breast_depth_mm)
    along, across = offset @ edge, offset @ np.array([-edge[1], edge[0]])
    full = float(np.hypot(bottom - top, width * p.breast_depth_mm))
    bulge = bow * np.sin(np.pi * np.clip(along / full, 0, 1))
    depth: Points = bulge - across
    return depth
