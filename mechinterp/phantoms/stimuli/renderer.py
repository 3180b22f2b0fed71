"""Stimuli rendered from parameters in degrees: one content on a grey screen, marks, and the display's own response."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mechinterp.errors import ConfigError
from mechinterp.phantoms.coverage import boxes, ellipse
from mechinterp.phantoms.fundus_optics import blurred
from mechinterp.phantoms.phantom import PhantomImage
from mechinterp.phantoms.random_streams import Identity
from mechinterp.phantoms.stimuli.parameters import FACE_WIDTH_OVER_HEIGHT, SCRAMBLED, StimulusParameters
from mechinterp.phantoms.stimuli.patterns import face, gabor, scene
from mechinterp.phantoms.stimuli.scrambling import with_random_phases, with_tiles_moved
from mechinterp.phantoms.view import View

Image = NDArray[np.float64]

STRUCTURES = (
    "gabor", "head", "face", "eyes", "mouth", "scene", "ground", "buildings", "trees", SCRAMBLED, "fixation_dot",
    "photodiode_patch",
)  # fmt: skip
DISPLAY_GAIN = {"projector": 0.94, "screen": 1.0, "goggles": 1.05}
DISPLAY_CURVE = {"projector": 1.12, "screen": 1.0, "goggles": 0.9}
DISPLAY_BLUR_DEG = {"projector": 0.05, "screen": 0.0, "goggles": 0.03}
DISPLAY_NOISE = {"projector": 1.6, "screen": 1.0, "goggles": 0.8}
DOT_RADIUS_DEG = 0.14


@dataclass(frozen=True)
class StimulusRenderer:
    """Renders stimuli of one size.

    Parameters
    ----------
    size_px
        Side of the square image in pixels.
    extent_deg
        Side of the square image in degrees of visual angle.
    viewing_distance_mm
        From the eye to the screen: what turns degrees into millimetres on the screen, where a degree is taken to be as
        long everywhere as at fixation.

    Raises
    ------
    ConfigError
        If the size, the extent or the distance cannot be rendered.

    Examples
    --------
    >>> from mechinterp.phantoms.stimuli.parameters import StimulusParameters
    >>> renderer = StimulusRenderer(128)
    >>> disc = renderer(StimulusParameters(size_deg=4.0))
    >>> round(disc.area_mm2("gabor") / renderer.mm_per_degree**2, 2)
    12.57

    """

    size_px: int = 128
    extent_deg: float = 17.0
    viewing_distance_mm: float = 600.0

    def __post_init__(self) -> None:
        if self.size_px < 48:
            raise ConfigError(f"size_px is {self.size_px}: a stimulus needs at least 48 pixels")
        if not 16.5 <= self.extent_deg <= 40.0:
            raise ConfigError(f"extent_deg is {self.extent_deg:g}: a stimulus shows 16.5 to 40 degrees")
        if self.viewing_distance_mm <= 0:
            raise ConfigError(f"viewing_distance_mm is {self.viewing_distance_mm:g}: it must be above 0")

    @property
    def mm_per_degree(self) -> float:
        """Length of a degree on the screen."""
        return float(self.viewing_distance_mm * np.tan(np.deg2rad(1.0)))

    @property
    def spacing_deg(self) -> float:
        """Side of a pixel in degrees."""
        return self.extent_deg / self.size_px

    def __call__(
        self, parameters: StimulusParameters | None = None, identity: Identity | None = None
    ) -> PhantomImage[StimulusParameters]:
        """Render one stimulus.

        Parameters
        ----------
        parameters
            What is shown; a Gabor by default.
        identity
            Which image of which person or place: keys all randomness.

        """
        p, who = parameters or StimulusParameters(), identity or Identity()
        view = View(self.size_px, self.size_px, self.spacing_deg * self.mm_per_degree)
        degrees = view.grid_mm / self.mm_per_degree
        v, u = (degrees[..., 0] + p.up_deg) / p.size_deg, (degrees[..., 1] - p.right_deg) / p.size_deg
        pixel = self.spacing_deg / p.size_deg
        picture, found = self._content(view, v, u, pixel, p, who)
        drawn = np.maximum.reduce([found[name] for name in ("gabor", "head", "scene") if name in found])
        if p.shown == SCRAMBLED:
            picture, found = self._scrambled(picture, drawn, view, v, u, pixel, p, who), {SCRAMBLED: drawn}
        light = p.luminance + p.contrast * picture * drawn
        light = np.clip(light * DISPLAY_GAIN[p.display], 0, None) ** DISPLAY_CURVE[p.display]
        sigma_px = float(np.hypot(p.blur_deg, DISPLAY_BLUR_DEG[p.display])) / self.spacing_deg
        pixels, reach = blurred(light, sigma_px)
        radius = np.hypot(degrees[..., 0], degrees[..., 1])
        found["fixation_dot"] = np.clip((DOT_RADIUS_DEG - radius) / self.spacing_deg + 0.5, 0, 1) * p.fixation_dot
        side, wide = 0.07 * self.extent_deg * self.mm_per_degree, self.extent_deg * self.mm_per_degree
        found["photodiode_patch"] = boxes(view, np.array([(wide - side, wide - side, wide, wide)])) * p.photodiode_patch
        pixels = pixels + found["fixation_dot"] * (0.05 - pixels)
        pixels = pixels + found["photodiode_patch"] * (1.0 - pixels)
        grain = who.of_image("noise", view.height, view.width).standard_normal(pixels.shape, dtype=np.float32)
        pixels = pixels + p.noise * DISPLAY_NOISE[p.display] * grain
        nothing = np.zeros(pixels.shape, dtype=np.float32)
        return PhantomImage(
            pixels=np.clip(pixels, 0, 1).astype(np.float32),
            spacing_mm=(view.spacing_mm, view.spacing_mm),
            coverage={name: found[name].astype(np.float32) if name in found else nothing for name in STRUCTURES},
            parameters=p,
            identity=who,
            landmarks_mm={
                "fixation": (0.0, 0.0),
                "content": (-p.up_deg * self.mm_per_degree, p.right_deg * self.mm_per_degree),
            },
            view=view,
            # soft outlines reach a pixel beyond the coverage
            reach_px=reach + 1,
            render=self,
        )

    def _content(
        self, view: View, v: Image, u: Image, pixel: float, p: StimulusParameters, who: Identity
    ) -> tuple[Image, dict[str, Image]]:
        """Draw what is shown, and what it covers."""
        if p.content == "gabor":
            picture, found = gabor(v, u, pixel, p)
            found["gabor"] = self._oval(view, p)
        elif p.content == "face":
            picture, found = face(v, u, pixel, p, who)
            found["face"] = self._oval(view, p)
            found["head"] = np.maximum(found["head"], found["face"])
        else:
            picture, found = scene(v, u, pixel, p, who)
        return picture, found

    def _scrambled(
        self, picture: Image, outline: Image, view: View, v: Image, u: Image, pixel: float, p: StimulusParameters,
        who: Identity,
    ) -> Image:  # fmt: skip
        """Scramble a face or a scene within its outline."""
        if p.arrangement == "random-phases":
            return with_random_phases(picture, outline, who)
        wide = FACE_WIDTH_OVER_HEIGHT if p.content == "face" else 1.0
        return self._content(view, *with_tiles_moved(v, u, wide, who), pixel, p, who)[0]

    def _oval(self, view: View, p: StimulusParameters) -> Image:
        """Draw the Gabor's disc or the face's oval, of just their area."""
        centre = (-p.up_deg * self.mm_per_degree, p.right_deg * self.mm_per_degree)
        aspect = 1 / FACE_WIDTH_OVER_HEIGHT if p.content == "face" else 1.0
        everywhere = np.ones((view.height, view.width))
        return ellipse(view, centre, p.area_deg2 * self.mm_per_degree**2, aspect, everywhere)
