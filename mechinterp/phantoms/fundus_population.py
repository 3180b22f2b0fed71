"""Patients of an eye clinic: whose eyes, how ill, photographed by which camera. All draws are keyed, none shared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from scipy.special import ndtr, ndtri

from mechinterp.errors import ConfigError
from mechinterp.phantoms.fundus_parameters import CAMERAS, REFERABLE_AREA_MM2, FundusParameters
from mechinterp.phantoms.planted_shortcut import PlantedShortcut
from mechinterp.phantoms.random_streams import Identity
from mechinterp.phantoms.studies import PhantomStudy, draw_study

LESION_FREE_SHARE = 0.225
MILD_AREA_MM2, REFERABLE_RANGE_MM2 = (0.03, 0.24), (0.37, 3.5)


@dataclass(frozen=True, kw_only=True)
class FundusStudy(PhantomStudy):
    """Which patients and photographs a set of fundus phantoms holds.

    Raises
    ------
    ConfigError
        If a number cannot be meant.

    """

    MARKS = ("camera_tag", "ruler_mark")

    images_per_patient: Annotated[int, "photographs of each patient's eye, months apart"] = 2
    size_px: Annotated[int, "side of an image in pixels"] = 96
    extent_mm: Annotated[float, "side of an image on the retina [mm]"] = 12.0
    contrast_correlation: Annotated[float, "rank correlation of a lesion's contrast with the lesions' area"] = 0.0
    shortcut: Annotated[PlantedShortcut | None, "a mark that goes with the label"] = None

    def __post_init__(self) -> None:
        PhantomStudy.__post_init__(self)
        if not -1 <= self.contrast_correlation <= 1:
            raise ConfigError(f"contrast_correlation is {self.contrast_correlation:g}: it lies within -1 and 1")


def sample_population(study: FundusStudy) -> tuple[list[FundusParameters], list[Identity], list[str]]:
    """Draw the patients of a study.

    Returns
    -------
    parameters, identities, splits
        One an image, patients in order; in every split half of the patients are referable.

    """

    def draw(who: Identity, illness: float) -> dict[str, Any]:
        return _eye(who) | _photograph(who) | _lesions(who, illness, study)

    parameters, identities, splits = draw_study(study, draw, lambda p: FundusParameters(**p).referable)
    return [FundusParameters(**p) for p in parameters], identities, splits


def _eye(who: Identity) -> dict[str, Any]:
    random = who.of_patient("eye")
    return {
        "laterality": "right" if random.random() < 0.5 else "left",
        "disc_area_mm2": float(np.clip(random.normal(2.3, 0.35), 1.6, 3.3)),
        "cup_to_disc_ratio": float(np.clip(random.normal(0.42, 0.13), 0.15, 0.8)),
        "disc_fovea_distance_mm": random.uniform(4.35, 4.85),
        "vessel_width_mm": random.uniform(0.12, 0.18),
        "vessel_tortuosity": random.beta(2, 3),
        "pigmentation": random.beta(1.6, 1.8),
    }


def _photograph(who: Identity) -> dict[str, Any]:
    random = who.of_image("photograph")
    return {
        "illumination": random.uniform(0.85, 1.15),
        "vignetting": random.uniform(0.1, 0.4),
        "blur_mm": random.uniform(0.02, 0.08),
        "noise": random.uniform(0.006, 0.02),
        "camera": CAMERAS[int(who.of_patient("camera").integers(len(CAMERAS)))],
        "gaze_row_mm": random.uniform(-0.35, 0.35),
        "gaze_column_mm": random.uniform(-0.25, 0.25),
        "torsion_deg": float(np.clip(random.normal(0, 3), -8, 8)),
    }


def _lesions(who: Identity, illness: float, study: FundusStudy) -> dict[str, Any]:
    """Draw the lesions: what kind and where by patient, how large by patient and a little by image."""
    patient, image = who.of_patient("illness"), who.of_image("illness")
    area = _area_mm2(illness)
    if area > 0:
        floor, ceiling = (1.06 * REFERABLE_AREA_MM2, 4.5) if illness >= 0.5 else (0.02, 0.9 * REFERABLE_AREA_MM2)
        area = float(np.clip(area * np.exp(image.normal(0, 0.15)), floor, ceiling))
    kind, mixture = patient.random(), patient.uniform(0.2, 0.8)
    bright = 1.0 if kind < 0.3 else 0.0 if kind < 0.6 else mixture
    areas = {"exudate": bright * area, "haemorrhage": (1 - bright) * area}
    mean_area = {"exudate": patient.uniform(0.06, 0.18), "haemorrhage": patient.uniform(0.1, 0.3)}
    found: dict[str, Any] = {}
    rho = study.contrast_correlation
    for lesion, contrasts in (("exudate", (0.6, 1.5)), ("haemorrhage", (0.4, 0.75))):
        draw = rho * float(ndtri(illness)) + np.sqrt(1 - rho**2) * patient.standard_normal()
        found |= {
            f"{lesion}_area_mm2": areas[lesion],
            f"{lesion}_count": int(np.clip(round(areas[lesion] / mean_area[lesion]), 1, 30)),
            f"{lesion}_contrast": contrasts[0] + (contrasts[1] - contrasts[0]) * float(ndtr(draw)),
            f"{lesion}_eccentricity_mm": patient.uniform(0.6, 3.2),
            f"{lesion}_angle_deg": patient.uniform(-180, 180),
        }
    # microaneurysms come before everything else, so most patients with lesions and some without have them
    count = int(patient.poisson(6)) if patient.random() < (0.85 if area > 0 else 0.4) else 0
    found |= {"microaneurysm_count": max(count, 1), "microaneurysm_contrast": patient.uniform(0.3, 0.6)}
    return found | {"microaneurysm_area_mm2": count * patient.uniform(0.008, 0.018)}


def _area_mm2(illness: float) -> float:
    """Map a rank of illness to the area of haemorrhages and exudates: none, log-uniform below and above the rule."""
    if illness < LESION_FREE_SHARE:
        return 0.0
    low, high = REFERABLE_RANGE_MM2 if illness >= 0.5 else MILD_AREA_MM2
    start, end = (0.5, 1.0) if illness >= 0.5 else (LESION_FREE_SHARE, 0.5)
    return float(low * (high / low) ** ((illness - start) / (end - start)))
