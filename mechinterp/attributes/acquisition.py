"""How an image was acquired, from its DICOM header: the confounders that a model may read off the pixels."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mechinterp.attributes.table import Attribute, AttributeTable

_OLDEST = 90.0  # years; older ages name people and are given as this one (45 CFR 164.514(b)(2)(i)(C))
_YEARS = {"D": 1 / 365.25, "W": 7 / 365.25, "M": 1 / 12, "Y": 1.0}
_MEASURED = "DICOM header"


@dataclass(frozen=True)
class _Number:
    """An element that holds a number: its keyword, unit, and what it is multiplied by to be in that unit."""

    keyword: str
    unit: str
    factor: float = 1.0
    macro: str = ""


# Names that the attribute table shows, and the elements they are read from, the first that is there.
NUMBERS: dict[str, tuple[_Number, ...]] = {
    "tube_voltage": (_Number("KVP", "kV"),),
    "tube_current": (_Number("XRayTubeCurrentInmA", "mA"), _Number("XRayTubeCurrent", "mA")),
    "exposure": (_Number("ExposureInmAs", "mAs"), _Number("ExposureInuAs", "mAs", 1e-3), _Number("Exposure", "mAs")),
    "exposure_time": (_Number("ExposureTimeInms", "ms"), _Number("ExposureTime", "ms")),
    "slice_thickness": (_Number("SliceThickness", "mm", macro="PixelMeasuresSequence"),),
    "slice_spacing": (_Number("SpacingBetweenSlices", "mm", macro="PixelMeasuresSequence"),),
    "reconstruction_diameter": (_Number("ReconstructionDiameter", "mm"),),
    "gantry_tilt": (_Number("GantryDetectorTilt", "°"),),
    "pitch": (_Number("SpiralPitchFactor", "1"),),
    "field_strength": (_Number("MagneticFieldStrength", "T"),),
    "repetition_time": (_Number("RepetitionTime", "ms"),),
    "echo_time": (_Number("EchoTime", "ms"),),
    "inversion_time": (_Number("InversionTime", "ms"),),
    "flip_angle": (_Number("FlipAngle", "°"),),
    "compression_force": (_Number("CompressionForce", "N"),),
    "compressed_thickness": (_Number("BodyPartThickness", "mm"),),
    "detector_distance": (_Number("DistanceSourceToDetector", "mm"),),
    "patient_distance": (_Number("DistanceSourceToPatient", "mm"),),
}
CATEGORIES: dict[str, str] = {
    "modality": "Modality",
    "manufacturer": "Manufacturer",
    "scanner_model": "ManufacturerModelName",
    "convolution_kernel": "ConvolutionKernel",
    "body_part": "BodyPartExamined",
    "view_position": "ViewPosition",
    "laterality": "ImageLaterality",
    "patient_position": "PatientPosition",
    "patient_sex": "PatientSex",
    "scanning_sequence": "ScanningSequence",
    "filter_type": "FilterType",
    "anode_material": "AnodeTargetMaterial",
    "detector_type": "DetectorType",
}
TAGS = (
    *dict.fromkeys(n.keyword for options in NUMBERS.values() for n in options),
    *CATEGORIES.values(),
    "Laterality",
    "FrameLaterality",
    "PatientAge",
    "ContrastBolusAgent",
)


def acquisition_of(header: Any, frame: int = 0) -> dict[str, float | str]:
    """Return what a header says of how a frame was acquired; what it does not say is left out.

    Numbers are in the units of :data:`NUMBERS`, ``patient_age`` in years, 90 for all who are older. Nothing that names
    a patient, a place or a time is read.

    Parameters
    ----------
    header
        A pydicom dataset with the elements of :data:`TAGS`.
    frame
        Number of the frame, from 0.

    """
    found: dict[str, float | str] = {}
    for name, options in NUMBERS.items():
        for option in options:
            value = _number(_element(header, frame, option.macro, option.keyword))
            if value is not None:
                found[name] = value * option.factor
                break
    for name, keyword in CATEGORIES.items():
        text = _text(header.get(keyword))
        if text:
            found[name] = text
    side = _text(_element(header, frame, "FrameAnatomySequence", "FrameLaterality")) or _text(header.get("Laterality"))
    if side and "laterality" not in found:
        found["laterality"] = side
    age = _age(_text(header.get("PatientAge")))
    if age is not None:
        found["patient_age"] = age
    if "ContrastBolusAgent" in header:
        found["contrast_agent"] = float(bool(_text(header.get("ContrastBolusAgent"))))
    return found


def acquisition_table(rows: Sequence[Mapping[str, float | str]], also: Sequence[Attribute] = ()) -> AttributeTable:
    """Make a table of what the headers say: numbers with units, words as categories.

    Parameters
    ----------
    rows
        Per image, what :func:`acquisition_of` found and what a reader adds to it.
    also
        What the columns that a reader adds mean.

    Returns
    -------
    AttributeTable
        One column for everything that at least one image says, in the order of this module; NaN where it is missing.

    """
    columns, categories, kept = [], {}, []
    for attribute in (*_attributes(), *also):
        values = [row.get(attribute.name) for row in rows]
        if all(v is None for v in values):
            continue
        if attribute.kind == "categorical":
            known = tuple(sorted({str(v) for v in values if v is not None}))
            categories[attribute.name] = known
            values = [None if v is None else float(known.index(str(v))) for v in values]
        kept.append(attribute)
        columns.append([np.nan if v is None else float(v) for v in values])
    if not kept:
        return AttributeTable.empty(len(rows))
    return AttributeTable(tuple(kept), np.array(columns, dtype=np.float64).T, categories)


def _attributes() -> list[Attribute]:
    numbers = [Attribute(name, options[0].unit, measured=_MEASURED) for name, options in NUMBERS.items()]
    words = [Attribute(name, "", kind="categorical", measured=_MEASURED) for name in CATEGORIES]
    return [
        *numbers,
        Attribute("patient_age", "a", measured=f"{_MEASURED}; {_OLDEST:g} stands for all who are older"),
        Attribute("contrast_agent", "", kind="binary", measured=f"{_MEASURED}: whether an agent is named"),
        *words,
    ]


def _element(header: Any, frame: int, macro: str, keyword: str) -> Any:
    """Return an element from a frame's functional groups, the shared ones, or the top of the header."""
    if macro:
        own = header.get("PerFrameFunctionalGroupsSequence") or ()
        shared = header.get("SharedFunctionalGroupsSequence") or ()
        for group in (*own[frame : frame + 1], *shared[:1]):
            for item in group.get(macro) or ():
                if item.get(keyword) not in (None, ""):
                    return item.get(keyword)
    return header.get(keyword)


def _number(value: Any) -> float | None:
    if value is None or value == "":
        return None
    try:
        number = float(value[0] if hasattr(value, "__iter__") and not isinstance(value, str) else value)
    except (TypeError, ValueError, IndexError):
        return None
    return number if math.isfinite(number) else None


def _text(value: Any) -> str:
    several = hasattr(value, "__iter__") and not isinstance(value, str)
    words = [str(v).strip(" \x00") for v in (value if several else (value,)) if v is not None]
    return ", ".join(w for w in words if w)


def _age(text: str) -> float | None:
    """Return an age in years from ``063Y``, ``011M``, ``002W`` or ``004D`` (DICOM PS3.5, 6.2, AS)."""
    match = re.fullmatch(r"(\d{1,3})([DWMY])", text.upper())
    return None if match is None else min(int(match[1]) * _YEARS[match[2]], _OLDEST)
