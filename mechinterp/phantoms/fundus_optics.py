"""Light and colour of a fundus: what the retina, the disc, the vessels and the camera make of white light."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import correlate1d, gaussian_filter, map_coordinates

from mechinterp.phantoms.coverage import tubes
from mechinterp.phantoms.fundus_parameters import FundusParameters
from mechinterp.phantoms.random_streams import Identity
from mechinterp.phantoms.vessels import VesselTree, grow_tree
from mechinterp.phantoms.view import View

Image = NDArray[np.float64]

# reflectance and absorption in red, green and blue
RETINA = np.array([0.86, 0.43, 0.235])
MELANIN = np.array([0.30, 0.85, 0.95])
MACULA = np.array([0.16, 0.42, 0.50])
FOVEA = np.array([0.10, 0.34, 0.40])
DISC = np.array([0.98, 0.72, 0.44])
CUP = np.array([1.0, 0.90, 0.70])
ARTERY = np.array([0.15, 0.56, 0.54])
VEIN = np.array([0.34, 0.76, 0.66])
CHOROID = np.array([0.55, 1.0, 1.0])

TEXTURE_HALF_MM = 10.0
REFLEX_FROM_PX = 1.5


def retina(view: View, p: FundusParameters, who: Identity, disc_mm: tuple[float, float]) -> Image:
    """Return the bare retina's light, height × width × 3: pigment, macula, choroid, nerve fibres."""
    grid = view.grid_mm
    coarse, stripes, fine = _sampled(_texture(who.seed, who.patient), grid)
    light = RETINA * np.exp(-MELANIN * (p.pigmentation * (1 + 0.18 * coarse))[..., None])
    light *= np.exp((0.06 * coarse + (0.075 - 0.035 * p.pigmentation) * stripes + 0.03 * fine)[..., None] * CHOROID)
    from_fovea = np.square(grid).sum(-1)
    light *= np.exp(-MACULA * np.exp(-from_fovea / (2 * 0.95**2))[..., None])
    light *= np.exp(-FOVEA * np.exp(-from_fovea / (2 * 0.28**2))[..., None])
    light *= 1 + 0.05 * np.exp(-from_fovea / (2 * 0.07**2))[..., None]
    light *= 1 + _nerve_fibres(grid, who, disc_mm)[..., None] * np.array([0.5, 1.0, 1.0])
    return light


def with_disc(
    view: View, light: Image, disc: Image, cup: Image, p: FundusParameters, disc_mm: tuple[float, float]
) -> Image:
    """Lay the disc, pale on its temporal side, and its cup over the retina."""
    across = (view.grid_mm[..., 1] - disc_mm[1]) / np.sqrt(p.disc_area_mm2 / np.pi)
    rim = DISC * (1 - np.array([0.02, 0.16, 0.22]) * np.clip(0.4 + 0.6 * across, 0, 1)[..., None])
    light = light + disc[..., None] * (rim - light)
    mixed: Image = light + 0.85 * cup[..., None] * (CUP - light)
    return mixed


def with_vessels(
    view: View, light: Image, field: Image, p: FundusParameters, who: Identity, disc_mm: tuple[float, float]
) -> tuple[Image, Image, Image]:
    """Lay arteries and veins over the light; also return their coverage.

    Returns
    -------
    light, arteries, veins

    """
    tree = _tree(who.seed, who.patient, disc_mm, p.vessel_tortuosity)
    half_width = tree.radii * p.vessel_width_mm
    # thin vessels hold less blood, so they absorb less
    depth = np.clip((tree.radii / 0.45) ** 0.55, 0.3, 1.0)[:, None]
    coverage = []
    for is_artery, colour in ((True, ARTERY), (False, VEIN)):
        mine = tree.is_artery == is_artery
        axis = tree.starts_mm[mine], tree.ends_mm[mine]
        covered, (absorbed,) = tubes(view, *axis, half_width[mine], depth[mine])
        light = light * (1 - (absorbed * field)[..., None] * colour)
        wide = half_width[mine] > REFLEX_FROM_PX * view.spacing_mm
        if wide.any():
            reflex, _ = tubes(view, axis[0][wide], axis[1][wide], 0.3 * half_width[mine][wide], depth[mine][wide])
            light = light * (1 + (0.28 if is_artery else 0.12) * (reflex * field)[..., None])
        coverage.append(covered * field)
    return light, coverage[0], coverage[1]


def illumination(view: View, p: FundusParameters, who: Identity, field_radius_mm: float) -> Image:
    """Return the flash's light on the retina: exposure, fall-off to the edge, and a tilt of this image's own."""
    random = who.of_image("illumination")
    tilt, angle = random.uniform(0.02, 0.12), random.uniform(0, 2 * np.pi)
    rows = (np.arange(view.height) + 0.5 - view.height / 2)[:, None] * view.spacing_mm / field_radius_mm
    columns = (np.arange(view.width) + 0.5 - view.width / 2)[None, :] * view.spacing_mm / field_radius_mm
    radius = np.hypot(rows, columns)
    falloff = 1 - p.vignetting * np.minimum(radius, 1.1) ** 2.5
    light: Image = p.illumination * falloff * (1 + tilt * (np.cos(angle) * rows + np.sin(angle) * columns))
    return light


def blurred(pixels: Image, sigma_px: float) -> tuple[Image, int]:
    """Blur by a Gaussian cut off at three standard deviations; also return how many pixels far it reaches."""
    reach = int(np.ceil(3 * sigma_px))
    if sigma_px < 0.05:
        return pixels, 0
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma_px) ** 2)
    kernel /= kernel.sum()
    rows = correlate1d(pixels, kernel, axis=0, mode="nearest")
    both: Image = correlate1d(rows, kernel, axis=1, mode="nearest")
    return both, reach


@lru_cache(maxsize=64)
def _tree(seed: int, patient: int, disc_mm: tuple[float, float], tortuosity: float) -> VesselTree:
    return grow_tree(Identity(seed, patient).of_patient("vessels"), disc_mm, tortuosity)


@lru_cache(maxsize=64)
def _texture(seed: int, patient: int) -> tuple[NDArray[np.float32], ...]:
    """Return the choroid, shared by all of a patient's images, on square lattices: coarse, stripes, fine."""
    random = Identity(seed, patient).of_patient("choroid")

    def smooth(step_mm: float, sigma_mm: float | tuple[float, float]) -> NDArray[np.float32]:
        n = round(2 * TEXTURE_HALF_MM / step_mm)
        drawn = random.standard_normal((n, n), dtype=np.float32)
        field = gaussian_filter(drawn, np.asarray(sigma_mm) / step_mm, mode="wrap", truncate=3)
        scaled: NDArray[np.float32] = field / field.std()
        return scaled

    coarse, fine = smooth(0.5, 1.6), smooth(0.1, 0.13)
    # ridges of two smooth fields look like the choroid's large vessels shining through
    ridges = np.exp(-1.8 * np.abs(smooth(0.125, (0.3, 0.75)))) + np.exp(-1.8 * np.abs(smooth(0.125, (0.5, 0.4))))
    ridges = gaussian_filter(ridges, 0.8, mode="wrap")
    return coarse, (ridges - ridges.mean()) / ridges.std(), fine


def _sampled(lattices: tuple[NDArray[np.float32], ...], grid_mm: Image) -> list[Image]:
    found = []
    for lattice in lattices:
        at = (np.moveaxis(grid_mm, -1, 0) + TEXTURE_HALF_MM) * (len(lattice) / (2 * TEXTURE_HALF_MM)) - 0.5
        found.append(map_coordinates(lattice, at, order=1, mode="nearest").astype(np.float64))
    return found


def _nerve_fibres(grid_mm: Image, who: Identity, disc_mm: tuple[float, float]) -> Image:
    """Return the sheen of the nerve fibre layer: fine rays from the disc, strongest above and below it."""
    waves = who.of_patient("nerve fibres")
    offset = grid_mm - disc_mm
    angle, distance = np.arctan2(offset[..., 0], offset[..., 1]), np.sqrt(np.square(offset).sum(-1))
    rays = np.zeros_like(angle)
    for k, phase in zip((7, 13, 22, 31, 47), waves.uniform(0, 2 * np.pi, 5), strict=True):
        rays += np.cos(k * angle + phase)
    poles = np.exp(-np.square((np.abs(angle) - 1.9) / 0.5))
    sheen: Image = np.exp(-distance / 1.6) * (0.16 * poles + 0.05) * (1 + 0.28 * rays)
    return sheen
