"""The mammogram phantom as a kind: classes, structures, areas and attributes."""

from __future__ import annotations

from collections.abc import Sequence

from mechinterp.attributes.table import Attribute, AttributeTable
from mechinterp.phantoms.kinds import PhantomKind
from mechinterp.phantoms.known_table import known_table
from mechinterp.phantoms.mammogram.parameters import CATEGORIES, MammogramParameters
from mechinterp.phantoms.mammogram.population import MammogramStudy, sample_mammograms
from mechinterp.phantoms.mammogram.renderer import STRUCTURES, MammogramRenderer


def mammogram_attributes(parameters: Sequence[MammogramParameters]) -> AttributeTable:
    """Return all parameters, the lesions' areas, the category and the label, with units."""
    rule = "known rule after BI-RADS: spiculated masses and tight clusters of fine calcifications are suspicious"
    return known_table(
        parameters,
        [
            (
                Attribute("mass_area_mm2", "mm²", measured="from the mass's diameter, without spicules"),
                [p.mass_area_mm2 for p in parameters],
            ),
            (
                Attribute("calcification_area_mm2", "mm²", measured="from the calcifications' count and size"),
                [p.calcification_area_mm2 for p in parameters],
            ),
            (Attribute("category", "1", kind="ordinal", measured=rule), [p.category - 1 for p in parameters]),
            (Attribute("suspicious", "1", kind="binary", measured=rule), [p.suspicious for p in parameters]),
        ],
        categories={"category": CATEGORIES},
        absent={"mass": "mass_diameter_mm", "calcification": "calcification_count"},
    )


MAMMOGRAM: PhantomKind[MammogramParameters] = PhantomKind(
    name="mammogram",
    title="mammogram phantom",
    parameters=MammogramParameters,
    study=MammogramStudy,
    structures=STRUCTURES,
    marks=MammogramStudy.MARKS,
    class_names=("not suspicious", "suspicious"),
    label=lambda p: int(p.suspicious),
    attributes=mammogram_attributes,
    areas_mm2={"mass": lambda p: p.mass_area_mm2, "calcifications": lambda p: p.calcification_area_mm2},
    sample=sample_mammograms,
    renderer=lambda study: MammogramRenderer(study.size_px, study.extent_mm),
)
