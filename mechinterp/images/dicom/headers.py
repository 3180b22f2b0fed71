"""Find DICOM files and read the part of their headers that says what the pixels mean.

Only the tags listed here are ever parsed into memory, and only :mod:`mechinterp.images.dicom.identity` sees those that
name a patient. Errors and warnings of pydicom quote values, so none of its words are passed on.
"""

from __future__ import annotations

import importlib
import logging
import warnings
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mechinterp.errors import MissingDependencyError, UnreadableImageError
from mechinterp.images.metadata_table import TABLES

SUFFIXES = (".dcm", ".dicom", ".ima")
_PREAMBLE = 128
# What pydicom and its decoders raise for files that are cut short, altered or in a way they do not know.
UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    NotImplementedError,
    RuntimeError,
    ArithmeticError,
    MemoryError,
    ImportError,
)

BESIDE = (*TABLES, "dataset.yaml")  # what says more of the files beside it
IDENTITY_TAGS = (
    "PatientID",
    "IssuerOfPatientID",
    "PatientName",
    "PatientBirthDate",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SOPInstanceUID",
)
_MEANING_TAGS = (
    "SOPClassUID",
    "Modality",
    "ImageType",
    "SpecificCharacterSet",
    "InstanceNumber",
    # geometry
    "Rows",
    "Columns",
    "NumberOfFrames",
    "PixelSpacing",
    "PixelSpacingCalibrationType",
    "ImagerPixelSpacing",
    "NominalScannedPixelSpacing",
    "PixelAspectRatio",
    "SequenceOfUltrasoundRegions",
    "EstimatedRadiographicMagnificationFactor",
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "SliceThickness",
    "GridFrameOffsetVector",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    # what the numbers mean
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "BitsAllocated",
    "BitsStored",
    "PixelRepresentation",
    "RedPaletteColorLookupTableDescriptor",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "RescaleSlope",
    "RescaleIntercept",
    "RescaleType",
    "ModalityLUTSequence",
    "VOILUTSequence",
    "VOILUTFunction",
    "WindowCenter",
    "WindowWidth",
    "Units",
    "DoseUnits",
    "DoseGridScaling",
    "BurnedInAnnotation",
    "RecognizableVisualFeatures",
    # segmentations
    "SegmentationType",
    "SegmentSequence",
    "MaximumFractionalValue",
)


def pydicom() -> Any:
    """Import pydicom.

    Raises
    ------
    MissingDependencyError
        If it is not installed.

    """
    try:
        module = importlib.import_module("pydicom")
    except ImportError as error:
        raise MissingDependencyError("pydicom", "dicom") from error
    # Its warnings and logs quote values that are wrong, which may be a name: none must reach a log. What they say is in
    # the reason an image is set aside for. A level, since a logger's filter does not hold for those below it.
    warnings.filterwarnings("ignore", module=r"(pydicom|pylibjpeg|highdicom)\b")
    logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
    return module


@dataclass(frozen=True)
class Found:
    """What lies in a folder.

    Parameters
    ----------
    files
        Those that look like DICOM, in the order of their paths.
    others
        How many do not.

    """

    files: tuple[Path, ...]
    others: int

    def number(self, path: Path) -> str:
        """Return what a file is called where names may be a patient's: its number in the order of paths."""
        return f"file {bisect_left(self.files, path) + 1} of {len(self.files)}"


def find_files(root: Path) -> Found:
    """List the DICOM files at and below a path; hidden ones and ``DICOMDIR`` are passed over."""
    if root.is_file():
        return Found((root,), 0)
    files, others = [], 0
    for path in sorted(root.rglob("*")):
        if any(part.startswith(".") for part in path.relative_to(root).parts) or not path.is_file():
            continue
        if path.name.upper() == "DICOMDIR":
            continue
        if looks_like_dicom(path):
            files.append(path)
        elif path.parent != root or path.name not in BESIDE:
            others += 1
    return Found(tuple(files), others)


def looks_like_dicom(path: Path) -> bool:
    """Say whether a file carries DICOM's mark after its preamble, or at least one of its suffixes."""
    if path.suffix.lower() in SUFFIXES:
        return True
    try:
        with path.open("rb") as file:
            return file.read(_PREAMBLE + 4)[_PREAMBLE:] == b"DICM"
    except OSError:
        return False


def read_header(path: Path, more: tuple[str, ...] = ()) -> Any:
    """Read the tags that are needed, nothing else.

    Parameters
    ----------
    path
        The file; one with a DICOM suffix may lack the preamble, as old archives do.
    more
        Keywords beyond those every reader needs.

    Raises
    ------
    UnreadableImageError
        If it is no DICOM file, or its header is damaged. The reason names no value.

    """
    module = pydicom()
    try:
        header = module.dcmread(
            path, stop_before_pixels=True, specific_tags=[*_MEANING_TAGS, *IDENTITY_TAGS, *more], force=True
        )
        known = len(header) > 0 or "MediaStorageSOPClassUID" in header.file_meta
    except UNREADABLE as error:
        raise UnreadableImageError(path.name, "its DICOM header is damaged") from error
    if not known:
        raise UnreadableImageError(path.name, "it is no DICOM file")
    return header


def read_whole(path: Path) -> Any:
    """Read a file with its pixels, and name the encoding where an old file does not.

    What it returns holds everything, identifiers too: it must not outlive the call that asked for it.
    """
    module = pydicom()
    whole = module.dcmread(path, force=True)
    if "TransferSyntaxUID" not in whole.file_meta:
        whole.file_meta.TransferSyntaxUID = _guessed_syntax(module, whole)
    return whole


def _guessed_syntax(module: Any, header: Any) -> Any:
    """Return the plain encoding that a header without one was read in."""
    implicit, little = header.original_encoding
    if implicit:
        return module.uid.ImplicitVRLittleEndian
    return module.uid.ExplicitVRLittleEndian if little else module.uid.ExplicitVRBigEndian


def functional_groups(header: Any, frame: int) -> Iterator[Any]:
    """Yield where a frame's values may stand, the most particular first: its own groups, the shared ones, the top."""
    own = header.get("PerFrameFunctionalGroupsSequence") or ()
    if frame < len(own):
        yield own[frame]
    yield from (header.get("SharedFunctionalGroupsSequence") or ())[:1]


def of_frame(header: Any, frame: int, macro: str, keyword: str) -> Any:
    """Return an element of a frame, from its functional groups or from the header's top; ``None`` where it is empty.

    Parameters
    ----------
    header
        What :func:`read_header` returned.
    frame
        Number of the frame, from 0.
    macro
        Sequence of the functional groups that holds the element in enhanced objects.
    keyword
        The element.

    """
    for group in functional_groups(header, frame):
        for item in group.get(macro) or ():
            value = item.get(keyword)
            if value not in (None, ""):
                return value
    value = header.get(keyword)
    return None if value == "" else value


def numbers(value: Any) -> tuple[float, ...]:
    """Return an element's numbers; none where it is empty or no number."""
    if value is None or value == "":
        return ()
    several = not isinstance(value, str) and hasattr(value, "__iter__")
    try:
        return tuple(float(v) for v in (value if several else (value,)))
    except (TypeError, ValueError):
        return ()


def word(value: Any) -> str:
    """Return an element's text without surrounding blanks; empty where it is missing."""
    return "" if value is None else str(value).strip(" \x00")
