"""Patients of a screening programme: whose breasts, how ill, seen by which scanner. All draws are keyed, none shared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np

from mechinterp.errors import ConfigError
from mechinterp.phantoms.mammogram.parameters import CLUSTER_FROM, SCANNERS, SPICULATED_FROM, MammogramParameters
from mechinterp.phantoms.random_streams import Identity
from mechinterp.phantoms.studies import PhantomStudy, draw_study

# the four views of an examination, in the order they are taken
EXAMINATION = (("right", "CC"), ("left", "CC"), ("right", "MLO"), ("left", "MLO"))
SUSPICIOUS_FROM = 0.5


@dataclass(frozen=True, kw_only=True)
class MammogramStudy(PhantomStudy):
    """Which patients and mammograms a set of mammogram phantoms holds."""

    MARKS: ClassVar[tuple[str, ...]] = ("skin_marker", "site_tag", "view_marker")

    images_per_patient: Annotated[int, "views of each patient: both CC of one breast, then MLO, then later years"] = 2
    size_px: Annotated[int, "height of an image in pixels; the width is 0.8 of it"] = 256
    extent_mm: Annotated[float, "height of an image [mm]"] = 220.0
    masses: Annotated[float, "share of the suspicious patients whose finding is a mass, others have calcifications"] = (
        0.6
    )
    densest_percent: Annotated[
        float, "density of the densest breasts [%]: in dense tissue findings are hard to see"
    ] = 80.0
    conspicuity: Annotated[float, "factor on the contrast of masses and calcifications, 0.5 to 1.5"] = 1.0
    least_spiculation: Annotated[float, "spiculation of the smoothest suspicious mass, 0.25 to 0.9"] = 0.32
    finest_mm: Annotated[float, "mean size of the finest calcifications [mm], 0.3 to 0.9"] = 0.5
    fewest_clustered: Annotated[int, "calcifications of the smallest cluster, 5 to 20"] = 8
    mark_share: Annotated[
        float | None,
        "share of the images that bear each burnt-in mark, whatever they show; by default all bear laterality and view, and "
        "none another",
    ] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 10.0 <= self.densest_percent <= 80.0:
            raise ConfigError(f"densest_percent is {self.densest_percent:g}: give 10 to 80")
        if not 0.5 <= self.conspicuity <= 1.5:
            raise ConfigError(f"conspicuity is {self.conspicuity:g}: give 0.5 to 1.5")
        if not SPICULATED_FROM <= self.least_spiculation <= 0.9:
            raise ConfigError(f"least_spiculation is {self.least_spiculation:g}: give {SPICULATED_FROM:g} to 0.9")
        if not 0.3 <= self.finest_mm <= 0.9:
            raise ConfigError(f"finest_mm is {self.finest_mm:g}: give 0.3 to 0.9")
        if not CLUSTER_FROM <= self.fewest_clustered <= 20:
            raise ConfigError(f"fewest_clustered is {self.fewest_clustered}: give {CLUSTER_FROM} to 20")
        if self.mark_share is not None and not 0 <= self.mark_share <= 1:
            raise ConfigError(f"mark_share is {self.mark_share:g}: give 0 to 1")


def sample_mammograms(study: MammogramStudy) -> tuple[list[MammogramParameters], list[Identity], list[str]]:
    """Draw the patients of a study.

    Returns
    -------
    parameters, identities, splits
        One an image, patients in order; in every split half of the patients are suspicious, in all their images.

    """

    def draw(who: Identity, illness: float) -> dict[str, Any]:
        return (
            _breast(who, study.densest_percent)
            | _exposure(who)
            | _finding(who, illness, study)
            | _marks(who, study.mark_share)
        )

    parameters, identities, of_image = draw_study(study, draw, lambda p: MammogramParameters(**p).suspicious)
    return [MammogramParameters(**p) for p in parameters], identities, of_image


def _breast(who: Identity, densest: float) -> dict[str, Any]:
    patient, image = who.of_patient("breast"), who.of_image("breast")
    # an examination shows one breast in both views: what is found in it is seen twice
    side = "right" if patient.random() < 0.5 else "left"
    depth, height = patient.uniform(72, 112), patient.uniform(140, 188)
    return {
        "laterality": side,
        "view": ("CC", "MLO")[who.image % 2],
        "breast_depth_mm": depth + image.uniform(-3, 3),
        "breast_height_mm": height + image.uniform(-4, 4),
        "density_percent": float(
            np.clip(5 + (densest - 5) * patient.beta(1.1, 2.4) + image.normal(0, 1.5), 4, densest)
        ),
        "compression_mm": float(np.clip(patient.normal(55, 9) + image.normal(0, 2), 30, 85)),
    }


def _exposure(who: Identity) -> dict[str, Any]:
    random = who.of_image("exposure")
    return {
        "exposure": random.uniform(0.9, 1.1),
        "blur_mm": random.uniform(0.2, 0.6),
        "noise": random.uniform(0.006, 0.018),
        "scanner": SCANNERS[int(who.of_patient("scanner").integers(len(SCANNERS)))],
        "position_mm": random.uniform(-8, 8),
    }


def _marks(who: Identity, share: float | None) -> dict[str, Any]:
    """Draw each mark by itself: what an image shows has no part in it."""
    if share is None:
        return {}
    drawn = who.of_image("marks").random(len(MammogramStudy.MARKS)) < share
    return {mark: int(there) for mark, there in zip(MammogramStudy.MARKS, drawn, strict=True)}


def _finding(who: Identity, illness: float, study: MammogramStudy) -> dict[str, Any]:
    """Draw what is found: what and where by patient, how large by patient and a little by image."""
    patient, image = who.of_patient("finding"), who.of_image("finding")
    kind, second = patient.random(2)
    found: dict[str, Any] = {
        "mass_from_nipple_mm": patient.uniform(22, 70),
        "mass_up_mm": patient.uniform(-32, 32),
        "mass_contrast": study.conspicuity * patient.uniform(0.2, 0.36),
        "calcification_from_nipple_mm": patient.uniform(18, 65),
        "calcification_up_mm": patient.uniform(-32, 32),
        "calcification_contrast": study.conspicuity * patient.uniform(0.6, 1.0),
        "calcification_size_mm": patient.uniform(study.finest_mm, 0.95),
    }
    diameter = patient.uniform(11, 30) * float(np.exp(image.normal(0, 0.06)))
    spiculation, count = (
        patient.uniform(study.least_spiculation, 0.95),
        int(patient.integers(study.fewest_clustered, 28)),
    )
    extent, smooth, few = patient.uniform(6, 18), patient.uniform(0.0, 0.15), int(patient.integers(1, 5))
    wide = patient.uniform(26, 45)
    if illness >= SUSPICIOUS_FROM:
        if kind < study.masses:
            found |= {"mass_diameter_mm": diameter, "mass_spiculation": spiculation}
        if kind >= study.masses or second < 0.25:
            found |= {"calcification_count": count, "calcification_extent_mm": extent}
    elif kind < 0.32:
        found |= {"mass_diameter_mm": diameter, "mass_spiculation": smooth}
    elif kind < 0.5:
        found |= {"calcification_count": few, "calcification_extent_mm": extent, "calcification_size_mm": 0.9}
    elif kind < 0.64:
        found |= {"calcification_count": count, "calcification_extent_mm": wide}
    return found
