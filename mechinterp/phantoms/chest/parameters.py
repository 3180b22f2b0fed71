"""What a chest phantom is rendered from, in millimetres, and the rule that reads it.

The heart's width is given by the cardiothoracic ratio, its largest width over the thorax's largest inner width; above
0.5 it counts as enlarged [1]_.

References
----------
.. [1] Danzer. The cardiothoracic ratio: an index of cardiac enlargement. 1919.

"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mechinterp.phantoms.quantities import EVERYWHERE, check_parameters, quantity

MACHINES = ("stand", "digital", "portable")
SIDES = ("right", "left")
FINDINGS = ("none", "nodule", "effusion", "cardiomegaly", "several")
NODULE_FROM_MM, EFFUSION_FROM_MM, ENLARGED_FROM = 8.0, 15.0, 0.55

_NODULE, _EFFUSION = ("nodule",), ("effusion", "lungs", "right_lung", "left_lung")


@dataclass(frozen=True, kw_only=True)
class ChestParameters:
    """Everything physical about one chest radiograph; a field's metadata holds its unit, range and what it touches.

    The patient faces the detector (PA): the patient's left is at the image's right. Brightness grows with what the rays
    must cross, so bones are bright and lungs dark.

    Raises
    ------
    ConfigError
        If a value is outside the range that can be rendered.

    """

    thorax_width_mm: float = quantity(
        275.0, "largest inner width of the thorax", unit="mm", low=220.0, high=330.0, structures=(EVERYWHERE,)
    )
    inspiration_mm: float = quantity(
        0.0, "how far the diaphragm lies below its usual place", unit="mm", low=-25.0, high=25.0
    )
    cardiothoracic_ratio: float = quantity(
        0.45, "width of the heart over the thorax's", low=0.32, high=0.70,
        structures=("heart", "lungs", "right_lung", "left_lung", "effusion", "vessels"),
    )  # fmt: skip
    nodule_diameter_mm: float = quantity(
        0.0, "diameter of a disc of the nodule's area, 0 for none", unit="mm", low=0.0, high=45.0, structures=_NODULE
    )
    nodule_contrast: float = quantity(
        0.22, "brightness that the nodule adds, full scale being 1", low=0.0, high=0.6, structures=_NODULE
    )
    nodule_side: str = quantity("right", "lung it lies in", kind="categorical", choices=SIDES, structures=_NODULE)
    nodule_below_apex_mm: float = quantity(
        80.0, "how far it lies below the lung's apex", unit="mm", low=20.0, high=200.0, structures=_NODULE
    )
    nodule_from_midline_mm: float = quantity(
        75.0, "how far it lies from the midline", unit="mm", low=40.0, high=140.0, structures=_NODULE
    )
    effusion_level_mm: float = quantity(
        0.0, "height of pleural fluid at the chest wall above the costophrenic angle, 0 for none", unit="mm", low=0.0,
        high=150.0, structures=_EFFUSION,
    )  # fmt: skip
    effusion_side: str = quantity("right", "side of the fluid", kind="categorical", choices=SIDES, structures=_EFFUSION)
    pacemaker: int = quantity(
        0, "pacemaker with two leads, 1 present", low=0, high=1, structures=("pacemaker", "leads"), kind="binary"
    )
    side_tag: int = quantity(
        1, "burnt-in L at the patient's left, 1 present", low=0, high=1, structures=("side_tag",), kind="binary"
    )
    portable_tag: int = quantity(
        0, "burnt-in letters of a bedside unit, 1 present", low=0, high=1, structures=("portable_tag",), kind="binary"
    )
    bone_density: float = quantity(1.0, "mineral of the bones relative to the usual", low=0.4, high=1.6)
    kilovolts: float = quantity(
        110.0,
        "tube voltage: the higher, the fainter the bones and the flatter the image",
        unit="kV",
        low=60.0,
        high=150.0,
    )
    exposure: float = quantity(1.0, "gain of the detector's signal", low=0.6, high=1.4)
    scatter: float = quantity(0.1, "veil of scattered rays over the image", low=0.0, high=0.5)
    blur_mm: float = quantity(0.6, "standard deviation of the point spread", unit="mm", low=0.0, high=5.0)
    noise: float = quantity(0.012, "standard deviation of the noise, full scale being 1", low=0.0, high=0.2)
    machine: str = quantity("stand", "X-ray unit, with its own response", kind="categorical", choices=MACHINES)
    shift_row_mm: float = quantity(0.0, "how far down the patient stands", unit="mm", low=-15.0, high=15.0)
    shift_column_mm: float = quantity(0.0, "how far to the image's right", unit="mm", low=-12.0, high=12.0)
    rotation_deg: float = quantity(0.0, "tilt of the patient in the image", unit="°", low=-6.0, high=6.0)

    def __post_init__(self) -> None:
        check_parameters(self)

    @property
    def nodule_area_mm2(self) -> float:
        """Area of the nodule."""
        return float(np.pi * self.nodule_diameter_mm**2 / 4)

    @property
    def heart_width_mm(self) -> float:
        """Largest width of the heart's shadow."""
        return self.cardiothoracic_ratio * self.thorax_width_mm

    @property
    def finding(self) -> int:
        """What the image shows, by a known rule; the position in :data:`FINDINGS`.

        A nodule counts from 8 mm, an effusion from 15 mm, the heart as enlarged from a ratio of 0.55.
        """
        found = [
            self.nodule_diameter_mm >= NODULE_FROM_MM,
            self.effusion_level_mm >= EFFUSION_FROM_MM,
            self.cardiothoracic_ratio >= ENLARGED_FROM,
        ]
        if sum(found) > 1:
            return 4
        return 1 + found.index(True) if any(found) else 0

    @property
    def abnormal(self) -> bool:
        """Whether there is any finding."""
        return self.finding > 0
