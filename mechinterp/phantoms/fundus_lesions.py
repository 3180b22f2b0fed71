"""Where the lesions of diabetic retinopathy lie and what they are shaped like.

Every lesion is drawn from a stream of its own, keyed by its number, so that one more lesion does not move the others;
sizes are relative, since the area of all together is a parameter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mechinterp.errors import ConfigError
from mechinterp.phantoms.coverage import Blobs

if TYPE_CHECKING:
    from mechinterp.phantoms.fundus_parameters import FundusParameters
    from mechinterp.phantoms.random_streams import Identity

# the disc and its surroundings carry no lesions, wherever between its bounds a disc lies
DISC_ZONE_MM, DISC_ZONE_RADIUS_MM = np.array([-0.35, 4.6]), 1.3
VIEW_CENTRE_MM, LESION_ZONE_RADIUS_MM = np.array([0.0, 0.75]), 4.7
CANDIDATES = 10

Points = NDArray[np.float64]


def microaneurysms(p: FundusParameters, who: Identity) -> Blobs:
    """Return tiny round spots, scattered over the posterior pole."""
    return _scatter(
        who, "microaneurysms", _count(p, "microaneurysm"), middle=np.zeros(2), spread_mm=2.4, ring_mm=0.0,
        size_spread=0.15, wave=0.0, elongated=0.0,
    )  # fmt: skip


def haemorrhages(p: FundusParameters, who: Identity) -> Blobs:
    """Return blots, and flames along the nerve fibres, loosely around their middle."""
    middle = polar_mm(p.haemorrhage_eccentricity_mm, p.haemorrhage_angle_deg)
    return _scatter(
        who, "haemorrhages", _count(p, "haemorrhage"), middle=middle, spread_mm=1.25, ring_mm=0.0,
        size_spread=0.4, wave=0.10, elongated=0.35,
    )  # fmt: skip


def exudates(p: FundusParameters, who: Identity) -> Blobs:
    """Return bright clumps, often in a ring around a leaking spot."""
    middle = polar_mm(p.exudate_eccentricity_mm, p.exudate_angle_deg)
    return _scatter(
        who, "exudates", _count(p, "exudate"), middle=middle, spread_mm=0.28, ring_mm=0.75,
        size_spread=0.45, wave=0.14, elongated=0.0,
    )  # fmt: skip


def polar_mm(eccentricity_mm: float, angle_deg: float) -> Points:
    """Return (row, column) of a place given by distance from the fovea and direction from temporal to superior."""
    a = np.deg2rad(angle_deg)
    return np.array([-np.sin(a), -np.cos(a)]) * eccentricity_mm


def _count(p: FundusParameters, lesion: str) -> int:
    count, area = int(getattr(p, f"{lesion}_count")), float(getattr(p, f"{lesion}_area_mm2"))
    if area > 0 and count == 0:
        raise ConfigError(f"{lesion}_area_mm2 is {area:g} but {lesion}_count is 0: give both")
    return count if area > 0 else 0


def _scatter(
    who: Identity, structure: str, count: int, *, middle: Points, spread_mm: float, ring_mm: float,
    size_spread: float, wave: float, elongated: float,
) -> Blobs:  # fmt: skip
    """Draw lesions one by one, each at the candidate that is farthest from those before (Mitchell's best candidate)."""
    centres, sizes, waves = np.zeros((count, 2)), np.zeros(count), np.zeros((count, 3))
    phases, elongations, directions = np.zeros((count, 3)), np.ones(count), np.zeros(count)
    for i in range(count):
        random = who.of_image(structure, i)
        angle = random.uniform(0, 2 * np.pi, CANDIDATES)
        ring = ring_mm * np.stack([np.sin(angle), np.cos(angle)], -1)
        candidates = middle + ring + random.normal(0, spread_mm, (CANDIDATES, 2))
        allowed = (np.linalg.norm(candidates - DISC_ZONE_MM, axis=1) > DISC_ZONE_RADIUS_MM) & (
            np.linalg.norm(candidates - VIEW_CENTRE_MM, axis=1) < LESION_ZONE_RADIUS_MM
        )
        apart = np.linalg.norm(candidates[:, None] - centres[None, :i], axis=-1).min(1) if i else np.ones(CANDIDATES)
        best = int(np.argmax(np.where(allowed, np.minimum(apart, 0.9) + 1e-3 * apart, apart - 1e3)))
        centres[i] = candidates[best] if allowed[best] else _pulled_in(candidates[best])
        sizes[i] = np.exp(size_spread * random.standard_normal())
        waves[i] = wave * random.uniform(0.3, 1.0, 3) * np.array([1.0, 0.8, 0.5])
        phases[i] = random.uniform(0, 2 * np.pi, 3)
        if random.random() < elongated:
            elongations[i] = random.uniform(1.8, 3.0)
        # nerve fibres run towards the disc
        to_disc = DISC_ZONE_MM - centres[i]
        directions[i] = np.arctan2(to_disc[0], to_disc[1]) + random.normal(0, 0.25)
    return Blobs(centres, sizes, waves, phases, elongations, directions)


def _pulled_in(point: Points) -> Points:
    """Bring a point into the zone of lesions: into the view first, then out of the disc's surroundings."""
    from_view = point - VIEW_CENTRE_MM
    distance = float(np.linalg.norm(from_view))
    point = VIEW_CENTRE_MM + from_view * min(1.0, LESION_ZONE_RADIUS_MM / max(distance, 1e-9))
    from_disc = point - DISC_ZONE_MM
    distance = float(np.linalg.norm(from_disc))
    if distance < DISC_ZONE_RADIUS_MM:
        point = DISC_ZONE_MM + np.array([from_disc[0], -abs(from_disc[1])]) * DISC_ZONE_RADIUS_MM / max(distance, 1e-9)
    return point
