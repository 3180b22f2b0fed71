"""The stimuli as a kind of phantom: classes, structures, areas and attributes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from mechinterp.attributes.table import Attribute, AttributeTable
from mechinterp.phantoms.kinds import PhantomKind
from mechinterp.phantoms.known_table import known_table
from mechinterp.phantoms.stimuli.parameters import StimulusParameters
from mechinterp.phantoms.stimuli.population import StimulusStudy, sample_stimuli
from mechinterp.phantoms.stimuli.renderer import STRUCTURES, StimulusRenderer

_OF_CONTENT = {
    "gabor": ("orientation_deg", "frequency_cpd", "phase_deg"),
    "face": ("face_smile", "face_eye_distance"),
    "scene": ("scene_horizon", "scene_buildings", "scene_trees"),
}


def stimulus_attributes(parameters: Sequence[StimulusParameters]) -> AttributeTable:
    """Return all parameters, area, eccentricity and the label, with units; what is of another content, or scrambled, is missing."""
    table = known_table(
        parameters,
        [
            (Attribute("area_deg2", "°²", measured="from size and content"), [p.area_deg2 for p in parameters]),
            (
                Attribute("eccentricity_deg", "°", measured="distance of the content's middle from fixation"),
                [float(np.hypot(p.up_deg, p.right_deg)) for p in parameters],
            ),
            (Attribute("is_face", "1", kind="binary", measured="content is a face"), [p.is_face for p in parameters]),
        ],
    )
    values = table.values.copy()
    shown = np.array([p.shown for p in parameters])
    for content, names in _OF_CONTENT.items():
        for name in names:
            values[shown != content, table.names.index(name)] = np.nan
    return AttributeTable(table.attributes, values, table.categories)


def _area_mm2(content: str) -> Callable[[StimulusParameters], float]:
    """Return the area on the screen at the usual viewing distance."""
    per_degree = StimulusRenderer().mm_per_degree
    return lambda p: p.area_deg2 * per_degree**2 if p.shown == content else 0.0


STIMULI: PhantomKind[StimulusParameters] = PhantomKind(
    name="stimuli",
    title="visual stimuli",
    parameters=StimulusParameters,
    study=StimulusStudy,
    structures=STRUCTURES,
    marks=StimulusStudy.MARKS,
    class_names=("no face", "face"),
    label=lambda p: int(p.is_face),
    attributes=stimulus_attributes,
    areas_mm2={content: _area_mm2(content) for content in ("gabor", "face", "scene")},
    sample=sample_stimuli,
    renderer=lambda study: StimulusRenderer(study.size_px, study.extent_deg, study.viewing_distance_mm),
)
