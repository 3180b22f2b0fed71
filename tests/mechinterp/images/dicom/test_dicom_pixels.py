"""Stored values become physical ones as the header says, each rule worked out by hand."""

import numpy as np
import pytest
from made_dicom import sequence, write_dicom

from mechinterp.errors import ImagesError, UnreadableImageError
from mechinterp.images import ImageSet

STORED = np.array([[0, 1, 2], [10, 100, 4095]], dtype=np.uint16)


@pytest.fixture(autouse=True)
def _key(tmp_path, monkeypatch):
    monkeypatch.setenv("MECHINTERP_KEY_FILE", str(tmp_path / "secret" / "key"))


def test_the_rescale_gives_hounsfield_units_in_ct_alone(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", STORED, bits=12, RescaleSlope=2, RescaleIntercept=-1000)
    image = ImageSet.from_dicom(path)[0]
    np.testing.assert_array_equal(image.pixels, STORED * 2.0 - 1000)
    assert image.unit == "HU"
    other = write_dicom(tmp_path / "b.dcm", STORED, bits=12, modality="MR", RescaleSlope=2, RescaleIntercept=-1000)
    assert ImageSet.from_dicom(other).pixel_units is None
    raw = write_dicom(tmp_path / "c.dcm", STORED, bits=12)
    assert ImageSet.from_dicom(raw).pixel_units is None


@pytest.mark.parametrize(
    ("modality", "elements", "factor", "unit"),
    [
        ("PT", {"RescaleSlope": 0.5, "RescaleIntercept": 0, "Units": "BQML"}, 0.5, "Bq/mL"),
        ("RTDOSE", {"DoseGridScaling": 0.01, "DoseUnits": "GY"}, 0.01, "Gy"),
        ("CT", {"RescaleSlope": 1, "RescaleIntercept": 0, "RescaleType": "MGML"}, 1, "mg/mL"),
        ("CT", {"RescaleSlope": 1, "RescaleIntercept": 0, "RescaleType": "US"}, 1, None),
    ],
)
def test_other_quantities_have_their_units(tmp_path, modality, elements, factor, unit):
    image = ImageSet.from_dicom(write_dicom(tmp_path / "a.dcm", STORED, bits=12, modality=modality, **elements))[0]
    np.testing.assert_allclose(image.pixels, STORED * factor, rtol=1e-6)
    assert image.unit == unit


def test_monochrome1_is_turned_round_and_what_surrounds_it_stays_dark(tmp_path):
    path = write_dicom(
        tmp_path / "a.dcm", STORED, bits=12, modality="MG", PhotometricInterpretation="MONOCHROME1", PixelPaddingValue=0
    )
    images = ImageSet.from_dicom(path)
    np.testing.assert_array_equal(images[0].pixels, [[0, 4094, 4093], [4085, 3995, 0]])
    assert "turned round" in " ".join(images.notes)


def test_hounsfield_units_are_never_turned_round(tmp_path):
    path = write_dicom(
        tmp_path / "a.dcm",
        STORED,
        bits=12,
        PhotometricInterpretation="MONOCHROME1",
        RescaleSlope=1,
        RescaleIntercept=-1024,
    )
    np.testing.assert_array_equal(ImageSet.from_dicom(path)[0].pixels, STORED - 1024.0)


def test_a_modality_table_goes_before_a_rescale(tmp_path):
    table = sequence(
        LUTDescriptor=[4, 1, 16], ModalityLUTType="OD", LUTData=np.array([7, 70, 700, 7000], dtype="<u2").tobytes()
    )
    path = write_dicom(tmp_path / "a.dcm", STORED, bits=12, modality="CR", ModalityLUTSequence=table)
    np.testing.assert_array_equal(ImageSet.from_dicom(path)[0].pixels, [[7, 7, 70], [7000, 7000, 7000]])


def test_colour_stays_as_deep_as_it_was(tmp_path):
    rgb = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    image = ImageSet.from_dicom(write_dicom(tmp_path / "a.dcm", rgb, modality="ES"))[0]
    np.testing.assert_array_equal(image.pixels, rgb)
    assert (image.intensity_range, image.unit) == ((0, 255), None)


def test_frames_of_one_file_are_images_with_their_own_rescale(tmp_path):
    frames = np.stack([STORED, STORED + 1])
    groups = [
        sequence(
            PixelValueTransformationSequence=sequence(RescaleSlope=1, RescaleIntercept=intercept, RescaleType="HU"),
            PlanePositionSequence=sequence(ImagePositionPatient=[0, 0, z]),
        )[0]
        for intercept, z in ((-1000, 5.0), (-2000, 1.0))
    ]
    shared = sequence(
        PixelMeasuresSequence=sequence(PixelSpacing=[0.5, 0.25], SliceThickness=4),
        PlaneOrientationSequence=sequence(ImageOrientationPatient=[1, 0, 0, 0, 1, 0]),
    )
    path = write_dicom(
        tmp_path / "a.dcm",
        frames,
        bits=13,
        PerFrameFunctionalGroupsSequence=groups,
        SharedFunctionalGroupsSequence=shared,
    )
    images = ImageSet.from_dicom(path)
    assert len(images) == 2
    np.testing.assert_array_equal(images[0].pixels, STORED + 1.0 - 2000)  # the lower position comes first
    np.testing.assert_array_equal(images[1].pixels, STORED - 1000.0)
    assert images.spacing_mm == ((0.5, 0.25),) * 2
    np.testing.assert_array_equal(images.attributes.column("slice_thickness"), [4, 4])
    np.testing.assert_array_equal(images.attributes.column("slice_position"), [1, 5])


def test_pixels_that_are_missing_or_cut_short_are_named_without_the_patient(tmp_path):
    short = write_dicom(
        tmp_path / "Mustermann.dcm", STORED, bits=12, PixelData=STORED.tobytes()[:-2], WindowCenter=1, WindowWidth=9
    )
    images = ImageSet.from_dicom(short)
    with pytest.raises(UnreadableImageError, match="its pixel data are cut short") as caught:
        images[0]
    assert "Mustermann" not in str(caught.value)
    none = write_dicom(tmp_path / "b.dcm", STORED, remove=["PixelData"], WindowCenter=1, WindowWidth=9)
    with pytest.raises(UnreadableImageError, match="it has no pixel data"):
        ImageSet.from_dicom(none)[0]


def test_a_rescale_that_cannot_be_meant_is_a_reason(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", STORED, RescaleSlope=0, RescaleIntercept=1)
    with pytest.raises(ImagesError, match="file 1 of 1: its rescale slope and intercept are 0 and 1"):
        ImageSet.from_dicom(path)
