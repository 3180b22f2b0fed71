"""Stimuli of an experiment: which faces, which places, where on the screen, on which display."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np

from mechinterp.errors import ConfigError
from mechinterp.phantoms.random_streams import Identity
from mechinterp.phantoms.stimuli.parameters import ARRANGEMENTS, DISPLAYS, StimulusParameters
from mechinterp.phantoms.studies import PhantomStudy, draw_study

FACES_FROM = 0.5


@dataclass(frozen=True, kw_only=True)
class StimulusStudy(PhantomStudy):
    """Which stimuli a set holds; a "patient" is one exemplar: a person, a place, or a family of gratings."""

    MARKS: ClassVar[tuple[str, ...]] = ("photodiode_patch", "fixation_dot")

    patients: Annotated[int, "number of exemplars: persons, places, families of gratings"] = 200
    images_per_patient: Annotated[int, "images of each exemplar, at other places and sizes"] = 2
    size_px: Annotated[int, "side of an image in pixels"] = 128
    extent_deg: Annotated[float, "side of an image [degrees of visual angle]"] = 17.0
    scrambled_share: Annotated[float, "share of the images of faces and scenes that are scrambled"] = 0.0
    viewing_distance_mm: Annotated[float, "from the eye to the screen [mm]"] = 600.0

    def __post_init__(self) -> None:
        PhantomStudy.__post_init__(self)
        if not 0 <= self.scrambled_share <= 1:
            raise ConfigError(f"scrambled_share is {self.scrambled_share:g}: it lies between 0 and 1")


def sample_stimuli(study: StimulusStudy) -> tuple[list[StimulusParameters], list[Identity], list[str]]:
    """Draw an experiment: half of the exemplars of every split are faces, a quarter scenes, a quarter gratings.

    Of the scrambled images one half, by chance, has random phases, the other its tiles moved.

    Returns
    -------
    parameters, identities, splits
        One an image, exemplars in order.

    """

    def draw(who: Identity, rank: float) -> dict[str, Any]:
        content = "face" if rank >= FACES_FROM else "scene" if rank >= FACES_FROM / 2 else "gabor"
        return {"content": content} | _arranged(who, study) | _placed(who, content) | _content(who) | _display(who)

    parameters, identities, of_image = draw_study(
        study, draw, lambda p: p["content"] == "face" and p["arrangement"] == "intact"
    )
    return [StimulusParameters(**p) for p in parameters], identities, of_image


def _arranged(who: Identity, study: StimulusStudy) -> dict[str, Any]:
    random = who.of_image("arrangement")
    scrambled, how = random.random() < study.scrambled_share, ARRANGEMENTS[1 + int(random.integers(2))]
    return {"arrangement": how if scrambled else "intact"}


def _placed(who: Identity, content: str) -> dict[str, Any]:
    random = who.of_image("place on the screen")
    angle, eccentricity = random.uniform(0, 2 * np.pi), random.uniform(0.0, 3.2)
    low, high = {"gabor": (2.5, 6.0), "face": (4.5, 7.5), "scene": (5.5, 8.0)}[content]
    return {
        "up_deg": eccentricity * float(np.sin(angle)),
        "right_deg": eccentricity * float(np.cos(angle)),
        "size_deg": random.uniform(low, high),
        "contrast": random.uniform(0.5, 1.0),
    }


def _content(who: Identity) -> dict[str, Any]:
    exemplar, image = who.of_patient("content"), who.of_image("content")
    return {
        "frequency_cpd": float(np.exp(exemplar.uniform(np.log(0.5), np.log(2.2)))),
        "orientation_deg": image.uniform(0, 180),
        "phase_deg": image.uniform(-180, 180),
        "face_smile": image.uniform(-0.9, 1.0),
        "face_eye_distance": exemplar.uniform(0.31, 0.38),
        "scene_horizon": exemplar.uniform(0.35, 0.6),
        "scene_buildings": int(exemplar.integers(0, 7)),
        "scene_trees": int(exemplar.integers(0, 9)),
    }


def _display(who: Identity) -> dict[str, Any]:
    random = who.of_image("display")
    return {
        "luminance": random.uniform(0.46, 0.54),
        "noise": random.uniform(0.002, 0.008),
        "display": DISPLAYS[int(who.of_patient("display").integers(len(DISPLAYS)))],
    }
