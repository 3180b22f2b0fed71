"""The chest phantom as a kind: classes, structures, areas and attributes."""

from __future__ import annotations

from collections.abc import Sequence

from mechinterp.attributes.table import Attribute, AttributeTable
from mechinterp.phantoms.chest.parameters import FINDINGS, ChestParameters
from mechinterp.phantoms.chest.population import ChestStudy, sample_chests
from mechinterp.phantoms.chest.renderer import STRUCTURES, ChestRenderer
from mechinterp.phantoms.kinds import PhantomKind
from mechinterp.phantoms.known_table import known_table


def chest_attributes(parameters: Sequence[ChestParameters]) -> AttributeTable:
    """Return all parameters, the nodule's area, the heart's width, the finding and the label, with units."""
    rule = "known rule: a nodule from 8 mm, an effusion from 15 mm, a cardiothoracic ratio from 0.55"
    return known_table(
        parameters,
        [
            (
                Attribute("nodule_area_mm2", "mm²", measured="from the nodule's diameter"),
                [p.nodule_area_mm2 for p in parameters],
            ),
            (
                Attribute("heart_width_mm", "mm", measured="cardiothoracic ratio times the thorax's width"),
                [p.heart_width_mm for p in parameters],
            ),
            (Attribute("finding", "1", kind="categorical", measured=rule), [p.finding for p in parameters]),
            (Attribute("abnormal", "1", kind="binary", measured=rule), [p.abnormal for p in parameters]),
        ],
        categories={"finding": FINDINGS},
        absent={"nodule": "nodule_diameter_mm", "effusion": "effusion_level_mm"},
    )


CHEST: PhantomKind[ChestParameters] = PhantomKind(
    name="chest",
    title="chest phantom",
    parameters=ChestParameters,
    study=ChestStudy,
    structures=STRUCTURES,
    marks=ChestStudy.MARKS,
    class_names=("normal", "abnormal"),
    label=lambda p: int(p.abnormal),
    attributes=chest_attributes,
    areas_mm2={"nodule": lambda p: p.nodule_area_mm2},
    sample=sample_chests,
    renderer=lambda study: ChestRenderer(study.size_px, study.extent_mm),
)
