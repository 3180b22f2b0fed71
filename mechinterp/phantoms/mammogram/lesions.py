"""Where masses and calcifications lie and what they are shaped like; each is drawn from a stream of its own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from mechinterp.phantoms.coverage import Blobs
from mechinterp.phantoms.mammogram.outline import Outline
from mechinterp.phantoms.mammogram.parameters import MammogramParameters
from mechinterp.phantoms.random_streams import Identity

Points = NDArray[np.float64]

UNDER_SKIN_MM = 10.0
SPICULES = 20
CANDIDATES = 6


@dataclass(frozen=True)
class Spicules:
    """Straight thin strands that run out of a mass: segments that taper."""

    starts_mm: Float[Points, "segment 2"]
    ends_mm: Float[Points, "segment 2"]
    radii_mm: Float[Points, " segment"]
    weights: Float[Points, "segment 1"]


def place_mm(outline: Outline, from_nipple_mm: float, up_mm: float) -> tuple[float, float]:
    """Return a place in the breast; one nearer to the skin than 10 mm, or outside, is pulled in towards the middle."""
    row, column = outline.nipple_mm
    wanted = np.array([row - up_mm, column - from_nipple_mm])
    middle = np.array([row, 0.45 * column])
    steps = np.linspace(0, 1, 33)[:, None]
    line = wanted + steps * (middle - wanted)
    deep = (outline.skin.depth_of(line) >= UNDER_SKIN_MM) & (line[:, 1] >= UNDER_SKIN_MM)
    found = line[int(np.argmax(deep))] if deep.any() else middle
    return float(found[0]), float(found[1])


def mass(p: MammogramParameters, who: Identity, outline: Outline) -> Blobs:
    """Return the body of the mass: oval, its outline lobulated by the mass's own draw."""
    random = who.of_image("mass")
    return Blobs(
        centres_mm=np.array([place_mm(outline, p.mass_from_nipple_mm, p.mass_up_mm)]),
        sizes=np.ones(1),
        waves=random.uniform(0.03, 0.12, (1, 3)) * (1.0, 0.8, 0.6),
        phases=random.uniform(0, 2 * np.pi, (1, 3)),
        elongations=random.uniform(1.0, 1.35, 1),
        directions=random.uniform(0, np.pi, 1),
    )


def spicules(p: MammogramParameters, who: Identity, outline: Outline) -> Spicules:
    """Return the strands of a stellate mass; their length is the spiculation times the diameter, longest ones."""
    random = who.of_image("spicules")
    angle = np.linspace(0, 2 * np.pi, SPICULES, endpoint=False) + random.uniform(-0.2, 0.2, SPICULES)
    share, bend, width = random.uniform((0.2, -0.45, 0.45), (1.0, 0.45, 1.1), (SPICULES, 3)).T
    # few strands are long
    share = 0.15 + 0.85 * share**1.8
    centre = np.array(place_mm(outline, p.mass_from_nipple_mm, p.mass_up_mm))
    radius = p.mass_diameter_mm / 2
    reach = radius * 0.75 + share * p.mass_spiculation * p.mass_diameter_mm
    starts: list[Points] = []
    ends: list[Points] = []
    radii, weights = [], []
    for near, far in ((0.0, 0.4), (0.4, 0.75), (0.75, 1.0)):
        for at, found in ((near, starts), (far, ends)):
            direction = angle + bend * at**2
            r = 0.6 * radius + at * (reach - 0.6 * radius)
            found.append(centre + r[:, None] * np.stack([np.sin(direction), np.cos(direction)], -1))
        radii.append(width * (0.2 + 0.06 * p.mass_diameter_mm) * (1 - 0.8 * far))
        weights.append(np.full((SPICULES, 1), 0.85 - 0.7 * near))
    return Spicules(np.concatenate(starts), np.concatenate(ends), np.concatenate(radii), np.concatenate(weights))


def calcifications(p: MammogramParameters, who: Identity, outline: Outline) -> Blobs:
    """Return the calcifications of a cluster, drawn one by one so that one more does not move the others."""
    count = p.calcification_count
    middle = np.array(place_mm(outline, p.calcification_from_nipple_mm, p.calcification_up_mm))
    # places are drawn in a disc of radius 1 and spread afterwards: another extent moves none of them around
    places, sizes = np.zeros((count, 2)), np.zeros(count)
    waves, phases = np.zeros((count, 3)), np.zeros((count, 3))
    elongations, directions = np.ones(count), np.zeros(count)
    for i in range(count):
        random = who.of_image("calcifications", i)
        angle, radius = random.uniform(0, 2 * np.pi, CANDIDATES), np.sqrt(random.uniform(0, 1, CANDIDATES))
        candidates = radius[:, None] * np.stack([0.8 * np.sin(angle), np.cos(angle)], -1)
        apart = np.linalg.norm(candidates[:, None] - places[None, :i], axis=-1).min(1) if i else np.zeros(CANDIDATES)
        places[i] = candidates[int(np.argmax(apart))]
        sizes[i] = np.exp(0.3 * random.standard_normal())
        waves[i] = 0.16 * random.uniform(0.2, 1.0, 3)
        phases[i] = random.uniform(0, 2 * np.pi, 3)
        elongations[i], directions[i] = random.uniform(1.0, 1.9), random.uniform(0, np.pi)
    centres = middle + p.calcification_extent_mm / 2 * places
    return Blobs(centres, sizes, waves, phases, elongations, directions)
