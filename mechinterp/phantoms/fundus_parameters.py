"""What a fundus phantom is rendered from, in millimetres, and the rule that grades it.

Sizes follow the anatomy: the disc's centre lies 4.2–5.0 mm nasal of the fovea and its area is 1.7–3.3 mm² [1]_, the
large veins leave it 0.12–0.18 mm wide. Lesions are at the large end of what occurs, so that they can be seen at 96 px.

References
----------
.. [1] Jonas et al. Optic disc, cup and neuroretinal rim size, configuration and correlations in normal eyes. 1988.

"""

from __future__ import annotations

from dataclasses import dataclass

from mechinterp.phantoms.quantities import EVERYWHERE, check_parameters, quantity

CAMERAS = ("north", "south", "east")
REFERABLE_AREA_MM2 = 0.3
SEVERE_AREA_MM2 = 1.5
GRADES = ("no lesion", "mild", "moderate", "severe")


@dataclass(frozen=True, kw_only=True)
class FundusParameters:
    """Everything physical about one fundus photograph; a field's metadata holds its unit, range and what it touches.

    Contrasts are Weber contrasts of the green channel, ``(lesion - retina) / retina``, before blur and noise; dark
    lesions are given as positive numbers. Angles turn from temporal towards superior.

    Raises
    ------
    ConfigError
        If a value is outside the range that can be rendered.

    """

    laterality: str = quantity("right", "eye", kind="categorical", choices=("right", "left"), structures=(EVERYWHERE,))
    disc_area_mm2: float = quantity(
        2.3, "area of the optic disc", unit="mm²", low=1.2, high=3.6, structures=("disc", "cup")
    )
    cup_to_disc_ratio: float = quantity(
        0.4, "diameter of the cup over the disc's", low=0.1, high=0.85, structures=("cup",)
    )
    disc_fovea_distance_mm: float = quantity(
        4.6, "distance from the disc's centre to the fovea", unit="mm", low=4.2, high=5.0
    )
    vessel_width_mm: float = quantity(
        0.15, "width of the large veins at the disc", unit="mm", low=0.08, high=0.22, structures=("vessels",)
    )
    vessel_tortuosity: float = quantity(
        0.4, "winding of the vessels, 0 smooth", low=0.0, high=1.0, structures=("vessels",)
    )
    pigmentation: float = quantity(0.4, "melanin of the fundus, 0 blond, 1 dark", low=0.0, high=1.0)
    microaneurysm_count: int = quantity(8, "number of microaneurysms", low=0, high=40, structures=("microaneurysms",))
    microaneurysm_area_mm2: float = quantity(
        0.0, "area of all microaneurysms", unit="mm²", low=0.0, high=1.0, structures=("microaneurysms",)
    )
    microaneurysm_contrast: float = quantity(
        0.4, "darkness of the microaneurysms", low=0.0, high=0.95, structures=("microaneurysms",)
    )
    haemorrhage_count: int = quantity(5, "number of haemorrhages", low=0, high=30, structures=("haemorrhages",))
    haemorrhage_area_mm2: float = quantity(
        0.0, "area of all haemorrhages", unit="mm²", low=0.0, high=8.0, structures=("haemorrhages",)
    )
    haemorrhage_contrast: float = quantity(
        0.55, "darkness of the haemorrhages", low=0.0, high=0.95, structures=("haemorrhages",)
    )
    haemorrhage_eccentricity_mm: float = quantity(
        2.5, "distance of the haemorrhages' middle from the fovea", unit="mm", low=0.0, high=4.0,
        structures=("haemorrhages",),
    )  # fmt: skip
    haemorrhage_angle_deg: float = quantity(
        60.0, "direction of the haemorrhages' middle", unit="°", low=-180.0, high=180.0, structures=("haemorrhages",)
    )
    exudate_count: int = quantity(8, "number of hard exudates", low=0, high=40, structures=("exudates",))
    exudate_area_mm2: float = quantity(
        0.0, "area of all hard exudates", unit="mm²", low=0.0, high=6.0, structures=("exudates",)
    )
    exudate_contrast: float = quantity(
        0.9, "brightness of the hard exudates", low=0.0, high=3.0, structures=("exudates",)
    )
    exudate_eccentricity_mm: float = quantity(
        1.8, "distance of the exudates' middle from the fovea", unit="mm", low=0.0, high=4.0, structures=("exudates",)
    )
    exudate_angle_deg: float = quantity(
        -30.0, "direction of the exudates' middle", unit="°", low=-180.0, high=180.0, structures=("exudates",)
    )
    illumination: float = quantity(1.0, "exposure relative to the usual", low=0.4, high=1.5)
    vignetting: float = quantity(0.25, "loss of light at the field's edge", low=0.0, high=0.7)
    blur_mm: float = quantity(
        0.04, "standard deviation of the point spread on the retina", unit="mm", low=0.0, high=0.4
    )
    noise: float = quantity(0.012, "standard deviation of the sensor's noise, white being 1", low=0.0, high=0.2)
    camera: str = quantity("north", "camera, with its own colour", kind="categorical", choices=CAMERAS)
    camera_tag: int = quantity(
        0, "burnt-in letters in the corner, 1 present", low=0, high=1, structures=("camera_tag",), kind="binary"
    )
    ruler_mark: int = quantity(
        0, "burnt-in ruler in the corner, 1 present", low=0, high=1, structures=("ruler_mark",), kind="binary"
    )
    gaze_row_mm: float = quantity(0.0, "shift of the view downwards", unit="mm", low=-0.5, high=0.5)
    gaze_column_mm: float = quantity(0.0, "shift of the view to the right", unit="mm", low=-0.5, high=0.5)
    torsion_deg: float = quantity(0.0, "rotation of the eye", unit="°", low=-15.0, high=15.0)

    def __post_init__(self) -> None:
        check_parameters(self)

    @property
    def lesion_area_mm2(self) -> float:
        """Area of haemorrhages and hard exudates together: what the grade is decided by."""
        return self.haemorrhage_area_mm2 + self.exudate_area_mm2

    @property
    def grade(self) -> int:
        """Grade 0–3 by a known rule, after the international scale of diabetic retinopathy.

        ===== ========= ====================================================================
        grade name      rule
        ===== ========= ====================================================================
        0     no lesion none of the lesions
        1     mild      microaneurysms, or haemorrhages and exudates of less than 0.3 mm² together
        2     moderate  haemorrhages and exudates of at least 0.3 mm² together
        3     severe    of these, haemorrhages of at least 1.5 mm²
        ===== ========= ====================================================================
        """
        if self.lesion_area_mm2 >= REFERABLE_AREA_MM2:
            return 3 if self.haemorrhage_area_mm2 >= SEVERE_AREA_MM2 else 2
        return 1 if self.lesion_area_mm2 > 0 or self.microaneurysm_area_mm2 > 0 else 0

    @property
    def referable(self) -> bool:
        """Whether the patient must see an ophthalmologist: grade 2 or above."""
        return self.grade >= 2
