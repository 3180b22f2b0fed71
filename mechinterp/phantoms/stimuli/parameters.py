"""What a stimulus is rendered from, in degrees of visual angle."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mechinterp.phantoms.quantities import check_parameters, quantity

CONTENTS = ("gabor", "face", "scene")
ARRANGEMENTS = ("intact", "random-phases", "moved-tiles")
SCRAMBLED = "scrambled"
SHOWN = (*CONTENTS, SCRAMBLED)
"""What a viewer sees: a scrambled face is no face."""
DISPLAYS = ("projector", "screen", "goggles")
FACE_WIDTH_OVER_HEIGHT = 0.76

_GABOR, _FACE = ("gabor",), ("head", "face", "eyes", "mouth")
_SCENE = ("scene", "ground", "buildings", "trees")
_CONTENT = (*_GABOR, *_FACE, *_SCENE, SCRAMBLED)


@dataclass(frozen=True, kw_only=True)
class StimulusParameters:
    """Everything about one stimulus; a field's metadata holds its unit, range and what it touches.

    A stimulus shows one of three contents on a grey screen. What belongs to another content than the one shown has no
    influence. Orientation is that of the bars, from horizontal anticlockwise.

    Raises
    ------
    ConfigError
        If a value is outside the range that can be rendered.

    """

    content: str = quantity("gabor", "what is shown", kind="categorical", choices=CONTENTS)
    arrangement: str = quantity(
        "intact", "whether a face or a scene is scrambled, and how; of a Gabor without influence", kind="categorical",
        choices=ARRANGEMENTS, structures=(*_FACE, *_SCENE, SCRAMBLED),
    )  # fmt: skip
    size_deg: float = quantity(
        5.0, "diameter of the Gabor, height of the face, side of the scene", unit="°", low=1.5, high=8.0,
        structures=_CONTENT,
    )  # fmt: skip
    up_deg: float = quantity(
        0.0, "how far above fixation its middle lies", unit="°", low=-4.0, high=4.0, structures=_CONTENT
    )
    right_deg: float = quantity(0.0, "how far right of fixation", unit="°", low=-4.0, high=4.0, structures=_CONTENT)
    contrast: float = quantity(0.9, "contrast of the content, 0 invisible", low=0.0, high=1.0, structures=_CONTENT)
    orientation_deg: float = quantity(
        45.0, "orientation of the Gabor", unit="°", low=0.0, high=180.0, structures=_GABOR
    )
    frequency_cpd: float = quantity(
        1.0, "spatial frequency of the Gabor", unit="cycle/°", low=0.2, high=4.0, structures=_GABOR
    )
    phase_deg: float = quantity(
        0.0, "phase of the Gabor at its middle", unit="°", low=-180.0, high=180.0, structures=_GABOR
    )
    face_smile: float = quantity(
        0.2, "how far the corners of the mouth are raised, -1 lowered, 1 raised", low=-1.0, high=1.0,
        structures=("mouth", SCRAMBLED),
    )  # fmt: skip
    face_eye_distance: float = quantity(
        0.34, "distance of the eyes over the face's height", low=0.26, high=0.42, structures=("eyes", "head", SCRAMBLED)
    )
    scene_horizon: float = quantity(
        0.45, "height of the horizon over the scene's", low=0.2, high=0.75, structures=(*_SCENE, SCRAMBLED)
    )
    scene_buildings: int = quantity(3, "number of buildings", low=0, high=8, structures=("buildings", SCRAMBLED))
    scene_trees: int = quantity(4, "number of trees", low=0, high=12, structures=("trees", "buildings", SCRAMBLED))
    luminance: float = quantity(0.5, "grey of the screen, white being 1", low=0.2, high=0.8)
    blur_deg: float = quantity(0.03, "standard deviation of the display's blur", unit="°", low=0.0, high=0.4)
    noise: float = quantity(0.004, "standard deviation of the display's noise, white being 1", low=0.0, high=0.2)
    display: str = quantity("screen", "display, with its own response", kind="categorical", choices=DISPLAYS)
    fixation_dot: int = quantity(
        1, "dot at fixation, 1 present", low=0, high=1, structures=("fixation_dot",), kind="binary"
    )
    photodiode_patch: int = quantity(
        0, "white square in the corner for a photodiode, 1 present", low=0, high=1, structures=("photodiode_patch",),
        kind="binary",
    )  # fmt: skip

    def __post_init__(self) -> None:
        check_parameters(self)

    @property
    def is_face(self) -> bool:
        """Whether a face is shown."""
        return self.shown == "face"

    @property
    def shown(self) -> str:
        """What a viewer sees: the content, or that a face or a scene is scrambled."""
        return self.content if self.content == "gabor" or self.arrangement == "intact" else SCRAMBLED

    @property
    def area_deg2(self) -> float:
        """Area of the Gabor's disc, of the face's oval, or of the scene's square, scrambled or not."""
        if self.content == "scene":
            return self.size_deg**2
        aspect = FACE_WIDTH_OVER_HEIGHT if self.content == "face" else 1.0
        return float(np.pi / 4 * self.size_deg**2 * aspect)
