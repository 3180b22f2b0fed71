"""What a header says of the acquisition becomes numbers with units and named categories; nothing else does."""

import numpy as np
import pytest
from pydicom.dataset import Dataset

from mechinterp.attributes.acquisition import acquisition_of, acquisition_table
from mechinterp.attributes.table import Attribute


def header(**elements):
    made = Dataset()
    for keyword, value in elements.items():
        setattr(made, keyword, value)
    return made


CT = header(
    KVP="120", XRayTubeCurrent="250", Exposure="125", ExposureInuAs="125000", SliceThickness="0.625", Manufacturer="SIEMENS",
    ConvolutionKernel=["B30f", "1"], PatientAge="063Y", PatientSex="F", ContrastBolusAgent="Ultravist", Modality="CT",
    PatientName="Mustermann^Erika", StationName="CT-ROOM-3", StudyDate="20240102", Laterality="L",
)  # fmt: skip
MR = header(
    MagneticFieldStrength=3, RepetitionTime=2000.0, EchoTime=None, FlipAngle="", PatientAge="104Y", Modality="MR"
)


def test_numbers_have_units_and_words_are_categories():
    table = acquisition_table([acquisition_of(CT), acquisition_of(MR)])
    said = {a.name: (a.unit, a.kind, table.column(a.name).tolist()) for a in table}
    assert said["tube_voltage"][:2] == ("kV", "continuous")
    np.testing.assert_array_equal(said["tube_voltage"][2], [120, np.nan])
    np.testing.assert_array_equal(said["exposure"][2], [125, np.nan])  # µAs as mAs
    np.testing.assert_array_equal(said["field_strength"][2], [np.nan, 3])
    assert table.categories["modality"] == ("CT", "MR")
    assert table.categories["convolution_kernel"] == ("B30f, 1",)
    assert table.categories["laterality"] == ("L",)
    assert said["contrast_agent"] == ("", "binary", pytest.approx([1, np.nan], nan_ok=True))
    np.testing.assert_array_equal(said["patient_age"][2], [63, 90])  # the oldest are not told apart
    assert said["patient_age"][0] == "a"
    assert not {"echo_time", "flip_angle"} & set(said)
    for secret in ("Mustermann", "CT-ROOM-3", "20240102"):
        assert secret not in repr(table)


@pytest.mark.parametrize(
    ("text", "years"), [("002W", 14 / 365.25), ("018M", 1.5), ("004D", 4 / 365.25), ("x", None), ("", None)]
)
def test_ages_come_in_years(text, years):
    assert acquisition_of(header(PatientAge=text)).get("patient_age") == (
        None if years is None else pytest.approx(years)
    )


def test_an_enhanced_object_says_it_per_frame_or_for_all():
    def groups(thickness):
        measures = header(SliceThickness=thickness)
        return header(PixelMeasuresSequence=[measures])

    shared = header(FrameAnatomySequence=[header(FrameLaterality="R")])
    made = header(
        PerFrameFunctionalGroupsSequence=[groups(1), groups(2)],
        SharedFunctionalGroupsSequence=[shared],
        SliceThickness=9,
    )
    assert [acquisition_of(made, i)["slice_thickness"] for i in range(3)] == [1, 2, 9]
    assert acquisition_of(made)["laterality"] == "R"


def test_values_that_are_no_numbers_are_missing():
    made = Dataset()
    made.add_new(0x00180060, "LO", "high")
    assert acquisition_of(made) == {}
    made.add_new(0x00180060, "FD", float("inf"))
    assert acquisition_of(made) == {}
    assert len(acquisition_table([{}, {}])) == 2
    also = acquisition_table([{"depth": 2.0}], [Attribute("depth", "mm")])
    assert [(a.name, a.unit) for a in also] == [("depth", "mm")]
