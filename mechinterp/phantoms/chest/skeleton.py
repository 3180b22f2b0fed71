"""Bones and vessels of the chest as tubes: ribs, clavicles, spine, shoulder, and the lungs' arteries and veins."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from mechinterp.phantoms.chest.anatomy import wall_half_width_mm
from mechinterp.phantoms.curves import smooth_line
from mechinterp.phantoms.random_streams import Identity

Points = NDArray[np.float64]

RIBS, RIB_GAP_MM, FIRST_RIB_MM = 10, 25.5, -148.0


@dataclass(frozen=True)
class Tubes:
    """Segments with half widths and weights, as :func:`mechinterp.phantoms.coverage.tubes` draws them."""

    starts_mm: Float[Points, "segment 2"]
    ends_mm: Float[Points, "segment 2"]
    radii_mm: Float[Points, " segment"]
    weights: Float[Points, "segment 1"]

    def scaled(self, share: float) -> Tubes:
        """Return the same tubes with their half widths multiplied."""
        return Tubes(self.starts_mm, self.ends_mm, self.radii_mm * share, self.weights)


def joined(paths: list[Points], radii: list[Points], weights: list[Points]) -> Tubes:
    """Return paths, (point, 2) each with a half width and a weight at every point, as one set of tubes."""
    return Tubes(
        np.concatenate([path[:-1] for path in paths]),
        np.concatenate([path[1:] for path in paths]),
        np.concatenate([(r[1:] + r[:-1]) / 2 for r in radii]),
        np.concatenate([(w[1:] + w[:-1]) / 2 for w in weights])[:, None],
    )


@lru_cache(maxsize=32)
def posterior_ribs(seed: int, patient: int, thorax_width_mm: float) -> Tubes:
    """Return the ribs' hind parts: from the spine out and down to the wall."""
    random = Identity(seed, patient).of_patient("ribs")
    paths, radii, weights = [], [], []
    for i in range(RIBS):
        jitter = random.uniform(-1, 1, 3)
        for sign in (-1.0, 1.0):
            row = FIRST_RIB_MM + i * RIB_GAP_MM + jitter[0]
            fall = 10.0 + 3.4 * i + 2 * jitter[1]
            half = float(wall_half_width_mm(np.array([max(row + 0.75 * fall + 4, -138.0)]), thorax_width_mm)[0])
            out = np.array([0.14, 0.34, 0.60, 0.84, 0.985, 1.0]) * half
            down = np.array([0.0, -7.0 + 0.25 * i, 0.10 * fall, 0.46 * fall, 1.15 * fall, 1.55 * fall])
            path = smooth_line(np.stack([row + down, sign * out], -1), 22)
            paths.append(path)
            radii.append(np.linspace(5.4, 4.4, 22) * (1 + 0.08 * jitter[2]))
            weights.append(np.interp(np.linspace(0, 1, 22), [0, 0.3, 1], [0.25, 1.0, 0.85]))
    return joined(paths, radii, weights)


@lru_cache(maxsize=32)
def anterior_ribs(seed: int, patient: int, thorax_width_mm: float) -> Tubes:
    """Return the ribs' front parts: fainter, from the wall down and inwards until they turn to cartilage."""
    random = Identity(seed, patient).of_patient("front ribs")
    paths, radii, weights = [], [], []
    for i in range(7):
        jitter = random.uniform(-1, 1, 2)
        for sign in (-1.0, 1.0):
            row = FIRST_RIB_MM + 14.0 + i * (RIB_GAP_MM + 1.5) + 2 * jitter[0]
            half = float(wall_half_width_mm(np.array([max(row, -136.0)]), thorax_width_mm)[0])
            out = np.array([0.99, 0.93, 0.72, 0.50, 0.36]) * half
            down = np.array([0.0, 13.0, 33.0 + i, 46.0 + 2.0 * i, 52.0 + 2.5 * i])
            paths.append(smooth_line(np.stack([row + down, sign * out], -1), 16))
            radii.append(np.linspace(4.8, 6.4, 16))
            weights.append(np.linspace(0.75, 0.25, 16))
    return joined(paths, radii, weights)


@lru_cache(maxsize=32)
def clavicles(seed: int, patient: int, thorax_width_mm: float) -> Tubes:
    """Return both clavicles, from beside the spine to the shoulders."""
    lift, bend = Identity(seed, patient).of_patient("clavicles").uniform(-1, 1, 2)
    paths, radii = [], []
    for sign in (-1.0, 1.0):
        span = thorax_width_mm / 275.0
        columns = np.array([19.0, 45.0, 80.0, 118.0, 158.0, 178.0]) * span
        rows = np.array([-120.0, -131.0, -139.0, -146.0 + 2 * bend, -157.0, -160.0]) + 4 * lift
        paths.append(smooth_line(np.stack([rows, sign * columns], -1), 24))
        radii.append(np.interp(np.linspace(0, 1, 24), [0, 0.12, 0.5, 0.85, 1], [8.0, 6.0, 5.0, 6.0, 7.5]))
    return joined(paths, radii, [np.ones(24)] * 2)


@lru_cache(maxsize=32)
def shoulders(seed: int, patient: int, thorax_width_mm: float) -> tuple[Tubes, Tubes]:
    """Return the shoulder blades (faint plates and their edges), and the heads of the humerus."""
    lean = float(Identity(seed, patient).of_patient("scapulae").uniform(-6, 6))
    span = thorax_width_mm / 275.0
    plates, widths, heads = [], [], []
    for sign in (-1.0, 1.0):
        columns = (np.array([160.0, 152.0, 140.0, 132.0, 138.0]) + lean) * span
        plates.append(smooth_line(np.stack([np.array([-140.0, -110.0, -75.0, -40.0, -8.0]), sign * columns], -1), 14))
        widths.append(np.interp(np.linspace(0, 1, 14), [0, 0.4, 1], [16.0, 18.0, 5.0]))
        heads.append(
            np.array([(-138.0, sign * 180.0 * span), (-120.0, sign * 186.0 * span), (-92.0, sign * 194.0 * span)])
        )
    return joined(plates, widths, [np.ones(14)] * 2), joined(
        heads, [np.array([20.0, 17.0, 12.0])] * 2, [np.ones(3)] * 2
    )


@lru_cache(maxsize=32)
def lung_vessels(seed: int, patient: int, thorax_width_mm: float) -> Tubes:
    """Return the vessels that branch from the hila into the lungs, four generations that taper."""
    random = Identity(seed, patient).of_patient("lung vessels")
    span = thorax_width_mm / 275.0
    fan = np.concatenate([np.linspace(-80, 74, 8), np.linspace(-64, 86, 6)])
    sign = np.repeat((-1.0, 1.0), len(fan))
    n = len(sign)
    hila = np.where(sign[:, None] < 0, (2.0, -38.0 * span), (-8.0, 38.0 * span))
    start = hila + random.uniform(-1, 1, (n, 2)) * (17.0, 4.0)
    angle = np.deg2rad(np.tile(fan, 2) + random.uniform(-9, 9, n))
    length, radius = random.uniform(40, 62, n) * span, random.uniform(1.7, 2.7, n)
    points = 8
    t = np.linspace(0, 1, points)
    paths, radii = [], []
    for generation in range(4):
        wind = random.normal(0, 0.16, (len(angle), 2))
        heading = angle[:, None] + wind[:, :1] * t + wind[:, 1:] * np.sin(2 * np.pi * t)
        # angles run from sideways, away from the midline, to down
        step = np.stack([np.sin(heading), sign[:, None] * np.cos(heading)], -1) * (length / (points - 1))[:, None, None]
        path = start[:, None] + np.concatenate([np.zeros_like(step[:, :1]), np.cumsum(step[:, :-1], axis=1)], axis=1)
        thickness = radius[:, None] * (1 - 0.4 * t)
        paths.append(path)
        radii.append(thickness)
        if generation == 3:
            break
        at = np.array([2, 4, 7])
        m = len(angle)
        turn = (
            np.array([1.0, -1.0, 1.0])
            * random.uniform(0.25, 0.7, (m, 3))
            * np.where(random.random((m, 1)) < 0.5, 1, -1)
        )
        angle = (heading[:, at] + turn).ravel()
        start = path[:, at].reshape(-1, 2)
        length = (length[:, None] * random.uniform(0.55, 0.78, (m, 3))).ravel()
        radius = (thickness[:, at] * (0.68, 0.68, 0.9)).ravel()
        sign = np.repeat(sign, 3)
    flat = [line for generation in paths for line in generation]
    thick = [r for generation in radii for r in generation]
    return joined(flat, thick, [np.clip((r / 2.6) ** 0.7, 0.1, 1.0) for r in thick])


@lru_cache(maxsize=8)
def pacemaker_leads(thorax_width_mm: float) -> Tubes:
    """Return two leads: from the generator under the left clavicle through the vena cava into atrium and ventricle."""
    span = thorax_width_mm / 275.0
    shared = [
        (-88.0, 96.0),
        (-112.0, 88.0),
        (-126.0, 66.0),
        (-124.0, 34.0),
        (-108.0, 2.0),
        (-84.0, -20.0),
        (-40.0, -28.0),
    ]
    ventricle = smooth_line(
        np.array([*shared, (20.0, -34.0), (62.0, -22.0), (82.0, 12.0), (86.0, 46.0)]) * (1, span), 70
    )
    atrium = smooth_line(
        np.array([*shared, (8.0, -38.0), (34.0, -36.0), (40.0, -20.0), (28.0, -10.0)]) * (1, span) + (2.0, -2.0), 60
    )
    tips = [ventricle[-3:], atrium[-3:]]
    paths = [ventricle, atrium, *tips]
    return joined(
        paths,
        [*(np.full(len(x), 0.9) for x in paths[:2]), *(np.full(3, 1.7) for _ in tips)],
        [np.ones(len(x)) for x in paths],
    )
