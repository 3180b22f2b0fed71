"""The branching tree of retinal vessels: arcades that arch around the macula, arteries beside veins, tapering.

Coordinates are millimetres, (row, column), of a right eye with the fovea at the origin: columns grow towards the nose,
where the disc lies, rows grow downwards. A vessel is a Bézier curve wound by smooth noise. Trunks are laid by anatomy,
then each generation of side branches grows at once from all vessels of the one before; at a branching the radii follow
Murray's law [1]_, ``parent³ = child³ + rest³``. How many numbers are drawn depends on nothing, so another position of
the disc or another tortuosity bends the same tree.

References
----------
.. [1] Murray. The physiological principle of minimum work. PNAS 1926.

"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray

Points = NDArray[np.float64]

SMALLEST_RADIUS = 0.08
FREE_OF_VESSELS_MM, NEAREST_TO_FOVEA_MM = 0.72, 0.5
WAVELENGTHS_MM = np.array([3.5, 1.9, 1.1, 0.7])


@dataclass(frozen=True)
class VesselTree:
    """Segments of all vessels of one eye.

    Parameters
    ----------
    starts_mm, ends_mm
        The axis of every segment.
    radii
        Half widths relative to the large veins' width at the disc.
    is_artery
        Artery or vein.

    """

    starts_mm: Float[Points, "segment 2"]
    ends_mm: Float[Points, "segment 2"]
    radii: Float[Points, " segment"]
    is_artery: Bool[NDArray[np.bool_], " segment"]


@dataclass
class _Generation:
    """Vessels with equally many points each."""

    paths: Float[Points, "vessel point 2"]
    radii: Float[Points, "vessel point"]
    artery: Bool[NDArray[np.bool_], " vessel"]
    there: Bool[NDArray[np.bool_], " vessel"]


def grow_tree(random: np.random.Generator, disc_mm: tuple[float, float], tortuosity: float) -> VesselTree:
    """Grow the vessels of one eye.

    Parameters
    ----------
    random
        Stream of the patient's vessels.
    disc_mm
        Centre of the disc, (row, column).
    tortuosity
        Winding, 0 to 1.

    """
    disc = np.asarray(disc_mm, dtype=float)
    sides = [(up, artery) for up in (-1.0, 1.0) for artery in (True, False)]
    artery = np.array([a for _, a in sides])

    def vessels(control: list[Points], radius: list[float], artery: NDArray[np.bool_], points: int) -> _Generation:
        paths = _curves(random, np.stack(control), points, tortuosity)
        radii = np.repeat(np.array(radius)[:, None], points, axis=1) * np.linspace(1, 0.8, points)
        return _Generation(paths, radii, artery, np.ones(len(paths), dtype=bool))

    arcades = vessels(*_temporal_arcades(random, disc, sides), artery, 110)
    outer = vessels(*_outer_branches(random, arcades, sides), artery, 44)
    nasal = vessels(*_nasal_trunks(random, disc, sides), np.tile(artery, 2), 36)
    macular = vessels(*_macular_vessels(random, disc, sides), artery, 32)
    grown = [arcades, outer, nasal, macular]
    for trunks, slots, first in ((arcades, 13, 0.07), (outer, 5, 0.12), (nasal, 4, 0.25), (macular, 3, 0.35)):
        second = _side_branches(random, trunks, slots, first, disc, tortuosity, points=24, reach=1.0)
        third = _side_branches(random, second, 3, 0.25, disc, tortuosity, points=11, reach=0.75)
        grown += [second, third]
    starts, ends, radii, is_artery = [], [], [], []
    for g in grown:
        n = g.paths.shape[1] - 1
        starts.append(g.paths[g.there, :-1].reshape(-1, 2))
        ends.append(g.paths[g.there, 1:].reshape(-1, 2))
        radii.append(((g.radii[:, :-1] + g.radii[:, 1:]) / 2)[g.there].ravel())
        is_artery.append(np.repeat(g.artery[g.there], n))
    return VesselTree(np.concatenate(starts), np.concatenate(ends), np.concatenate(radii), np.concatenate(is_artery))


def _curves(random: np.random.Generator, control: Points, points: int, tortuosity: float) -> Points:
    """Evaluate Bézier curves (vessel, control point, 2), wound sideways by a few sines that start at zero."""
    n = len(control)
    phases, amplitudes = random.uniform(0, 2 * np.pi, (n, 4)), random.normal(0, 1, (n, 4))
    length = np.linalg.norm(np.diff(control, axis=1), axis=-1).sum(1)
    t = np.linspace(0, 1, points)[:, None]
    levels = [np.repeat(c[:, None], points, axis=1) for c in np.moveaxis(control, 1, 0)]
    while len(levels) > 1:  # de Casteljau
        levels = [(1 - t) * a + t * b for a, b in pairwise(levels)]
    path = levels[0]
    tangent = np.gradient(path, axis=1)
    normal = tangent[..., ::-1] * (1, -1) / np.maximum(np.linalg.norm(tangent, axis=-1, keepdims=True), 1e-9)
    s = t[:, 0] * length[:, None]
    waves = np.sin(2 * np.pi * s[..., None] / WAVELENGTHS_MM + phases[:, None])
    wound = ((0.012 + 0.05 * tortuosity) * np.minimum(s / 0.6, 1))[..., None] * waves * WAVELENGTHS_MM
    bent: Points = path + normal * np.einsum("vpw,vw->vp", wound, amplitudes)[..., None]
    return bent


def _side_branches(
    random: np.random.Generator, parents: _Generation, slots: int, first: float, disc: Points, tortuosity: float,
    *, points: int, reach: float,
) -> _Generation:  # fmt: skip
    """Let branches leave all parents, right and left in turns; thins the parents by what their branches take."""
    n, along = parents.radii.shape
    shape = (n, slots)
    at = first + (0.97 - first) * (np.arange(slots) + random.uniform(0, 1, shape)) / slots
    side = np.where(random.random((n, 1)) < 0.5, 1.0, -1.0) * (-1.0) ** np.arange(slots)
    share = random.uniform(0.08, 0.28, shape)
    turn = side * np.deg2rad(random.uniform(35, 65, shape))
    length, bend = random.uniform(1.0, 2.4, shape), random.uniform(0.15, 0.7, shape)

    i = np.minimum((at * (along - 1)).astype(int), along - 2)
    taken = np.ones((n, along))
    for slot in range(slots):
        taken *= np.where(np.arange(along) > i[:, slot, None], np.cbrt(1 - share[:, slot, None]), 1.0)
    parents.radii *= taken
    rows = np.arange(n)[:, None]
    start, heading = parents.paths[rows, i], parents.paths[rows, i + 1] - parents.paths[rows, i]
    heading /= np.maximum(np.linalg.norm(heading, axis=-1, keepdims=True), 1e-9)
    radius = parents.radii[rows, i] * np.cbrt(share)

    c, s = np.cos(turn)[..., None], np.sin(turn)[..., None]
    direction = c * heading + s * np.stack([-heading[..., 1], heading[..., 0]], -1)
    length = reach * length * (0.75 + 3.2 * radius)
    middle = start + 0.5 * length[..., None] * direction
    end = start + length[..., None] * ((1 - bend[..., None]) * direction + bend[..., None] * heading)
    # the fovea has no vessels: what would end there stops before
    distance = np.linalg.norm(end, axis=-1, keepdims=True)
    end = np.where(distance < FREE_OF_VESSELS_MM, end * FREE_OF_VESSELS_MM / np.maximum(distance, 1e-6), end)
    crosses = np.linalg.norm(middle, axis=-1, keepdims=True) < FREE_OF_VESSELS_MM
    middle = np.where(crosses, (start + end) / 2, middle)
    off_disc = np.linalg.norm(end - disc, axis=-1) > 1.0
    there = parents.there[:, None] & off_disc & (radius > SMALLEST_RADIUS)
    paths = _curves(random, np.stack([start, middle, end], 2).reshape(-1, 3, 2), points, tortuosity)
    radii = radius.reshape(-1, 1) * np.linspace(1, 0.6, points)
    clear = np.linalg.norm(paths, axis=-1).min(1) > NEAREST_TO_FOVEA_MM
    return _Generation(paths, radii, np.repeat(parents.artery, slots), there.ravel() & clear)


def _offset(down_mm: float, nasal_mm: float) -> Points:
    return np.array([down_mm, nasal_mm])


def _temporal_arcades(
    random: np.random.Generator, disc: Points, sides: list[tuple[float, bool]]
) -> tuple[list[Points], list[float]]:
    """Return control points and radii of the four arcades that run around the macula."""
    control, radius = [], []
    for up, artery in sides:
        height = random.uniform(2.5, 3.2) if artery else random.uniform(3.0, 3.8)
        far = random.uniform(1.9, 3.6)
        radius.append(random.uniform(0.38, 0.44) if artery else random.uniform(0.5, 0.56))
        start = disc + _offset(up * random.uniform(0.02, 0.2), 0.04 + random.normal(0, 0.05))
        rise = disc + _offset(up * random.uniform(1.5, 2.3), random.uniform(-0.2, 0.35))
        over = np.array([up * height * 1.18, random.uniform(1.6, 2.8)])
        beyond = np.array([up * height * 1.05, random.uniform(-2.6, -1.2)])
        control.append(np.stack([start, rise, over, beyond, np.array([up * far, random.uniform(-6.6, -5.4)])]))
    return control, radius


def _outer_branches(
    random: np.random.Generator, arcades: _Generation, sides: list[tuple[float, bool]]
) -> tuple[list[Points], list[float]]:
    """Return the first large branch of each arcade: it leaves outwards soon after the disc."""
    control, radius = [], []
    for path, radii, (up, _) in zip(arcades.paths, arcades.radii, sides, strict=True):
        root = path[int(len(path) * random.uniform(0.16, 0.3))]
        bow = root + np.array([up * random.uniform(1.0, 1.5), random.uniform(0.0, 0.4)])
        out = root + np.array([up * random.uniform(2.6, 3.6), random.uniform(-3.4, -1.2)])
        control.append(np.stack([root, bow, out]))
        radius.append(0.72 * float(radii[0]))
    return control, radius


def _nasal_trunks(
    random: np.random.Generator, disc: Points, sides: list[tuple[float, bool]]
) -> tuple[list[Points], list[float]]:
    """Return eight vessels that spread from the disc to the nasal side."""
    control, radius = [], []
    for nearest, farthest in ((0.9, 1.6), (2.2, 3.4)):
        for up, artery in sides:
            spread = random.uniform(nearest, farthest)
            start = disc + _offset(up * random.uniform(0.02, 0.2), 0.16 + random.normal(0, 0.05))
            bow = disc + _offset(up * spread * 0.75, random.uniform(0.35, 0.8))
            control.append(np.stack([start, bow, disc + _offset(up * spread * 1.7, random.uniform(2.2, 3.4))]))
            radius.append(random.uniform(0.24, 0.3) if artery else random.uniform(0.3, 0.36))
    return control, radius


def _macular_vessels(
    random: np.random.Generator, disc: Points, sides: list[tuple[float, bool]]
) -> tuple[list[Points], list[float]]:
    """Return thin vessels that run straight from the disc towards the macula."""
    control, radius = [], []
    for up, _ in sides:
        start = disc + _offset(up * random.uniform(0.1, 0.4), -0.3)
        bow = disc + _offset(up * random.uniform(0.5, 1.1), random.uniform(-1.7, -1.1))
        control.append(np.stack([start, bow, np.array([up * random.uniform(0.55, 1.3), random.uniform(0.8, 1.7)])]))
        radius.append(random.uniform(0.15, 0.22))
    return control, radius
