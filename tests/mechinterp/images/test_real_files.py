"""Every real file of pydicom's, nibabel's and scikit-image's package data is read in its units, or set aside with a reason."""

import warnings
from pathlib import Path

import nibabel.tests
import numpy as np
import pydicom
import pydicom.data
import pytest
import skimage
import torch
from PIL import Image
from pydicom.pixels import apply_color_lut
from torch import nn

from mechinterp.capturing import capture
from mechinterp.errors import ImagesError
from mechinterp.files import sha256_file, write_json
from mechinterp.images import ImageSet, open_images
from mechinterp.images.findings import write_set_aside
from mechinterp.images.volume import load_volume
from mechinterp.models.vision_model import InputContract, VisionModel
from mechinterp.sites import Site

PYDICOM = Path(pydicom.__file__).parent / "data"
NIBABEL = Path(nibabel.tests.__file__).parent / "data"
SKIMAGE = Path(skimage.__file__).parent / "data"

# Elements that say who, where or when, after the standard's basic de-identification profile (PS3.15, E.1); person names
# and dates are looked for wherever they stand.
IDENTIFYING = [
    "PatientName",
    "PatientID",
    "OtherPatientIDs",
    "OtherPatientNames",
    "IssuerOfPatientID",
    "PatientBirthDate",
    "PatientBirthTime",
    "PatientAddress",
    "PatientTelephoneNumbers",
    "PatientComments",
    "EthnicGroup",
    "Occupation",
    "AccessionNumber",
    "StudyID",
    "StudyDescription",
    "InstitutionName",
    "InstitutionAddress",
    "InstitutionalDepartmentName",
    "StationName",
    "ReferringPhysicianName",
    "OperatorsName",
    "PerformingPhysicianName",
    "PhysiciansOfRecord",
    "RequestingPhysician",
    "NameOfPhysiciansReadingStudy",
    "DeviceSerialNumber",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SOPInstanceUID",
    "FrameOfReferenceUID",
    "MediaStorageSOPInstanceUID",
    "AdmissionID",
    "SeriesDescription",
    "ProtocolName",
    "ImageComments",
    "RequestedProcedureID",
    "PerformedProcedureStepID",
    "PerformedProcedureStepDescription",
    "AdditionalPatientHistory",
    "RequestAttributesSequence",
    "ContentCreatorName",
    "AdmittingDiagnosesDescription",
    "MedicalAlerts",
    "DeviceUID",
    "SynchronizationFrameOfReferenceUID",
    "IrradiationEventUID",
]
# Shorter strings (initials, '1CT1', a sex, a number of a series) stand in any file by chance, in hashes above all.
LEAST = 6


@pytest.fixture(autouse=True)
def _key(tmp_path, monkeypatch):
    monkeypatch.setenv("MECHINTERP_KEY_FILE", str(tmp_path / "key"))


def dicom_files():
    return [p for p in sorted(PYDICOM.rglob("*")) if p.is_file() and p.suffix not in {".py", ".pyc"}]


def opened(spec, **settings):
    """Return the images, or none and what was said instead."""
    try:
        return open_images(spec, **settings), ""
    except ImagesError as error:
        return None, str(error)


def expected(path):
    """Read a file as its header says, step by step, with nothing of ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        header = pydicom.dcmread(path, force=True)
        if "TransferSyntaxUID" not in header.file_meta:
            return None
        stored = header.pixel_array
    frames = stored if int(header.get("NumberOfFrames") or 1) > 1 else stored[None]
    photometric = header.PhotometricInterpretation
    if photometric == "PALETTE COLOR":
        return [apply_color_lut(f, header) for f in frames]
    if header.get("SamplesPerPixel", 1) == 3:
        return list(frames)  # pydicom turns YCbCr into RGB
    slope, intercept = float(header.get("RescaleSlope") or 1), float(header.get("RescaleIntercept") or 0)
    if header.get("Modality") == "RTDOSE":
        slope = float(header.DoseGridScaling)
    if photometric == "MONOCHROME1":
        frames = (1 << header.BitsStored) - 1 - frames.astype(int)
    return [f * slope + intercept for f in frames]


@pytest.mark.parametrize("path", dicom_files(), ids=lambda p: str(p.relative_to(PYDICOM)))
def test_a_real_dicom_file_has_its_units_or_a_reason(path):
    try:
        images = ImageSet.from_dicom(path)
        pixels = [image.pixels for image in images]
    except ImagesError as error:
        said = str(error)
    else:
        said = ""
    if said:
        assert "\n" not in said
        if "only segmentations" not in said:  # those are masks of other images
            with pytest.raises(Exception):  # noqa: B017 — whatever the other reader cannot make of it either
                assert expected(path) is not None
        return
    theirs = expected(path)
    assert len(pixels) == len(theirs)
    for ours, reference in zip(pixels, theirs, strict=True):
        np.testing.assert_allclose(ours, reference, rtol=1e-6, atol=1e-3)


def test_ct_small_is_in_hounsfield_units_with_its_spacing():
    images = ImageSet.from_dicom(pydicom.data.get_testdata_file("CT_small.dcm", download=False))
    image = images[0]
    assert (image.unit, image.spacing_mm, image.pixels.shape) == ("HU", (0.661468, 0.661468), (128, 128))
    assert (image.pixels.min(), image.pixels.max()) == (128 - 1024, 2191 - 1024)
    said = {a.name: (float(images.attributes.column(a.name)[0]), a.unit) for a in images.attributes}
    assert said["tube_voltage"] == (120, "kV")
    assert said["slice_thickness"] == (5, "mm")
    assert said["exposure_time"] == (1601, "ms")
    assert images.attributes.categories["convolution_kernel"] == ("STANDARD",)
    assert images.attributes.categories["manufacturer"] == ("GE MEDICAL SYSTEMS",)


def test_real_monochrome1_radiographs_are_bright_where_the_film_is():
    path = PYDICOM / "test_files/dicomdirtests/77654033/CR1/6154"
    images = ImageSet.from_dicom(path)
    header = pydicom.dcmread(path)
    assert header.PhotometricInterpretation == "MONOCHROME1"
    stored = header.pixel_array.astype(float)
    assert np.corrcoef(stored.ravel(), images[0].pixels.ravel())[0, 1] == pytest.approx(-1)
    np.testing.assert_allclose(images[0].pixels, (4095 - stored) * 0.684 + 200, rtol=1e-6)
    # the header's window covers the same pixels as before they were turned round
    low, high = images[0].intensity_range
    centre, width = 4095 * 0.684 + 400 - 1600 + 0.5, 2800 - 1
    assert (low, high) == pytest.approx((centre - width / 2, centre + width / 2))
    assert images.attributes.categories["spacing_from"] == ("detector",)
    assert any("measured at the detector" in note for note in images.notes)


def test_pixels_that_are_not_square_keep_both_spacings():
    images = ImageSet.from_dicom(PYDICOM / "test_files/dicomdirtests/98892001/CT2N")
    assert set(images.spacing_mm) == {(0.545455, 0.596847)}


def test_a_real_series_is_a_volume_in_the_order_of_its_positions():
    folder = PYDICOM / "test_files/dicomdirtests/98892001/CT5N"
    volume = ImageSet.from_dicom(folder, volumes=True)
    assert (len(volume), volume.axes, volume[0].unit) == (1, 3, "HU")
    headers = sorted((pydicom.dcmread(p) for p in folder.iterdir()), key=lambda h: float(h.ImagePositionPatient[2]))
    by_hand = np.stack([h.pixel_array[:, ::-1] - 1024.0 for h in headers])  # the patient's left at the image's left
    np.testing.assert_array_equal(volume[0].pixels, by_hand)
    assert volume.spacing_mm == ((2.5, 0.488281, 0.488281),)


@pytest.mark.parametrize(
    "path", sorted(p for p in NIBABEL.iterdir() if p.name.endswith((".nii", ".nii.gz", ".dcm"))), ids=lambda p: p.name
)
def test_a_real_file_of_nibabels_is_read_or_says_why_not(path):
    if path.suffix == ".dcm":
        images = ImageSet.from_dicom(path)
        np.testing.assert_array_equal(images[0].pixels, pydicom.dcmread(path).pixel_array)
        assert images[0].spacing_mm == tuple(float(v) for v in pydicom.dcmread(path).PixelSpacing)
        return
    images, said = opened(f"volumes:{path}")
    if images is None:
        reasons = ("choose one with frame", "a volume has three axes", "only volumes of one number per voxel")
        assert any(reason in said for reason in reasons), said
        return
    theirs = nibabel.as_closest_canonical(nibabel.load(path))
    values = np.nan_to_num(theirs.get_fdata().reshape(theirs.shape[:3]))
    by_hand = np.array([[values[:, y, z] for y in reversed(range(values.shape[1]))] for z in range(values.shape[2])])
    np.testing.assert_allclose(images[0].pixels, by_hand, rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(images[0].spacing_mm, theirs.header.get_zooms()[2::-1], rtol=1e-5)
    assert load_volume(path).array.shape == theirs.shape[:3]


@pytest.mark.parametrize(
    "path",
    sorted(p for p in SKIMAGE.iterdir() if p.suffix in {".png", ".jpg", ".tif", ".npy", ".npz", ".gif"}),
    ids=lambda p: p.name,
)
def test_a_real_picture_of_scikit_images_is_read_or_says_why_not(path, tmp_path):
    (tmp_path / path.name).symlink_to(path)
    if path.suffix in {".npz", ".npy"}:
        images, said = opened(path)
        if images is None:
            assert "but neither 'images' nor MedMNIST" in said
            return
        np.testing.assert_allclose(images[7].pixels, np.load(path)[7], rtol=1e-6)
        return
    images, said = opened(tmp_path, max_bad="100%", look=False)
    if images is None:
        assert any(r in said for r in ("more than one picture", "holds no image", "16-bit colour")), said
        return
    image = images[0]
    with Image.open(path) as picture:
        kept = (
            picture
            if picture.mode in {"L", "RGB", "I;16"}
            else picture.convert("RGB" if picture.mode == "P" else "RGBA")
        )
        theirs = np.asarray(kept).astype(float)
    if theirs.ndim == 3 and theirs.shape[2] == 4:
        theirs = theirs[..., :3] * theirs[..., 3:] / 255  # over black
    np.testing.assert_allclose(image.pixels, theirs, atol=1)


def tiny_model():
    module = nn.Sequential(nn.Conv2d(1, 4, 8, 8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    sites = {"0": Site("0", "0", "output", "map", 4, 16)}
    return VisionModel(module.eval(), "py:tiny", InputContract(32, 32, 1), ("a", "b"), "logits", sites)


def identifiers(paths):
    """Return every string that says who, where or when, of all headers, nested ones too; and the folders' names."""
    found, makers = set(), set()

    def visit(dataset):
        makers.update(str(dataset.get(keyword, "")) for keyword in ("Manufacturer", "ManufacturerModelName"))
        for element in dataset:
            if element.VR == "SQ":
                for item in element.value or ():
                    visit(item)
            elif element.keyword in IDENTIFYING or element.VR in {"PN", "DA", "DT"}:
                values = element.value if isinstance(element.value, pydicom.multival.MultiValue) else [element.value]
                for value in values:
                    text = str(value)
                    found.update([text, *text.replace("=", "^").split("^")])

    for path in paths:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                header = pydicom.dcmread(path, stop_before_pixels=True, force=True)
                visit(header)
                visit(header.file_meta)
        except Exception:  # noqa: BLE001 — a header that pydicom cannot read names nobody we could look for
            continue
    kept = {text.strip(" \x00") for text in found}
    # some file has its manufacturer's name for an institution's: the former is an acquisition attribute
    return {text for text in kept if len(text) >= LEAST and not any(text in maker for maker in makers)}


def encodings(text):
    for encoding in ("utf-8", "utf-16-le", "utf-16-be", "latin-1"):
        try:
            yield text.encode(encoding)
        except UnicodeEncodeError:
            continue


def written_by(images, folder):
    torch.manual_seed(0)
    capture(tiny_model(), images, sites=["0"], out=folder / "activations")
    write_set_aside(folder / "set_aside.json", images)
    write_json(
        folder / "all.json",
        {
            "ids": images.ids, "groups": images.groups, "cases": images.cases, "notes": images.notes, "name": images.name,
            "attributes": [[a.name, a.measured] for a in images.attributes], "categories": dict(images.attributes.categories),
            "values": images.attributes.values, "flags": [f.to_json() for f in images.flags], "repr": repr(images.set_aside),
        },
    )  # fmt: skip


def test_no_identifier_of_a_real_header_is_in_anything_that_is_written(tmp_path, caplog, capfd):
    run = tmp_path / "run"
    images = open_images(PYDICOM, max_bad="100%", look=False)
    assert len(images) > 100
    assert images.set_aside
    written_by(images, run)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        images.hash  # noqa: B018 — reads every image once more, now with all warnings
    shown = capfd.readouterr()
    (run / "log.txt").write_text(
        "\n".join(
            [caplog.text, shown.out, shown.err, *(str(w.message) for w in warned if "pydicom" in str(w.filename))]
        )
    )
    looked_for = identifiers(dicom_files())
    assert len(looked_for) > 300
    for known in (
        "CompressedSamples",
        "1.3.6.1.4.1.5962.1.1.1.1.1.20040119072730.12322",
        "JFK IMAGING CENTER",
        "20040119",
    ):
        assert known in looked_for
    content = {p: p.read_bytes() for p in sorted(run.rglob("*")) if p.is_file()}
    assert sum(map(len, content.values())) > 50_000
    for path, data in content.items():
        for text in looked_for:
            # the store names the folder that was opened, as it was typed
            assert not any(e in data for e in encodings(text)), f"{text!r} of a header stands in {path.name}"
    folders = {part for p in dicom_files() for part in p.relative_to(PYDICOM).parts[:-1]}
    for number in (f for f in folders if f.isdigit()):  # folders that are called by the patient's number
        assert not any(number.encode() in data for data in content.values())


def test_the_search_would_find_an_identifier_that_leaks(tmp_path):
    header = pydicom.dcmread(PYDICOM / "test_files/CT_small.dcm")
    looked_for = identifiers([PYDICOM / "test_files/CT_small.dcm"])
    leak = f'{{"patient": "{header.PatientName}"}}'.encode()
    assert any(e in leak for text in looked_for for e in encodings(text))


def test_groups_follow_the_patient_and_the_key(tmp_path):
    folder = PYDICOM / "test_files/dicomdirtests"
    images = ImageSet.from_dicom(folder)
    patients = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.name.startswith("DICOMDIR"):
            header = pydicom.dcmread(path, stop_before_pixels=True, force=True)
            if "Rows" in header:
                patients.setdefault(str(header.PatientID), []).append(path)
    assert len(set(images.groups)) == len(patients)
    assert sorted(images.groups.count(g) for g in set(images.groups)) == sorted(map(len, patients.values()))
    assert ImageSet.from_dicom(folder).ids == images.ids
    other = ImageSet.from_dicom(folder, key=tmp_path / "other")
    assert not set(other.groups) & set(images.groups)
    key = tmp_path / "key"
    assert key.stat().st_mode & 0o077 == 0
    assert sha256_file(key) not in str(images.source)
    again = open_images(images.source)
    assert (again.ids, again.groups, again.intensity_ranges) == (images.ids, images.groups, images.intensity_ranges)
