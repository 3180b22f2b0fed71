"""Where a DICOM image lies and how large its pixels are: spacing with its source, position along the series."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from mechinterp.images.dicom.headers import numbers, of_frame, word

# Modalities that project: one pixel at the detector shows less than its size of the patient, who stands before it.
PROJECTIONS = frozenset({"CR", "DX", "MG", "XA", "RF", "PX", "IO", "DG", "RG"})
_CENTIMETRES = 3  # PhysicalUnitsX/YDirection (0018,6024)


@dataclass(frozen=True)
class Spacing:
    """Millimetres per pixel, and how they are known.

    Parameters
    ----------
    mm
        (row, column).
    source
        ``patient`` (in the patient's plane), ``calibrated`` (a projection scaled to it), ``detector`` (at the imager:
        what is seen is smaller by the magnification), ``magnification`` (at the imager, divided by the header's
        estimate of it), ``scanned`` (a digitised film), ``ultrasound`` (of the only region).

    """

    mm: tuple[float, float]
    source: str


def spacing_of(header: Any, frame: int = 0) -> Spacing | None:
    """Return a frame's spacing; ``None`` where nothing positive is said.

    Pixel spacing goes first. In projections it may only repeat the detector's, which is told from a calibrated one by
    ``PixelSpacingCalibrationType`` or by being different (DICOM PS3.3, 10.7.1.1 to 10.7.1.3).

    Parameters
    ----------
    header
        What :func:`mechinterp.images.dicom.headers.read_header` returned.
    frame
        Number of the frame, from 0.

    """
    patient = _pair(of_frame(header, frame, "PixelMeasuresSequence", "PixelSpacing"))
    detector = _pair(header.get("ImagerPixelSpacing"))
    if word(header.get("Modality")) in PROJECTIONS:
        said = word(header.get("PixelSpacingCalibrationType"))
        if patient is not None and (said or (detector is not None and not np.allclose(patient, detector, rtol=1e-3))):
            return Spacing(patient, "calibrated")
        at_detector = detector or patient
        if at_detector is not None:
            factor = next(iter(numbers(header.get("EstimatedRadiographicMagnificationFactor"))), 1.0)
            if math.isfinite(factor) and factor > 1:
                return Spacing((at_detector[0] / factor, at_detector[1] / factor), "magnification")
            return Spacing(at_detector, "detector")
    if patient is not None:
        return Spacing(patient, "patient")
    if detector is not None:
        return Spacing(detector, "detector")
    scanned = _pair(header.get("NominalScannedPixelSpacing"))
    if scanned is not None:
        return Spacing(scanned, "scanned")
    return _ultrasound(header)


def has_square_pixels(header: Any) -> bool:
    """Say whether a header without any spacing leaves its pixels as high as they are wide (``PixelAspectRatio``, 0028,0034)."""
    ratio = _pair(header.get("PixelAspectRatio"))
    return ratio is None or math.isclose(*ratio, rel_tol=1e-3)


def _pair(value: Any) -> tuple[float, float] | None:
    found = numbers(value)
    if len(found) != 2 or not all(math.isfinite(v) and v > 0 for v in found):
        return None
    row, column = found
    return row, column


def _ultrasound(header: Any) -> Spacing | None:
    """Return the spacing of the one region of an ultrasound image; several regions have several."""
    regions = list(header.get("SequenceOfUltrasoundRegions") or ())
    if len(regions) != 1:
        return None
    region = regions[0]
    if not (region.get("PhysicalUnitsXDirection") == region.get("PhysicalUnitsYDirection") == _CENTIMETRES):
        return None
    deltas = _pair([abs(v) for k in ("PhysicalDeltaY", "PhysicalDeltaX") for v in numbers(region.get(k))])
    return None if deltas is None else Spacing((10 * deltas[0], 10 * deltas[1]), "ultrasound")


def position_mm(header: Any, frame: int = 0) -> float | None:
    """Return where a slice lies along the normal of its plane, in millimetres; ``None`` where the header does not say.

    The normal is the cross product of the directions of a row and a column (DICOM PS3.3, C.7.6.2.1.1), so that slices
    of any orientation sort, and a series that was stored backwards too.

    """
    directions = numbers(of_frame(header, frame, "PlaneOrientationSequence", "ImageOrientationPatient"))
    corner = numbers(of_frame(header, frame, "PlanePositionSequence", "ImagePositionPatient"))
    if len(directions) != 6 or len(corner) != 3 or not np.isfinite([*directions, *corner]).all():
        return None
    normal = np.cross(directions[:3], directions[3:])
    length = float(np.linalg.norm(normal))
    if length < 0.5:
        return None
    offsets = numbers(header.get("GridFrameOffsetVector"))  # RT dose: frames lie along the normal of the first
    offset = offsets[frame] - offsets[0] if frame < len(offsets) else 0.0
    return float(np.dot(normal / length, corner)) + offset


def orientation(header: Any, frame: int = 0) -> tuple[float, ...]:
    """Return the directions of a slice's rows and columns, rounded; empty where the header does not say."""
    directions = numbers(of_frame(header, frame, "PlaneOrientationSequence", "ImageOrientationPatient"))
    return tuple(round(v, 3) + 0.0 for v in directions) if len(directions) == 6 else ()
