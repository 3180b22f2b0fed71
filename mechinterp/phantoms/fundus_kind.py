"""The fundus phantom as a kind: classes, structures, areas and attributes."""

from __future__ import annotations

from collections.abc import Sequence

from mechinterp.attributes.table import Attribute, AttributeTable
from mechinterp.phantoms.fundus import STRUCTURES, FundusRenderer
from mechinterp.phantoms.fundus_parameters import GRADES, REFERABLE_AREA_MM2, FundusParameters
from mechinterp.phantoms.fundus_population import FundusStudy, sample_population
from mechinterp.phantoms.kinds import PhantomKind
from mechinterp.phantoms.known_table import known_table

CLASS_NAMES = ("not referable", "referable")


def fundus_attributes(parameters: Sequence[FundusParameters]) -> AttributeTable:
    """Return all parameters, the lesions' area, the grade and the label, with units.

    A lesion that is not there has a count and an area of 0; its contrast and position are missing (NaN).
    """
    rule = f"known rule: referable from {REFERABLE_AREA_MM2} mm² of haemorrhages and exudates"
    lesions = ("microaneurysm", "haemorrhage", "exudate")
    return known_table(
        parameters,
        [
            (
                Attribute("lesion_area_mm2", "mm²", measured="sum of the phantom's haemorrhage and exudate area"),
                [p.lesion_area_mm2 for p in parameters],
            ),
            (Attribute("grade", "1", kind="ordinal", measured=rule), [p.grade for p in parameters]),
            (Attribute("referable", "1", kind="binary", measured=rule), [p.referable for p in parameters]),
        ],
        categories={"grade": GRADES},
        absent={lesion: f"{lesion}_area_mm2" for lesion in lesions},
    )


FUNDUS: PhantomKind[FundusParameters] = PhantomKind(
    name="fundus",
    title="fundus phantom",
    parameters=FundusParameters,
    study=FundusStudy,
    structures=STRUCTURES,
    marks=("camera_tag", "ruler_mark"),
    class_names=CLASS_NAMES,
    label=lambda p: int(p.referable),
    attributes=fundus_attributes,
    areas_mm2={
        "disc": lambda p: p.disc_area_mm2,
        "cup": lambda p: p.disc_area_mm2 * p.cup_to_disc_ratio**2,
        "microaneurysms": lambda p: p.microaneurysm_area_mm2,
        "haemorrhages": lambda p: p.haemorrhage_area_mm2,
        "exudates": lambda p: p.exudate_area_mm2,
    },
    sample=sample_population,
    renderer=lambda study: FundusRenderer(study.size_px, study.extent_mm),
)
