"""Fundus photographs rendered from physical parameters.

Light falls through the field of view on a retina whose colour follows from melanin, macular pigment, the choroid's
texture and the nerve fibres' sheen; vessels, haemorrhages and microaneurysms absorb, the disc and hard exudates
reflect; the camera blurs, tints and adds noise. Every structure has its coverage mask, and a random stream of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mechinterp.errors import ConfigError
from mechinterp.phantoms.burnt_in import camera_tag_boxes, ruler_boxes
from mechinterp.phantoms.coverage import blobs_of_area, boxes, disc_of_pixels, ellipse
from mechinterp.phantoms.fundus_lesions import VIEW_CENTRE_MM, exudates, haemorrhages, microaneurysms
from mechinterp.phantoms.fundus_optics import blurred, illumination, retina, with_disc, with_vessels
from mechinterp.phantoms.fundus_parameters import FundusParameters
from mechinterp.phantoms.phantom import PhantomImage
from mechinterp.phantoms.random_streams import Identity
from mechinterp.phantoms.view import View

Image = NDArray[np.float64]

STRUCTURES = (
    "field_of_view", "disc", "cup", "arteries", "veins", "vessels", "microaneurysms", "haemorrhages", "exudates",
    "camera_tag", "ruler_mark",
)  # fmt: skip
FIELD_OF_EXTENT = 0.965
DISC_ABOVE_FOVEA_MM = 0.35
DARK_LESION = np.array([0.42, 1.0, 0.75])
BRIGHT_LESION = np.array([0.22, 1.0, 0.75])
MARK_BRIGHTNESS = 0.85
BLACK = 0.012
CAMERA_GAIN = {"north": (1.0, 1.0, 1.0), "south": (1.06, 0.9, 0.78), "east": (0.93, 1.03, 1.12)}
CAMERA_BLUR_MM = {"north": 0.0, "south": 0.03, "east": 0.015}
CAMERA_NOISE = {"north": 1.0, "south": 1.3, "east": 0.8}


@dataclass(frozen=True)
class FundusRenderer:
    """Renders fundus phantoms of one size.

    Parameters
    ----------
    size_px
        Side of the square image in pixels.
    extent_mm
        Side of the square image in millimetres on the retina; the round field of view nearly fills it.

    Raises
    ------
    ConfigError
        If the size or the extent cannot be rendered.

    Examples
    --------
    >>> from mechinterp.phantoms.fundus_parameters import FundusParameters
    >>> eye = FundusRenderer(64)(FundusParameters(exudate_area_mm2=0.8))
    >>> round(eye.area_mm2("exudates"), 3)
    0.8
    >>> healthy = eye.counterfactual(exudate_area_mm2=0.0)
    >>> healthy.parameters.referable
    False

    """

    size_px: int = 96
    extent_mm: float = 12.0

    def __post_init__(self) -> None:
        if self.size_px < 32:
            raise ConfigError(f"size_px is {self.size_px}: a fundus phantom needs at least 32 pixels")
        if not 6.0 <= self.extent_mm <= 18.0:
            raise ConfigError(f"extent_mm is {self.extent_mm:g}: a fundus phantom shows 6 to 18 mm")

    def __call__(
        self, parameters: FundusParameters | None = None, identity: Identity | None = None
    ) -> PhantomImage[FundusParameters]:
        """Render one photograph.

        Parameters
        ----------
        parameters
            What is physically there; a healthy eye by default.
        identity
            Which image of which patient: keys all randomness.

        Raises
        ------
        ConfigError
            If lesions do not fit into the view, or have an area but a count of 0.

        """
        p, who = parameters or FundusParameters(), identity or Identity()
        view, field_radius_mm = self._view(p), self.extent_mm * FIELD_OF_EXTENT / 2
        field = disc_of_pixels(view, field_radius_mm)
        light, coverage = _anatomy(view, field, p, who)
        for lesion, blobs in (
            ("microaneurysm", microaneurysms(p, who)),
            ("haemorrhage", haemorrhages(p, who)),
            ("exudate", exudates(p, who)),
        ):
            covered = blobs_of_area(view, blobs, getattr(p, f"{lesion}_area_mm2"), field)
            change = BRIGHT_LESION if lesion == "exudate" else -DARK_LESION
            light *= 1 + getattr(p, f"{lesion}_contrast") * covered[..., None] * change
            coverage[f"{lesion}s"] = covered
        light *= illumination(view, p, who, field_radius_mm)[..., None] * np.asarray(CAMERA_GAIN[p.camera])
        sigma_px = float(np.hypot(p.blur_mm, CAMERA_BLUR_MM[p.camera])) / view.spacing_mm
        pixels, reach = blurred(field[..., None] * light + BLACK, sigma_px)
        for mark, strokes, on in (
            ("camera_tag", camera_tag_boxes(self.extent_mm), p.camera_tag),
            ("ruler_mark", ruler_boxes(self.extent_mm), p.ruler_mark),
        ):
            coverage[mark] = boxes(view, strokes) * on
            pixels += coverage[mark][..., None] * (MARK_BRIGHTNESS - pixels)
        grain = who.of_image("noise", view.height, view.width).standard_normal(pixels.shape, dtype=np.float32)
        pixels = pixels + p.noise * CAMERA_NOISE[p.camera] * (0.25 + 0.75 * field[..., None]) * grain
        return PhantomImage(
            pixels=np.clip(pixels, 0, 1).astype(np.float32),
            spacing_mm=(view.spacing_mm, view.spacing_mm),
            coverage={name: coverage[name].astype(np.float32) for name in STRUCTURES},
            parameters=p,
            identity=who,
            landmarks_mm={"fovea": (0.0, 0.0), "disc": _disc_mm(p)},
            view=view,
            reach_px=reach,
            render=self,
        )

    def _view(self, p: FundusParameters) -> View:
        left = p.laterality == "left"
        # gaze moves the view in the image's own directions, whichever eye it is
        sideways = p.gaze_column_mm * (-1 if left else 1)
        centre = (float(VIEW_CENTRE_MM[0]) + p.gaze_row_mm, float(VIEW_CENTRE_MM[1]) + sideways)
        return View(self.size_px, self.size_px, self.extent_mm / self.size_px, centre, left, p.torsion_deg)


def _disc_mm(p: FundusParameters) -> tuple[float, float]:
    return -DISC_ABOVE_FOVEA_MM, float(np.sqrt(p.disc_fovea_distance_mm**2 - DISC_ABOVE_FOVEA_MM**2))


def _anatomy(view: View, field: Image, p: FundusParameters, who: Identity) -> tuple[Image, dict[str, Image]]:
    """Return the light of an eye without lesions, height × width × 3, and its structures' coverage."""
    disc_mm = _disc_mm(p)
    disc = ellipse(view, disc_mm, p.disc_area_mm2, 1.12, field)
    cup_mm = (disc_mm[0], disc_mm[1] - 0.08)
    cup = ellipse(view, cup_mm, p.disc_area_mm2 * p.cup_to_disc_ratio**2, 1.08, disc)
    light = with_disc(view, retina(view, p, who, disc_mm), disc, cup, p, disc_mm)
    light, arteries, veins = with_vessels(view, light, field, p, who, disc_mm)
    found = {"field_of_view": field, "disc": disc, "cup": cup, "arteries": arteries, "veins": veins}
    return light, found | {"vessels": np.maximum(arteries, veins)}
