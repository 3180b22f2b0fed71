"""Fat, fibroglandular tissue, ducts and ligaments of a compressed breast, drawn once a patient."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from mechinterp.phantoms.mammogram.parameters import MammogramParameters
from mechinterp.phantoms.random_streams import Identity
from mechinterp.phantoms.textures import Lattice, power_law, ridges, sampled

Image = NDArray[np.float32]
Grid = NDArray[np.float64]

CELLS = 256
PERIOD_MM = 160.0
# how far from the nipple a ring of the fan of ducts lies, over the angle's unit
FAN_TURNS, FAN_MM = 2.0, 110.0
SUBCUTANEOUS_MM = 9.0


@dataclass(frozen=True)
class Tissue:
    """What a breast is made of, as an image sees it.

    Parameters
    ----------
    dense
        1 where tissue counts as fibroglandular, 0 elsewhere: just the share of the breast that is asked for.
    glandular
        How much of the thickness is fibroglandular, 0 to 1, with soft borders.
    strands
        Ducts and ligaments, 0 to 1.
    grain
        Fine structure, mean 0.

    """

    dense: Float[Image, "height width"]
    glandular: Float[Image, "height width"]
    strands: Float[Image, "height width"]
    grain: Float[Image, "height width"]


def tissue(
    grid_mm: Grid,
    depth_mm: Grid,
    pectoral_mm: Grid,
    nipple_mm: tuple[float, float],
    p: MammogramParameters,
    who: Identity,
) -> Tissue:
    """Lay a patient's tissue into the outline of one view.

    Parameters
    ----------
    grid_mm
        Anatomy's coordinates of every pixel.
    depth_mm, pectoral_mm
        How deep it lies under the skin and in the muscle; negative outside.
    nipple_mm
        Tip of the breast.

    """
    coarse, fan, net, fine = _lattices(who.seed, who.patient)
    own = _own_lattice(who)
    rows, columns = grid_mm[..., 0].astype(np.float32) / PERIOD_MM, grid_mm[..., 1].astype(np.float32) / PERIOD_MM
    body = 0.8 * sampled(coarse, rows, columns) + 0.6 * sampled(own, rows, columns)
    offset = (grid_mm - nipple_mm).astype(np.float32)
    # behind the nipple the ducts fan out: a texture in angle and distance
    radius = np.hypot(offset[..., 0], offset[..., 1] - 12.0)
    angle = np.arctan2(offset[..., 0], 12.0 - offset[..., 1]) / (2 * np.pi)
    rays = sampled(fan, angle * FAN_TURNS, radius / FAN_MM)
    webs = sampled(net, rows, columns)
    grain = sampled(fine, rows * 1.7, columns * 1.7)

    inside = depth_mm > 0
    breast = inside & (pectoral_mm < 0)
    depth = depth_mm.astype(np.float32)
    span = float(max(p.breast_depth_mm, 1.0))
    # fibroglandular tissue lies behind the nipple, under a layer of fat, before a layer of fat at the chest wall
    from_skin = np.clip((depth - 2.0) / SUBCUTANEOUS_MM, 0, 1)
    to_wall = np.clip((grid_mm[..., 1].astype(np.float32) + 0.02 * span) / (0.35 * span), 0, 1)
    central = np.exp(-np.square(offset[..., 0] / (0.30 * p.breast_height_mm)))
    near_nipple = np.exp(-radius / (0.55 * span))
    above_fold = np.clip((0.34 * p.breast_height_mm - offset[..., 0]) / 12.0, 0, 1) if p.view == "MLO" else 1.0
    off_muscle = np.clip(-pectoral_mm.astype(np.float32) / 14.0, 0, 1)
    place = 1.4 * central + 1.1 * near_nipple + 0.8 * to_wall + 0.5 * off_muscle
    score = place + 0.62 * body + 0.32 * rays
    # thick fat under the skin stays free until nothing else is left
    score = score - 6.0 * (1 - from_skin) ** 1.5 - 4.0 * (1 - above_fold) - np.where(breast, 0, 50)
    dense, threshold = _densest(score, breast, p.density_percent / 100)
    soft = 1 / (1 + np.exp(-np.clip((score - threshold) * 2.0, -30, 30)))
    lobules = np.clip(0.66 + 0.16 * body + 0.20 * rays + 0.05 * grain, 0.15, 1.2)
    strands = 0.8 * ridges(webs, 7.0) + 0.5 * ridges(rays, 6.0)
    return Tissue(dense, (soft * lobules).astype(np.float32), strands.astype(np.float32), grain)


def _densest(score: Image, breast: NDArray[np.bool_], share: float) -> tuple[Image, float]:
    """Mark the share of the breast's pixels with the highest score; also return the lowest score among them."""
    values = score[breast]
    wanted = round(share * len(values))
    if wanted == 0:
        return np.zeros_like(score, dtype=np.float32), float(values.max(initial=0.0)) + 1.0
    threshold = float(np.partition(values, len(values) - wanted)[len(values) - wanted])
    return (breast & (score >= threshold)).astype(np.float32), threshold


@lru_cache(maxsize=24)
def _lattices(seed: int, patient: int) -> tuple[Lattice, ...]:
    """Return what all images of a patient share: lobes, fan of ducts, net of ligaments, fine structure."""
    who = Identity(seed, patient)
    coarse = power_law(who.of_patient("parenchyma"), CELLS, 3.5, from_cycles=2)
    fan = power_law(who.of_patient("ducts"), CELLS, 2.9, from_cycles=5)
    net = power_law(who.of_patient("ligaments"), CELLS, 3.4, from_cycles=6)
    fine = power_law(who.of_patient("grain"), CELLS, 2.0, from_cycles=9)
    return coarse, fan, net, fine


@lru_cache(maxsize=4)
def _own_lattice(who: Identity) -> Lattice:
    """Return what another projection or another year moves."""
    return power_law(who.of_image("parenchyma"), CELLS, 3.4, from_cycles=3)
