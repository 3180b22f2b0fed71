"""Patients of an X-ray department: whose chest, how ill, seen by which unit. All draws are keyed, none shared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np

from mechinterp.phantoms.chest.parameters import MACHINES, ChestParameters
from mechinterp.phantoms.random_streams import Identity
from mechinterp.phantoms.studies import PhantomStudy, draw_study

ABNORMAL_FROM = 0.5


@dataclass(frozen=True, kw_only=True)
class ChestStudy(PhantomStudy):
    """Which patients and radiographs a set of chest phantoms holds."""

    MARKS: ClassVar[tuple[str, ...]] = ("portable_tag", "pacemaker", "side_tag")

    images_per_patient: Annotated[int, "radiographs of each patient, months apart"] = 2
    size_px: Annotated[int, "side of an image in pixels"] = 256
    extent_mm: Annotated[float, "side of an image [mm]"] = 390.0
    nodules: Annotated[float, "share of the abnormal patients with a nodule"] = 0.4
    effusions: Annotated[float, "share of the abnormal patients with an effusion; the rest have an enlarged heart"] = (
        0.35
    )


def sample_chests(study: ChestStudy) -> tuple[list[ChestParameters], list[Identity], list[str]]:
    """Draw the patients of a study.

    Returns
    -------
    parameters, identities, splits
        One an image, patients in order; in every split half of the patients are abnormal, in all their images.

    """

    def draw(who: Identity, illness: float) -> dict[str, Any]:
        return _chest(who) | _exposure(who) | _finding(who, illness, study)

    parameters, identities, of_image = draw_study(study, draw, lambda p: ChestParameters(**p).abnormal)
    return [ChestParameters(**p) for p in parameters], identities, of_image


def _chest(who: Identity) -> dict[str, Any]:
    patient, image = who.of_patient("chest"), who.of_image("chest")
    return {
        "thorax_width_mm": patient.uniform(255, 298),
        "bone_density": patient.uniform(0.75, 1.25),
        "inspiration_mm": float(np.clip(patient.normal(0, 6) + image.normal(0, 4), -20, 20)),
        # some hearts are paced, ill or not
        "pacemaker": int(patient.random() < 0.08),
    }


def _exposure(who: Identity) -> dict[str, Any]:
    random = who.of_image("exposure")
    return {
        "kilovolts": random.uniform(95, 130),
        "exposure": random.uniform(0.9, 1.1),
        "scatter": random.uniform(0.02, 0.2),
        "blur_mm": random.uniform(0.3, 1.0),
        "noise": random.uniform(0.006, 0.016),
        "machine": MACHINES[int(who.of_patient("machine").integers(len(MACHINES)))],
        "shift_row_mm": random.uniform(-8, 8),
        "shift_column_mm": random.uniform(-6, 6),
        "rotation_deg": float(np.clip(random.normal(0, 1.2), -4, 4)),
    }


def _finding(who: Identity, illness: float, study: ChestStudy) -> dict[str, Any]:
    """Draw what is found: what and where by patient, how large by patient and a little by image."""
    patient, image = who.of_patient("finding"), who.of_image("finding")
    kind, small = patient.random(2)
    grown = float(np.exp(image.normal(0, 0.05)))
    found: dict[str, Any] = {
        "cardiothoracic_ratio": patient.uniform(0.40, 0.50) + image.uniform(-0.006, 0.006),
        "nodule_side": "right" if patient.random() < 0.5 else "left",
        "nodule_below_apex_mm": patient.uniform(40, 170),
        "nodule_from_midline_mm": patient.uniform(50, 105),
        "nodule_contrast": patient.uniform(0.18, 0.34),
        "effusion_side": "right" if patient.random() < 0.5 else "left",
    }
    diameter, level = patient.uniform(12, 32) * grown, patient.uniform(28, 110) * grown
    enlarged, speck, trace = patient.uniform(0.575, 0.66), patient.uniform(3, 6.5), patient.uniform(2, 10)
    if illness >= ABNORMAL_FROM:
        if kind < study.nodules:
            found["nodule_diameter_mm"] = diameter
        elif kind < study.nodules + study.effusions:
            found["effusion_level_mm"] = level
        else:
            found["cardiothoracic_ratio"] = enlarged + image.uniform(-0.006, 0.006)
    elif small < 0.15:
        found["nodule_diameter_mm"] = speck
    elif small < 0.3:
        found["effusion_level_mm"] = trace
    return found
