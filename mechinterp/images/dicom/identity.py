"""Who an image is of, as keyed hashes: the one place where identifying tags are looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mechinterp.images.dicom.headers import word
from mechinterp.images.pseudonyms import Pseudonyms


@dataclass(frozen=True)
class Identity:
    """The names that stand for an image's patient, examination, series and instance.

    Parameters
    ----------
    group
        The patient; ``None`` where the header names none.
    case
        The study; ``None`` where it has no UID.
    series, instance
        The same of the series and of the file; empty where it has no UID.
    patient_number
        The same of the patient id alone, whoever issued it, as a table beside the files would name the patient; empty
        where there is none.

    """

    group: str | None
    case: str | None
    series: str
    instance: str
    patient_number: str = ""


def identity_of(header: Any, pseudonyms: Pseudonyms) -> Identity:
    """Replace what names a patient by keyed hashes.

    The patient is the patient id with its issuer; without one, name and birth date; without those, the study: then two
    studies of one patient count as two, which :func:`mechinterp.images.dicom.reading.from_dicom` notes.

    Parameters
    ----------
    header
        What :func:`mechinterp.images.dicom.headers.read_header` returned.
    pseudonyms
        Whose key is used.

    """
    patient, issuer = word(header.get("PatientID")), word(header.get("IssuerOfPatientID"))
    name, born = word(header.get("PatientName")).strip("^ "), word(header.get("PatientBirthDate"))
    study, series = word(header.get("StudyInstanceUID")), word(header.get("SeriesInstanceUID"))
    instance = word(header.get("SOPInstanceUID"))
    if patient:
        group: str | None = pseudonyms("patient", patient, issuer)
    elif name:
        group = pseudonyms("name", name, born)
    else:
        group = pseudonyms("study", study) if study else None
    return Identity(
        group=group,
        case=pseudonyms("study", study) if study else None,
        series=pseudonyms("series", series) if series else "",
        instance=pseudonyms("instance", instance) if instance else "",
        patient_number=named_patient(patient, pseudonyms) if patient else "",
    )


def named_patient(patient: str, pseudonyms: Pseudonyms) -> str:
    """Return the name that stands for a patient id, as headers without an issuer have it."""
    return pseudonyms("patient", patient, "")


def names_its_patient(header: Any) -> bool:
    """Say whether the header names a patient, not only a study."""
    return bool(word(header.get("PatientID")) or word(header.get("PatientName")).strip("^ "))
