"""Mammograms rendered from physical parameters.

Brightness grows with what the rays must cross: a compressed breast of fat, fibroglandular tissue, ducts and ligaments
under its skin, the pectoral muscle in the MLO view, masses with spicules, calcifications. Beyond the breast is air, which
is exactly black, and what is burnt in. Every structure has its coverage mask, and a random stream of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mechinterp.errors import ConfigError
from mechinterp.phantoms.coverage import blobs_of_area, tubes
from mechinterp.phantoms.fundus_optics import blurred
from mechinterp.phantoms.lettering import letters, text_boxes, text_width_mm
from mechinterp.phantoms.mammogram.lesions import calcifications, mass, spicules
from mechinterp.phantoms.mammogram.outline import Outline, outline, pectoral_depth_mm
from mechinterp.phantoms.mammogram.parameters import MammogramParameters
from mechinterp.phantoms.mammogram.tissue import tissue
from mechinterp.phantoms.phantom import PhantomImage
from mechinterp.phantoms.random_streams import Identity
from mechinterp.phantoms.textures import power_law, sampled
from mechinterp.phantoms.view import View

Image = NDArray[np.float64]

STRUCTURES = (
    "breast", "nipple", "pectoral_muscle", "dense_tissue", "mass", "spicules", "calcifications", "view_marker",
    "skin_marker", "site_tag",
)  # fmt: skip
WIDTH_OVER_HEIGHT = 0.8
FAT, GLAND, MUSCLE, SKIN = 0.22, 0.52, 0.44, 0.13
SCANNER_GAIN = {"alpha": 1.0, "beta": 1.1, "gamma": 0.9}
SCANNER_CURVE = {"alpha": 1.0, "beta": 1.2, "gamma": 0.85}
SCANNER_BLUR_MM = {"alpha": 0.0, "beta": 0.25, "gamma": 0.4}
SCANNER_NOISE = {"alpha": 1.0, "beta": 1.4, "gamma": 0.8}
NIPPLE_RADIUS_MM, SKIN_MM = 4.2, 1.0
MARK_BRIGHTNESS = 0.96


@dataclass(frozen=True)
class MammogramRenderer:
    """Renders mammogram phantoms of one size.

    Parameters
    ----------
    size_px
        Height in pixels; the width is 0.8 of it, rounded to 8.
    extent_mm
        Height in millimetres.

    Raises
    ------
    ConfigError
        If the size or the extent cannot be rendered.

    Examples
    --------
    >>> from mechinterp.phantoms.mammogram.parameters import MammogramParameters
    >>> breast = MammogramRenderer(128)(MammogramParameters(mass_diameter_mm=20.0))
    >>> round(breast.area_mm2("mass"), 1)
    314.2
    >>> breast.counterfactual(mass_spiculation=0.8).parameters.suspicious
    True

    """

    size_px: int = 256
    extent_mm: float = 220.0

    def __post_init__(self) -> None:
        if self.size_px < 64:
            raise ConfigError(f"size_px is {self.size_px}: a mammogram phantom needs at least 64 pixels")
        if not 180.0 <= self.extent_mm <= 320.0:
            raise ConfigError(f"extent_mm is {self.extent_mm:g}: a mammogram phantom shows 180 to 320 mm")

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.size_px, 8 * round(WIDTH_OVER_HEIGHT * self.size_px / 8)

    @property
    def spacing_mm(self) -> float:
        """Side of a pixel."""
        return self.extent_mm / self.size_px

    def __call__(
        self, parameters: MammogramParameters | None = None, identity: Identity | None = None
    ) -> PhantomImage[MammogramParameters]:
        """Render one mammogram.

        Parameters
        ----------
        parameters
            What is physically there; a breast without lesions by default.
        identity
            Which image of which patient: keys all randomness.

        Raises
        ------
        ConfigError
            If lesions do not fit into the view.

        """
        p, who = parameters or MammogramParameters(), identity or Identity()
        view = self._view(p)
        shape = outline(p, who)
        depth = shape.skin.depth_mm(view)
        light, coverage = _breast(view, depth, shape, p, who)
        tissue_there = np.maximum(coverage["breast"], coverage["nipple"])
        light = _with_lesions(view, light, coverage, shape, p, who)
        light = p.exposure * SCANNER_GAIN[p.scanner] * light
        light = np.clip(light, 0, None) ** SCANNER_CURVE[p.scanner] * tissue_there
        sigma_px = float(np.hypot(p.blur_mm, SCANNER_BLUR_MM[p.scanner])) / view.spacing_mm
        pixels, reach = blurred(light, sigma_px)
        grain = who.of_image("noise", view.height, view.width).standard_normal(pixels.shape, dtype=np.float32)
        # air is saturated: no blur and no noise there
        pixels = pixels + p.noise * SCANNER_NOISE[p.scanner] * np.sqrt(0.3 + p.compression_mm / 80) * grain
        pixels = np.where(tissue_there > 0, pixels, 0.0)
        for mark, strokes, on in (
            ("view_marker", self._view_marker(view, p), p.view_marker),
            ("site_tag", self._site_tag(view, p), p.site_tag),
        ):
            coverage[mark] = letters(view, strokes) * on
        coverage["skin_marker"] = _beads(view, shape, p) * p.skin_marker
        for mark in ("view_marker", "site_tag", "skin_marker"):
            pixels = pixels + coverage[mark] * (MARK_BRIGHTNESS - pixels)
        return PhantomImage(
            pixels=np.clip(pixels, 0, 1).astype(np.float32),
            spacing_mm=(view.spacing_mm, view.spacing_mm),
            coverage={name: coverage[name].astype(np.float32) for name in STRUCTURES},
            parameters=p,
            identity=who,
            landmarks_mm={"nipple": shape.nipple_mm},
            view=view,
            reach_px=reach,
            render=self,
        )

    def _view(self, p: MammogramParameters) -> View:
        height, width = self.shape
        # the chest wall lies at the image's edge: left for a left breast
        above = 0.11 * p.breast_height_mm if p.view == "MLO" else 0.0
        centre = (-above - p.position_mm, width * self.spacing_mm / 2)
        return View(height, width, self.spacing_mm, centre, p.laterality == "right")

    def _view_marker(self, view: View, p: MammogramParameters) -> Image:
        text, dot = f"{p.laterality[0].upper()}{p.view}", self.extent_mm / 220 * 1.5
        return self._lettered(view, p, text, dot, 10.0)

    def _site_tag(self, view: View, p: MammogramParameters) -> Image:
        return self._lettered(view, p, "S2", self.extent_mm / 220 * 1.7, self.extent_mm - 24.0)

    def _lettered(self, view: View, p: MammogramParameters, text: str, dot: float, top: float) -> Image:
        """Set a text at the image's air side."""
        wide, margin = view.width * view.spacing_mm, 6.0
        left = margin if p.laterality == "right" else wide - margin - text_width_mm(text, dot)
        return text_boxes(text, top, left, dot)


def _breast(
    view: View, depth: Image, shape: Outline, p: MammogramParameters, who: Identity
) -> tuple[Image, dict[str, Image]]:
    """Return the brightness of a breast without lesions, and its structures' coverage."""
    grid = view.grid_mm
    muscle_depth = pectoral_depth_mm(grid, p, who)
    breast = np.clip(depth / view.spacing_mm + 0.5, 0, 1)
    muscle = np.clip(muscle_depth / view.spacing_mm + 0.5, 0, 1) * breast
    tip = np.array(shape.nipple_mm) - (0.0, 0.55 * NIPPLE_RADIUS_MM)
    from_tip = np.hypot(*np.moveaxis(grid - tip, -1, 0)) / NIPPLE_RADIUS_MM
    nipple = np.clip((1 - from_tip) * NIPPLE_RADIUS_MM / view.spacing_mm + 0.5, 0, 1)
    found = tissue(grid, depth, muscle_depth, shape.nipple_mm, p, who)

    # where the breast curves away from the paddle it is thinner, which the display makes up for in part
    roll = np.clip(1 - np.maximum(depth, 0) / (0.5 * p.compression_mm), 0, 1)
    thickness = 1 - 0.55 * roll**2.2
    # thick breasts scatter more: less contrast
    crisp = np.exp(-(p.compression_mm - 55.0) / 130.0)
    light = FAT + crisp * (GLAND * found.glandular + (0.075 + 0.08 * found.glandular) * found.strands)
    light = light * (1 + 0.03 * found.grain)
    fibres = _muscle_fibres(grid, who)
    light = light + muscle * crisp * (
        MUSCLE * (0.86 + 0.14 * fibres) * (0.55 + 0.45 * np.clip(muscle_depth / 30, 0, 1) ** 0.7)
    )
    skin = np.exp(-np.square((depth - 0.8 * SKIN_MM) / SKIN_MM)) * (depth > -view.spacing_mm)
    light = light * thickness + SKIN * skin
    light = light + 0.22 * nipple * np.clip(1.1 - from_tip, 0, 1)
    coverage = {
        "breast": breast,
        "nipple": nipple,
        "pectoral_muscle": muscle,
        "dense_tissue": found.dense.astype(float),
    }
    return light, coverage


def _with_lesions(
    view: View, light: Image, coverage: dict[str, Image], shape: Outline, p: MammogramParameters, who: Identity
) -> Image:
    """Lay the mass, its spicules and the calcifications into the breast."""
    within = coverage["breast"]
    body = blobs_of_area(view, mass(p, who, shape), p.mass_area_mm2, within)
    strands = np.zeros_like(body)
    if p.mass_diameter_mm > 0:
        centre = mass(p, who, shape).centres_mm[0]
        from_centre = np.square(view.grid_mm - centre).sum(-1) / max(p.mass_diameter_mm / 2, 0.5) ** 2
        # a ball is thickest in its middle
        light = light + p.mass_contrast * body * (0.42 + 0.58 * np.sqrt(np.clip(1 - from_centre / 1.2, 0, 1)))
        if p.mass_spiculation > 0:
            s = spicules(p, who, shape)
            strands, (weighted,) = tubes(view, s.starts_mm, s.ends_mm, s.radii_mm, s.weights)
            strands *= within
            light = light + 0.8 * p.mass_contrast * weighted * within * (1 - body)
    specks = blobs_of_area(view, calcifications(p, who, shape), p.calcification_area_mm2, within)
    coverage |= {"mass": body, "spicules": strands, "calcifications": specks}
    return light + p.calcification_contrast * specks


def _muscle_fibres(grid_mm: Image, who: Identity) -> Image:
    """Return the muscle's striae, which run down towards the chest wall, 0 to 1."""
    lattice = power_law(who.of_patient("muscle fibres"), 64, 1.5, from_cycles=3)
    along, across = grid_mm @ np.array([0.9, -0.45]), grid_mm @ np.array([0.45, 0.9])
    striae: Image = 0.5 + 0.25 * sampled(lattice, along / 260.0, across / 60.0).astype(float)
    return np.clip(striae, 0, 1)


def _beads(view: View, shape: Outline, p: MammogramParameters) -> Image:
    """Draw three lead beads on the skin, in the upper half of the breast."""
    drawn = np.zeros((view.height, view.width))
    inner = np.flatnonzero((shape.skin.points_mm[:, 0] < shape.nipple_mm[0] - 18) & (shape.skin.points_mm[:, 1] > 20))
    for share in (0.55, 0.7, 0.85):
        at = inner[int(share * (len(inner) - 1))]
        place = shape.skin.points_mm[at] - 2.2 * shape.skin.outwards[at]
        distance = np.hypot(*np.moveaxis(view.grid_mm - place, -1, 0))
        drawn = np.maximum(drawn, np.clip((1.5 - distance) / view.spacing_mm + 0.5, 0, 1))
    return drawn
