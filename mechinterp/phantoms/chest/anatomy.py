"""Shapes of a thorax seen from behind: outlines of body, lungs, heart, mediastinum and diaphragm, in millimetres.

Coordinates are (row, column): row 0 at the level of the lungs' hila, column 0 at the spine, columns growing to the
patient's left, which is the image's right. Every shape is a curve or the height of one, so that its coverage follows
from a distance.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from mechinterp.phantoms.chest.parameters import ChestParameters
from mechinterp.phantoms.curves import Curve, smooth_line
from mechinterp.phantoms.random_streams import Identity

Points = NDArray[np.float64]

APEX_MM, DOME_MM = -142.0, 92.0
# (row, share of the half width) of the thorax's inner wall, from the apex down
_WALL = np.array([
    (-143.0, 0.30), (-138.0, 0.44), (-120.0, 0.60), (-90.0, 0.755), (-50.0, 0.885), (0.0, 0.965), (50.0, 1.0), (95.0, 0.995),
    (135.0, 0.97), (180.0, 0.93), (240.0, 0.90),
])  # fmt: skip
# (row, half width in mm) of the body: neck, shoulders, chest, waist
_BODY = np.array([
    (-280.0, 58.0), (-215.0, 57.0), (-190.0, 62.0), (-172.0, 88.0), (-160.0, 132.0), (-142.0, 172.0), (-118.0, 194.0), (-80.0, 199.0),
    (-40.0, 190.0), (20.0, 181.0), (90.0, 176.0), (160.0, 172.0), (280.0, 170.0),
])  # fmt: skip
# heart: (row over the heart's width, column from -1 at the right border to 1 at the left)
_HEART = np.array([
    (-0.62, -0.30), (-0.34, -0.56), (-0.08, -0.88), (0.14, -1.0), (0.36, -0.86), (0.50, -0.45), (0.56, 0.10), (0.54, 0.60), (0.44, 0.90),
    (0.30, 1.0), (0.10, 0.90), (-0.12, 0.62), (-0.36, 0.30), (-0.58, 0.12),
])  # fmt: skip
HEART_ROW_MM, RIGHT_SHARE = 52.0, 0.36
_WALL_LINE = smooth_line(_WALL, 400)
_WALL_LINE[:, 1] /= _WALL_LINE[:, 1].max()
_BODY_LINE = smooth_line(_BODY, 400)


def wall_half_width_mm(rows_mm: Points, thorax_width_mm: float) -> Points:
    """Return the thorax's inner half width at some rows; 0 above the apex."""
    half = np.interp(rows_mm, *_WALL_LINE.T) * thorax_width_mm / 2
    return np.where(rows_mm < _WALL[0, 0], 0.0, half)


@lru_cache(maxsize=64)
def thorax_wall(thorax_width_mm: float) -> Curve:
    """Return the inner wall of the left side, from the apex's inner end down; the right one is its mirror image."""
    wall = _WALL * (1, thorax_width_mm / 2)
    # the apex is rounded: the wall begins near the spine and arches outwards
    start = np.array([(-118.0, 0.105), (-128.0, 0.13), (-137.0, 0.19), (-142.5, 0.26)]) * (1, thorax_width_mm / 2)
    line = smooth_line(np.concatenate([start, wall[1:]]), 900)
    # the widest place is just the half width
    line[:, 1] *= thorax_width_mm / 2 / line[:, 1].max()
    return Curve.through(line)


def skin_depth_mm(rows_mm: Points, columns_mm: Points, p: ChestParameters, who: Identity) -> Points:
    """Return how deep some places lie under the skin; negative outside the body."""
    stout = who.of_patient("body").uniform(0.95, 1.06)
    half, slope = _border(_BODY_LINE, rows_mm)
    grown = stout * (0.55 + 0.45 * p.thorax_width_mm / 275.0)
    depth: Points = (half * grown - np.abs(columns_mm)) / np.sqrt(1 + np.square(slope * grown))
    return depth


def _border(line: Points, rows_mm: Points) -> tuple[Points, Points]:
    """Return column and slope of a line given as (row, column) at some rows."""
    return np.interp(rows_mm, *line.T), np.interp(rows_mm, line[:, 0], np.gradient(line[:, 1], line[:, 0]))


@lru_cache(maxsize=128)
def heart(seed: int, patient: int, width_mm: float, low_mm: float) -> Curve:
    """Return the outline of the heart's shadow, just `width_mm` wide."""
    wobble = Identity(seed, patient).of_patient("heart").normal(0, 0.018, _HEART.shape)
    control = _HEART + wobble
    # a large heart grows to the left and downwards
    rows = HEART_ROW_MM + low_mm + control[:, 0] * (40.0 + 0.62 * width_mm)
    outline = smooth_line(np.stack([rows, control[:, 1]], -1), 900, closed=True)
    left, right = outline[:, 1].min(), outline[:, 1].max()
    across = (outline[:, 1] - left) / (right - left)
    outline[:, 1] = (across - RIGHT_SHARE) * width_mm
    # on the heart's left the line runs downwards
    return Curve.through(outline[::-1])


def mediastinum_depth_mm(rows_mm: Points, columns_mm: Points, who: Identity) -> Points:
    """Return how deep some places lie in the mediastinum; negative outside.

    Its right border is the vena cava, its left one aortic knob and pulmonary trunk, down to the heart.
    """
    found = []
    for sign, line in zip((-1.0, 1.0), _mediastinum(who.seed, who.patient), strict=True):
        border, slope = _border(line, rows_mm)
        found.append((border - sign * columns_mm) / np.sqrt(1 + np.square(slope)))
    depth: Points = np.minimum(*found)
    return depth


@lru_cache(maxsize=32)
def _mediastinum(seed: int, patient: int) -> tuple[Points, Points]:
    """Return how far the right and the left border lie from the midline, as (row, distance)."""
    a = Identity(seed, patient).of_patient("mediastinum").uniform(-1, 1, 4)
    right = np.array([
        (-260.0, 34.0), (-150.0, 31.0), (-110.0, 27.0), (-75.0, 27.0 + 2 * a[0]), (-35.0, 30.0 + 3 * a[1]), (0.0, 33.0),
        (60.0, 30.0), (140.0, 24.0), (260.0, 24.0),
    ])  # fmt: skip
    left = np.array([
        (-260.0, 33.0), (-140.0, 27.0), (-108.0, 25.0), (-88.0, 32.0), (-70.0, 40.0 + 4 * a[2]), (-52.0, 35.0), (-36.0, 30.0),
        (-14.0, 38.0 + 3 * a[3]), (10.0, 43.0), (60.0, 40.0), (140.0, 30.0), (260.0, 28.0),
    ])  # fmt: skip
    return smooth_line(right, 500), smooth_line(left, 500)


def diaphragm_row_mm(columns_mm: Points, p: ChestParameters, who: Identity) -> tuple[Points, Points]:
    """Return the height of the right and of the left dome at some columns: rows below are belly."""
    lift, tilt = who.of_patient("diaphragm").uniform(-1, 1, 2)
    found = []
    for sign, top in ((-1.0, DOME_MM - 9.0), (1.0, DOME_MM + 4.0)):
        half = p.thorax_width_mm / 2
        top = top + p.inspiration_mm + 4.0 * lift
        across = sign * columns_mm / half
        middle = 0.46 + 0.03 * tilt
        down = np.where(
            across < middle,
            20.0 * np.abs((across - middle) / middle) ** 2.2,
            46.0 * np.abs((across - middle) / (1 - middle)) ** 2.6,
        )
        found.append(top + np.minimum(down, 140.0))
    return found[0], found[1]


def angle_row_mm(p: ChestParameters, who: Identity, side: str) -> float:
    """Return the row of a costophrenic angle: where the dome meets the wall."""
    sign = -1.0 if side == "right" else 1.0
    rows = np.linspace(40.0, 230.0, 400)
    columns = sign * wall_half_width_mm(rows, p.thorax_width_mm)
    dome = diaphragm_row_mm(columns, p, who)[0 if side == "right" else 1]
    below = np.flatnonzero(rows >= dome)
    return float(rows[below[0]]) if len(below) else float(rows[-1])


def meniscus_row_mm(
    rows_mm: Points, columns_mm: Points, p: ChestParameters, who: Identity
) -> Float[Points, "height width"]:
    """Return the surface of pleural fluid over some places: at the chest wall it is as high as the parameter says."""
    sign = -1.0 if p.effusion_side == "right" else 1.0
    half = np.maximum(wall_half_width_mm(rows_mm, p.thorax_width_mm), 1.0)
    across = np.clip(sign * columns_mm / half, 0, 1)
    # it falls to about half of that level in the middle of the lung
    climb = 1.0 - np.clip((1.0 - across) / 0.55, 0, 1) ** 0.8
    lowest = angle_row_mm(p, who, p.effusion_side)
    surface: Points = lowest - p.effusion_level_mm * (0.55 + 0.45 * climb**2)
    return surface
