"""DICOM files made for a test, with an element for everything that the test is about."""

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

PATIENT = {"PatientName": "Mustermann^Erika", "PatientID": "MRN-4711-0815", "PatientBirthDate": "19570301"}


def sequence(**elements):
    item = Dataset()
    for keyword, value in elements.items():
        setattr(item, keyword, value)
    return pydicom.Sequence([item])


def write_dicom(path, pixels, *, modality="CT", bits=None, remove=(), **elements):
    """Write an image of whole numbers: row × column, frame × row × column, or row × column × 3 (uint8)."""
    pixels = np.asarray(pixels)
    colour = pixels.ndim == 3 and pixels.shape[-1] == 3 and pixels.dtype == np.uint8
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = elements.get("SOPClassUID", CTImageStorage)
    meta.MediaStorageSOPInstanceUID = elements.get("SOPInstanceUID", generate_uid())
    made = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    allocated = 8 * pixels.dtype.itemsize
    standard = {
        **PATIENT,
        "SOPClassUID": meta.MediaStorageSOPClassUID,
        "SOPInstanceUID": meta.MediaStorageSOPInstanceUID,
        "StudyInstanceUID": "1.2.840.99999.1",
        "SeriesInstanceUID": "1.2.840.99999.1.1",
        "Modality": modality,
        "Rows": pixels.shape[0 if colour or pixels.ndim == 2 else 1],
        "Columns": pixels.shape[1 if colour or pixels.ndim == 2 else 2],
        "SamplesPerPixel": 3 if colour else 1,
        "PhotometricInterpretation": "RGB" if colour else "MONOCHROME2",
        "BitsAllocated": allocated,
        "BitsStored": bits or allocated,
        "HighBit": (bits or allocated) - 1,
        "PixelRepresentation": int(pixels.dtype.kind == "i"),
        "PixelData": pixels.tobytes(),
    }
    if colour:
        standard["PlanarConfiguration"] = 0
    if pixels.ndim == 3 and not colour:
        standard["NumberOfFrames"] = pixels.shape[0]
    for keyword, value in {**standard, **elements}.items():
        if keyword not in remove:
            setattr(made, keyword, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    made.save_as(path)
    return path


def write_series(
    folder, volume, *, first=(0.0, 0.0, 0.0), step=2.5, spacing=(0.5, 0.25), orientation=(1, 0, 0, 0, 1, 0), **elements
):
    """Write a volume slice by slice, the files' names in no order."""
    normal = np.cross(orientation[:3], orientation[3:])
    for i, plane in enumerate(volume):
        write_dicom(
            folder / f"{(7 * i) % 101:03d}.dcm",
            plane,
            InstanceNumber=len(volume) - i,
            ImageOrientationPatient=list(orientation),
            ImagePositionPatient=(np.asarray(first) + i * step * normal).tolist(),
            PixelSpacing=list(spacing),
            **{"RescaleSlope": 1, "RescaleIntercept": -1024, **elements},
        )
    return folder
