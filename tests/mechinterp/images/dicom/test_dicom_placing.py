"""Spacing and position, from every place where a header may say them."""

import pytest
from made_dicom import sequence
from pydicom.dataset import Dataset

from mechinterp.images.dicom.placing import Spacing, orientation, position_mm, spacing_of
from mechinterp.images.dicom.voi import header_window


def header(**elements):
    made = Dataset()
    for keyword, value in elements.items():
        setattr(made, keyword, value)
    return made


@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        ({"Modality": "CT", "PixelSpacing": [0.5, 0.7]}, Spacing((0.5, 0.7), "patient")),
        ({"Modality": "DX", "ImagerPixelSpacing": [0.2, 0.1]}, Spacing((0.2, 0.1), "detector")),
        ({"Modality": "DX", "ImagerPixelSpacing": [0.2, 0.2], "PixelSpacing": [0.2, 0.2]}, Spacing((0.2, 0.2), "detector")),
        ({"Modality": "DX", "ImagerPixelSpacing": [0.2, 0.2], "PixelSpacing": [0.15, 0.15]}, Spacing((0.15, 0.15), "calibrated")),
        (
            {"Modality": "CR", "PixelSpacing": [0.2, 0.2], "PixelSpacingCalibrationType": "FIDUCIAL"},
            Spacing((0.2, 0.2), "calibrated"),
        ),
        (
            {"Modality": "MG", "ImagerPixelSpacing": [0.11, 0.11], "EstimatedRadiographicMagnificationFactor": 1.1},
            Spacing((0.1, 0.1), "magnification"),
        ),
        ({"Modality": "OT", "NominalScannedPixelSpacing": [0.3, 0.3]}, Spacing((0.3, 0.3), "scanned")),
        ({"Modality": "OT", "ImagerPixelSpacing": [0.3, 0.3]}, Spacing((0.3, 0.3), "detector")),
        ({"Modality": "CT", "PixelSpacing": [0, 0.5]}, None),
        ({"Modality": "CT"}, None),
    ],
)  # fmt: skip
def test_spacing_says_where_it_was_measured(elements, expected):
    found = spacing_of(header(**elements))
    if expected is None:
        assert found is None
    else:
        assert found.source == expected.source
        assert found.mm == pytest.approx(expected.mm)


def ultrasound(units=3, regions=1):
    one = {
        "PhysicalUnitsXDirection": units,
        "PhysicalUnitsYDirection": 3,
        "PhysicalDeltaX": 0.02,
        "PhysicalDeltaY": -0.05,
    }
    return header(Modality="US", SequenceOfUltrasoundRegions=[sequence(**one)[0] for _ in range(regions)])


def test_one_ultrasound_region_gives_millimetres_and_several_give_none():
    assert spacing_of(ultrasound()) == Spacing((0.5, 0.2), "ultrasound")
    assert spacing_of(ultrasound(regions=2)) is None
    assert spacing_of(ultrasound(units=4)) is None  # seconds


def test_a_position_lies_along_the_normal_of_its_plane():
    coronal = header(ImageOrientationPatient=[1, 0, 0, 0, 0, -1], ImagePositionPatient=[3, 40, 7])
    assert position_mm(coronal) == pytest.approx(40)
    axial = header(ImageOrientationPatient=[1, 0, 0, 0, 1, 0], ImagePositionPatient=[3, 40, 7])
    assert position_mm(axial) == pytest.approx(7)
    assert orientation(axial) == (1, 0, 0, 0, 1, 0)
    assert position_mm(header(ImagePositionPatient=[0, 0, 0])) is None
    assert position_mm(header(ImageOrientationPatient=[0] * 6, ImagePositionPatient=[0, 0, 0])) is None
    dose = header(
        ImageOrientationPatient=[1, 0, 0, 0, 1, 0], ImagePositionPatient=[0, 0, 7], GridFrameOffsetVector=[0, 2.5, 5]
    )
    assert position_mm(dose, 2) == pytest.approx(12)


@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        ({"WindowCenter": 40, "WindowWidth": 80}, (0, 79)),
        ({"WindowCenter": 40, "WindowWidth": 80, "VOILUTFunction": "LINEAR_EXACT"}, (0, 80)),
        ({"WindowCenter": 40, "WindowWidth": 80, "VOILUTFunction": "SIGMOID"}, (0, 80)),
        ({"WindowCenter": [40, 400], "WindowWidth": [80, 1800]}, (0, 79)),
        ({"WindowCenter": 40, "WindowWidth": 1}, None),
        ({"WindowCenter": 40}, None),
        ({}, None),
    ],
)
def test_the_headers_window_follows_its_function(elements, expected):
    assert header_window(header(**elements)) == expected


def test_a_voi_table_gives_the_range_that_it_maps():
    made = header(VOILUTSequence=sequence(LUTDescriptor=[256, 100, 8], LUTData=list(range(256))))
    assert header_window(made) == (100, 355)
    enhanced = header(
        SharedFunctionalGroupsSequence=sequence(FrameVOILUTSequence=sequence(WindowCenter=50, WindowWidth=101))
    )
    assert header_window(enhanced) == (-0.5, 99.5)
