"""The contents of stimuli: Gabor, face, scene. Each returns brightness -0.5 to 0.5 about the screen's grey, and coverage.

Coordinates are shares of the content's size from its middle, ``v`` down and ``u`` to the right.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from mechinterp.phantoms.random_streams import Identity
from mechinterp.phantoms.stimuli.parameters import FACE_WIDTH_OVER_HEIGHT, StimulusParameters
from mechinterp.phantoms.textures import Lattice, power_law, sampled

Image = NDArray[np.float64]
Drawn = tuple[Float[Image, "height width"], dict[str, Float[Image, "height width"]]]


def gabor(v: Image, u: Image, pixel: float, p: StimulusParameters) -> Drawn:
    """Return a grating under a raised cosine that ends at half the size from its middle.

    Parameters
    ----------
    v, u
        Every pixel's place over the size.
    pixel
        A pixel's side over the size.
    p
        Orientation, frequency, phase.

    """
    angle, radius = np.deg2rad(p.orientation_deg), np.hypot(v, u)
    across = u * np.sin(angle) + v * np.cos(angle)
    wave = np.cos(2 * np.pi * p.frequency_cpd * p.size_deg * across + np.deg2rad(p.phase_deg))
    disc = _inside(0.5 - radius, pixel)
    envelope = np.where(radius < 0.5, 0.5 + 0.5 * np.cos(2 * np.pi * np.minimum(radius, 0.5)), 0.0)
    return 0.5 * wave * envelope, {"gabor": disc}


def face(v: Image, u: Image, pixel: float, p: StimulusParameters, who: Identity) -> Drawn:
    """Return the face of one person, seen from the front: hair, brows, eyes, nose, mouth, ears, neck."""
    random = who.of_patient("person")
    tone, hair_tone = random.uniform(0.10, 0.30), random.uniform(-0.46, -0.1)
    hairline, hair_width, brow, lips = random.uniform((-0.36, 0.02, -0.012, 0.8), (-0.27, 0.07, 0.012, 1.25))
    long_hair, jaw = bool(random.random() < 0.45), random.uniform(-0.04, 0.06)
    light = random.uniform(-0.6, 0.6)
    half_width = FACE_WIDTH_OVER_HEIGHT / 2

    def oval(v0: float, u0: float, high: float, wide: float, soft: float = 0.0) -> Image:
        reach = np.hypot((v - v0) / high, (u - u0) / wide)
        return _inside((1 - reach) * min(high, wide), max(pixel, soft))

    def both(v0: float, u0: float, high: float, wide: float, soft: float = 0.0) -> Image:
        return np.maximum(oval(v0, -u0, high, wide, soft), oval(v0, u0, high, wide, soft))

    skin = oval(0, 0, 0.5, half_width)
    reach = np.hypot(v / 0.5, u / half_width)
    bulge = np.sqrt(np.clip(1 - np.square(reach), 0, 1))
    shade = 0.16 * (bulge - 0.7) + 0.10 * light * u / half_width - 0.05 * v
    picture = np.zeros_like(v)

    def lay(over: Image, value: Image | float) -> None:
        nonlocal picture
        picture = picture + over * (value - picture)

    neck = _inside(0.2 - np.abs(u) + 0.06 * np.clip(v - 0.5, 0, 1), pixel) * (v > 0) * _inside(0.72 - v, pixel)
    mane = oval(-0.05, 0, 0.53 + hair_width / 2, half_width + 0.03 + hair_width)
    if long_hair:
        curtain = (
            _inside(half_width + 0.05 + hair_width - np.abs(u), pixel) * (v > -0.05) * _inside(0.55 - v, 4 * pixel)
        )
        mane = np.maximum(mane, curtain)
    strands = 0.025 * np.sin(55 * u + 14 * np.sin(3 * v + 2 * u)) + 0.08 * (bulge - 0.5)
    back = mane if long_hair else mane * _inside(-0.02 - v, 0.06)
    lay(back, hair_tone + strands)
    lay(neck, tone - 0.12 - 0.12 * np.exp(-np.square((v - 0.47) / 0.09)))
    ears = both(-0.01, half_width + 0.005, 0.085, 0.045)
    lay(ears, tone - 0.08)
    lay(skin, tone + shade)
    # jaw and cheeks
    picture = (
        picture - 0.05 * skin * both(0.12 + jaw, 0.22, 0.12, 0.09, 0.12) - 0.07 * skin * oval(0.46, 0, 0.07, 0.2, 0.12)
    )
    # hair falls on the forehead
    fringe = skin * _inside(hairline + 0.45 * np.square(u) + 0.012 * np.sin(40 * u) - v, 0.02)
    lay(fringe, hair_tone + strands)
    # nose: bridge lit from the side, nostrils
    picture = picture + 0.09 * skin * oval(0.03, 0.012 * light, 0.14, 0.03, 0.05)
    picture = picture - 0.10 * skin * oval(0.05, -0.045 * np.sign(light or 1.0), 0.13, 0.02, 0.05)
    picture = (
        picture - 0.10 * skin * oval(0.185, 0, 0.025, 0.085, 0.04) - 0.26 * both(0.165, 0.036, 0.013, 0.022, 0.012)
    )
    eyes = _eyes(lay, both, p, tone, brow, hair_tone)
    # cheeks are raised by a smile
    corner = 0.275 - 0.045 * p.face_smile * np.square(u / 0.13)
    width = 0.125 + 0.018 * p.face_smile
    along = np.clip(1 - np.square(u / width), 0, 1)
    upper = _inside(0.024 * lips * np.sqrt(along) - np.abs(v - corner + 0.011), pixel) * (np.abs(u) < width)
    lower = _inside(0.032 * lips * np.sqrt(along) - np.abs(v - corner - 0.022), pixel) * (np.abs(u) < width)
    mouth = np.maximum(upper, lower) * skin
    lay(lower * skin, tone - 0.13)
    lay(upper * skin, tone - 0.21)
    seam = _inside(0.006 + 0.004 * along - np.abs(v - corner - 0.003), pixel) * (np.abs(u) < width) * skin
    lay(0.85 * seam, tone - 0.44)
    head = np.maximum.reduce([skin, back, neck, ears])
    return np.clip(picture, -0.5, 0.5), {
        "face": skin,
        "head": head,
        "eyes": eyes * skin,
        "mouth": np.maximum(mouth, seam),
    }


def _eyes(
    lay: Callable[[Image, float], None], both: Callable[..., Image], p: StimulusParameters, tone: float, brow: float,
    hair_tone: float,
) -> Image:  # fmt: skip
    """Lay eyes and brows over the face; return the eyes' coverage."""
    apart = p.face_eye_distance / 2
    lay(0.55 * both(-0.075, apart, 0.055, 0.095, 0.05), tone - 0.16)
    eyes: Image = both(-0.065, apart, 0.033, 0.07)
    lay(eyes, 0.36)
    lay(both(-0.068, apart, 0.031, 0.031) * eyes, -0.24)
    lay(both(-0.068, apart, 0.015, 0.015) * eyes, -0.48)
    lay(both(-0.078, apart + 0.008, 0.007, 0.008) * eyes, 0.48)
    lay(0.8 * both(-0.097, apart, 0.008, 0.075, 0.012), -0.40)
    lay(0.85 * both(-0.155 + brow, apart + 0.008, 0.017, 0.088, 0.02), min(hair_tone, -0.12) - 0.06)
    return eyes


def scene(v: Image, u: Image, pixel: float, p: StimulusParameters, who: Identity) -> Drawn:
    """Return a place: sky with clouds, hills, a road to the horizon, buildings with windows, trees."""
    window = _share(v, pixel) * _share(u, pixel)
    clouds, soil = _place(who.seed, who.patient)
    random = who.of_patient("place")
    sky_tone, ground_tone, vanish, bend = random.uniform((0.14, -0.26, -0.15, -0.3), (0.38, -0.02, 0.15, 0.3))
    horizon = 0.5 - p.scene_horizon
    sky = sky_tone - 0.22 * (v - horizon + 0.3) * 0.6 + 0.10 * sampled(clouds, 0.9 * v / (1.2 + v), 0.5 * u)
    picture = np.where(v < horizon, sky, 0.0)
    phase = random.uniform(0, 2 * np.pi, 3)
    hills = (
        horizon
        - 0.05
        - 0.035 * np.sin(5 * u + phase[0])
        - 0.02 * np.sin(11 * u + phase[1])
        - 0.008 * np.sin(27 * u + phase[2])
    )
    far = _inside(v - hills, pixel)
    picture = picture + far * (-0.06 + 0.05 * sampled(soil, 3 * v, 3 * u) - picture)
    ground = _inside(v - horizon, pixel)
    below = np.clip(v - horizon, 1e-3, None)
    # perspective: what is near is coarse
    depth = 0.12 / (below + 0.04)
    earth = ground_tone + 0.10 * sampled(soil, depth, (u - vanish) * depth * 1.6) - 0.10 * below
    picture = picture + ground * (earth - picture)
    middle = vanish + bend * below**2 * 1.2
    road = ground * _inside(0.015 + 0.52 * below - np.abs(u - middle), pixel)
    picture = picture + road * (0.10 - 0.12 * below - picture)
    dashes = road * _inside(0.012 * (0.2 + 3 * below) - np.abs(u - middle), pixel) * (np.sin(2.2 / (below + 0.05)) > 0)
    picture = picture + 0.9 * dashes * (0.38 - picture)
    built, planted = np.zeros_like(v), np.zeros_like(v)
    for i in range(p.scene_buildings):
        picture, drawn = _building(v, u, pixel, picture, horizon, i, who)
        built = np.maximum(built, drawn)
    for i in range(p.scene_trees):
        picture, drawn = _tree(v, u, pixel, picture, horizon, i, who, soil)
        planted = np.maximum(planted, drawn)
        built = built * (1 - drawn)
    found = {"scene": window, "ground": ground * window, "buildings": built * window, "trees": planted * window}
    return np.clip(picture, -0.5, 0.5) * window, found


def _building(
    v: Image, u: Image, pixel: float, picture: Image, horizon: float, i: int, who: Identity
) -> tuple[Image, Image]:
    random = who.of_patient("building", i)
    wide, high, shade, near = random.uniform((0.05, 0.14, -0.30, 0.0), (0.11, 0.40, 0.25, 0.05))
    side = 1.0 if random.random() < 0.5 else -1.0
    middle = side * random.uniform(0.16, 0.46)
    foot = horizon + near + 0.1 * max(abs(middle) - 0.2, 0)
    inside = _inside(wide - np.abs(u - middle), pixel) * _inside(v - (foot - high), pixel) * _inside(foot - v, pixel)
    # the side turned to the road is darker, windows are rows of panes
    front = shade + 0.07 * np.sign(u - middle) * side
    rows, columns = (v - foot + high) / 0.034, (u - middle + wide) / 0.030
    panes = (np.mod(rows, 1) > 0.38) & (np.mod(columns, 1) > 0.36) & (v < foot - 0.035)
    glass = np.where(np.sin(13.0 * np.floor(rows) + 7.0 * np.floor(columns) + 5.0 * i) > 0.55, 0.24, -0.22)
    wall = np.where(panes, front + glass, front)
    return picture + inside * (np.clip(wall, -0.45, 0.45) - picture), inside


def _tree(
    v: Image, u: Image, pixel: float, picture: Image, horizon: float, i: int, who: Identity, soil: Lattice
) -> tuple[Image, Image]:
    random = who.of_patient("tree", i)
    high, near, lean = random.uniform((0.12, 0.01, -0.3), (0.26, 0.14, 0.3))
    side = 1.0 if random.random() < 0.5 else -1.0
    middle, high = side * random.uniform(0.2, 0.47), high * (0.7 + 3 * near)
    foot = horizon + near
    stem = (
        _inside(0.07 * high - np.abs(u - middle), pixel)
        * _inside(v - (foot - 0.5 * high), pixel)
        * _inside(foot - v, pixel)
    )
    leaves = sampled(soil, 2.2 * v + 0.3 * i, 2.2 * u).astype(float)
    reach = np.hypot((v - foot + 0.68 * high) / (0.40 * high), (u - middle) / (0.30 * high))
    crown = _inside((1 + 0.13 * leaves - reach) * 0.3 * high, pixel)
    drawn = np.maximum(stem, crown)
    tone = np.where(
        crown > 0,
        -0.30 + 0.09 * leaves + 0.10 * lean * (u - middle) / high - 0.12 * (v - foot + 0.68 * high) / high,
        -0.36,
    )
    return picture + drawn * (np.clip(tone, -0.5, 0.5) - picture), drawn


@lru_cache(maxsize=16)
def _place(seed: int, patient: int) -> tuple[Lattice, Lattice]:
    who = Identity(seed, patient)
    clouds = power_law(who.of_patient("clouds"), 128, 3.0, from_cycles=2)
    return clouds, power_law(who.of_patient("soil"), 128, 1.8, from_cycles=3)


def _inside(depth: Image, pixel: float) -> Image:
    """Return the share of each pixel on the inner side, or a softer step where `pixel` is wider than one."""
    share: Image = np.clip(depth / pixel + 0.5, 0, 1)
    return share


def _share(x: Image, pixel: float) -> Image:
    """Return the share of each pixel within half the size of the middle, along one axis."""
    share: Image = np.clip(np.minimum(x + pixel / 2, 0.5) - np.maximum(x - pixel / 2, -0.5), 0, pixel) / pixel
    return share
