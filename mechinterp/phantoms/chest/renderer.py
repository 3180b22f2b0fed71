"""Chest radiographs rendered from physical parameters.

Brightness grows with what the rays must cross: soft tissue of a body, less where lungs are, more where heart, vessels,
bones, belly and fluid are. Every structure has its coverage mask, and a random stream of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mechinterp.errors import ConfigError
from mechinterp.phantoms.chest import anatomy
from mechinterp.phantoms.chest.devices import generator
from mechinterp.phantoms.chest.nodule import nodule, room, thickness
from mechinterp.phantoms.chest.parameters import ChestParameters
from mechinterp.phantoms.chest.skeleton import (
    Tubes,
    anterior_ribs,
    clavicles,
    lung_vessels,
    pacemaker_leads,
    posterior_ribs,
    shoulders,
)
from mechinterp.phantoms.coverage import blobs_of_area, tubes
from mechinterp.phantoms.curves import covered
from mechinterp.phantoms.fundus_optics import blurred
from mechinterp.phantoms.lettering import letters, text_boxes
from mechinterp.phantoms.phantom import PhantomImage
from mechinterp.phantoms.random_streams import Identity
from mechinterp.phantoms.textures import power_law, sampled
from mechinterp.phantoms.view import View

Image = NDArray[np.float64]

STRUCTURES = (
    "body", "lungs", "right_lung", "left_lung", "heart", "mediastinum", "ribs", "clavicles", "spine", "vessels", "nodule",
    "effusion", "pacemaker", "leads", "side_tag", "portable_tag",
)  # fmt: skip
SOFT, LUNG, HEART, BELLY, FLUID = 0.50, 0.40, 0.13, 0.20, 0.36
RIB, CLAVICLE, SPINE, VESSEL = 0.125, 0.15, 0.075, 0.19
MACHINE_GAIN = {"stand": 1.0, "digital": 1.06, "portable": 0.94}
MACHINE_CURVE = {"stand": 1.0, "digital": 1.15, "portable": 0.85}
MACHINE_BLUR_MM = {"stand": 0.0, "digital": 0.3, "portable": 0.9}
MACHINE_NOISE = {"stand": 1.0, "digital": 0.8, "portable": 1.6}
MARK_BRIGHTNESS = 0.97


@dataclass(frozen=True)
class ChestRenderer:
    """Renders chest phantoms of one size.

    Parameters
    ----------
    size_px
        Side of the square image in pixels.
    extent_mm
        Side of the square image in millimetres.

    Raises
    ------
    ConfigError
        If the size or the extent cannot be rendered.

    Examples
    --------
    >>> from mechinterp.phantoms.chest.parameters import ChestParameters
    >>> chest = ChestRenderer(128)(ChestParameters(nodule_diameter_mm=20.0))
    >>> round(chest.area_mm2("nodule"), 1)
    314.2
    >>> chest.counterfactual(nodule_diameter_mm=0.0).parameters.abnormal
    False

    """

    size_px: int = 256
    extent_mm: float = 390.0

    def __post_init__(self) -> None:
        if self.size_px < 64:
            raise ConfigError(f"size_px is {self.size_px}: a chest phantom needs at least 64 pixels")
        if not 320.0 <= self.extent_mm <= 460.0:
            raise ConfigError(f"extent_mm is {self.extent_mm:g}: a chest phantom shows 320 to 460 mm")

    def __call__(
        self, parameters: ChestParameters | None = None, identity: Identity | None = None
    ) -> PhantomImage[ChestParameters]:
        """Render one radiograph.

        Parameters
        ----------
        parameters
            What is physically there; a chest without findings by default.
        identity
            Which image of which patient: keys all randomness.

        Raises
        ------
        ConfigError
            If the nodule does not fit into its lung.

        """
        p, who = parameters or ChestParameters(), identity or Identity()
        spacing = self.extent_mm / self.size_px
        # the lungs' middle lies a little above the image's
        view = View(self.size_px, self.size_px, spacing, (-p.shift_row_mm, -p.shift_column_mm), False, p.rotation_deg)
        light, pleura, coverage = _chest(view, p, who)
        light = _with_bones(view, light, pleura, coverage, p, who)
        spot = blobs_of_area(view, nodule(p, who), p.nodule_area_mm2, room(view, p, who))
        coverage["nodule"] = spot
        light = light + p.nodule_contrast * spot * thickness(view, p, who)
        light = _exposed(light, coverage["body"], p)
        sigma_px = float(np.hypot(p.blur_mm, MACHINE_BLUR_MM[p.machine])) / spacing
        pixels, reach = blurred(light, sigma_px)
        grain = who.of_image("noise", view.height, view.width).standard_normal(pixels.shape, dtype=np.float32)
        pixels = pixels + p.noise * MACHINE_NOISE[p.machine] * (0.35 + 0.65 * coverage["body"]) * grain
        pixels = _with_marks(view, pixels, coverage, p)
        return PhantomImage(
            pixels=np.clip(pixels, 0, 1).astype(np.float32),
            spacing_mm=(spacing, spacing),
            coverage={name: coverage[name].astype(np.float32) for name in STRUCTURES},
            parameters=p,
            identity=who,
            landmarks_mm={"hila": (0.0, 0.0), "carina": (-38.0, 0.0)},
            view=view,
            reach_px=reach,
            render=self,
        )


def _chest(view: View, p: ChestParameters, who: Identity) -> tuple[Image, Image, dict[str, Image]]:
    """Return the brightness of body, lungs, heart and belly, where lung or fluid shows, and all their coverage."""
    rows, columns = view.grid_mm[..., 0], view.grid_mm[..., 1]
    skin = anatomy.skin_depth_mm(rows, columns, p, who)
    wall = anatomy.thorax_wall(p.thorax_width_mm).depth_mm(view, mirrored=True)
    middle = anatomy.mediastinum_depth_mm(rows, columns, who)
    heart_depth = anatomy.heart(who.seed, who.patient, p.heart_width_mm, 0.7 * p.inspiration_mm).depth_mm(view)
    domes = anatomy.diaphragm_row_mm(columns, p, who)
    above = {"right": domes[0] - rows, "left": domes[1] - rows}
    heart, between = covered(heart_depth, view), covered(middle, view)

    found: dict[str, Image] = {"body": covered(skin, view), "heart": heart, "mediastinum": between}
    air, pleura, fluid = (np.zeros_like(skin) for _ in range(3))
    for side, beyond in (("right", columns < 0), ("left", columns >= 0)):
        depth = np.minimum(wall, above[side] * 0.8)
        cavity = covered(wall, view) * covered(above[side], view) * (1 - between) * beyond
        lung = cavity * (1 - heart)
        if p.effusion_level_mm > 0 and p.effusion_side == side:
            wet = covered(rows - anatomy.meniscus_row_mm(rows, columns, p, who), view)
            fluid, lung = wet * lung, (1 - wet) * lung
        found[f"{side}_lung"] = lung
        # a lung is thickest away from its walls
        thick = 0.42 + 0.58 * (1 - np.exp(-np.clip(depth, 0, None) / 26.0))
        air += cavity * thick
        pleura += cavity * (1 - heart)
    found["effusion"] = fluid
    found["lungs"] = found["right_lung"] + found["left_lung"]

    lattice = power_law(who.of_patient("lung texture"), 128, 2.4, from_cycles=6)
    texture = sampled(lattice, rows / 300.0, columns / 300.0).astype(float)
    depth_in = np.clip(skin, 0, None)
    light = SOFT * (1 - np.exp(-depth_in / 16.0)) * (1 + 0.16 * np.exp(-np.square(columns / 95.0)))
    light = light - LUNG * air * (1 - 0.9 * heart) * (1 + 0.05 * texture)
    light = light + HEART * heart * (1 - 0.6 * between) * (0.55 + 0.45 * np.clip(heart_depth / 45.0, 0, 1) ** 0.6)
    light = light + 0.10 * between * np.clip(middle / 14.0, 0, 1) ** 0.5
    light = light - 0.075 * _trachea(rows, columns)
    # behind the heart one dome passes into the other
    to_left = np.clip(0.5 + columns / 56.0, 0, 1)
    below = -(above["right"] * (1 - to_left) + above["left"] * to_left)
    belly = covered(below, view) * covered(wall, view)
    light = light + BELLY * belly * (0.45 + 0.55 * (1 - np.exp(-np.clip(below, 0, None) / 30.0)))
    light = light - 0.16 * belly * _stomach(rows, columns, p)
    # fluid fills what was air
    light = light + FLUID * (0.8 + 0.06 * texture) * fluid
    return light, pleura, found


def _with_bones(
    view: View, light: Image, pleura: Image, coverage: dict[str, Image], p: ChestParameters, who: Identity
) -> Image:
    """Lay bones and vessels over the chest; rays of higher voltage see less of bones."""
    rows, columns = view.grid_mm[..., 0], view.grid_mm[..., 1]
    body = coverage["body"]
    mineral = p.bone_density * (110.0 / p.kilovolts) ** 0.9
    bones_of = who.seed, who.patient, p.thorax_width_mm
    back, back_weight = _drawn(view, posterior_ribs(*bones_of))
    _, back_core = _drawn(view, posterior_ribs(*bones_of).scaled(0.62))
    front, front_weight = _drawn(view, anterior_ribs(*bones_of))
    # a rib is a tube: its rim is brighter than its middle
    ribs = back_weight - 0.42 * back_core + 0.62 * front_weight
    collar, collar_weight = _drawn(view, clavicles(*bones_of))
    _, collar_core = _drawn(view, clavicles(*bones_of).scaled(0.6))
    plates, heads = shoulders(*bones_of)
    plate, _ = _drawn(view, plates)
    head, _ = _drawn(view, heads)
    spine = covered(19.0 - np.abs(columns), view)
    # discs between the vertebrae, pedicles on them
    phase = (rows + 6.0) / 25.0
    discs = 0.5 + 0.5 * np.cos(2 * np.pi * phase)
    vertebrae = np.clip((21.0 - np.abs(columns)) / 5.0, 0, 1) * (0.72 + 0.28 * (1 - discs**6)) + 0.2 * np.exp(
        -np.square((np.abs(columns) - 16.0) / 2.5)
    )
    bones = RIB * ribs + CLAVICLE * (collar_weight - 0.3 * collar_core) + SPINE * vertebrae + 0.05 * plate + 0.10 * head
    vessels, vessel_weight = _drawn(view, lung_vessels(*bones_of))
    hila = sum(
        np.exp(-np.square((rows - r) / 19.0) - np.square((columns - c) / 13.0)) for r, c in ((2.0, -43.0), (-8.0, 45.0))
    )
    # fluid hides vessels that air shows
    light = light + VESSEL * vessel_weight * coverage["lungs"] + 0.11 * hila * pleura
    coverage |= {
        "ribs": np.maximum(back, front) * body,
        "clavicles": collar * body,
        "spine": spine * body,
        "vessels": vessels * pleura,
    }
    shown: Image = light + mineral * bones * body
    return shown


def _drawn(view: View, t: Tubes) -> tuple[Image, Image]:
    covered, (weighted,) = tubes(view, t.starts_mm, t.ends_mm, t.radii_mm, t.weights)
    return covered, weighted


def _exposed(light: Image, body: Image, p: ChestParameters) -> Image:
    """Return what the detector shows: higher voltage flattens, scatter veils, the unit has its own curve."""
    flat = (p.kilovolts / 110.0) ** -0.35
    shown = (0.48 + flat * (light - 0.48)) * (1 - p.scatter) + 0.42 * p.scatter
    gained = np.clip(shown * p.exposure * MACHINE_GAIN[p.machine], 0, None) ** MACHINE_CURVE[p.machine]
    image: Image = gained * body + 0.015 * (1 - body)
    return image


def _with_marks(view: View, pixels: Image, coverage: dict[str, Image], p: ChestParameters) -> Image:
    """Lay pacemaker, leads and burnt-in letters over the image."""
    coverage["pacemaker"] = coverage["leads"] = np.zeros_like(pixels)
    if p.pacemaker:
        coverage["pacemaker"], inner = generator(view)
        coverage["leads"], _ = _drawn(view, pacemaker_leads(p.thorax_width_mm))
        pixels = pixels + coverage["leads"] * (0.93 - pixels)
        pixels = pixels + coverage["pacemaker"] * (0.98 - 0.22 * inner - pixels)
    wide, dot = view.width * view.spacing_mm, view.width * view.spacing_mm / 390.0
    for mark, strokes, on in (
        ("side_tag", text_boxes("L", 16.0 * dot, wide - 30.0 * dot, 3.0 * dot), p.side_tag),
        ("portable_tag", text_boxes("PORTABLE", 12.0 * dot, 10.0 * dot, 1.7 * dot), p.portable_tag),
    ):
        coverage[mark] = letters(view, strokes) * on
        pixels = pixels + coverage[mark] * (MARK_BRIGHTNESS - pixels)
    return pixels


def _trachea(rows: Image, columns: Image) -> Image:
    """Return the column of air down to the carina, and the main bronchi."""
    tube: Image = np.clip((9.0 - np.abs(columns - 1.0)) / 4.0, 0, 1) * np.clip((-40.0 - rows) / 10.0, 0, 1)
    along = np.clip((rows + 46.0) / 46.0, 0, 1)
    for sign, drift in ((-1.0, 30.0), (1.0, 38.0)):
        middle = sign * (4.0 + drift * along)
        branch = (
            np.clip((6.5 - np.abs(columns - middle)) / 4.0, 0, 1) * (rows > -46.0) * np.clip((0.0 - rows) / 12.0, 0, 1)
        )
        tube = np.maximum(tube, 0.8 * branch)
    return tube


def _stomach(rows: Image, columns: Image, p: ChestParameters) -> Image:
    """Return the bubble of air under the left dome."""
    top = anatomy.DOME_MM + 24.0 + p.inspiration_mm
    inside = 1 - np.square((columns - 78.0) / 30.0) - np.square((rows - top) / 13.0)
    return np.clip(inside * 2.5, 0, 1)
