"""A table beside DICOM files: labels, splits and attributes by file, series folder or patient."""

import numpy as np
import pytest
from made_dicom import write_dicom, write_series

from mechinterp.errors import AttributeTableError, ImagesError, LeakageError
from mechinterp.images import ImageSet, open_images

PATIENTS = ("MRN-1", "MRN-2", "MRN-3")


@pytest.fixture(autouse=True)
def _key(tmp_path, monkeypatch):
    monkeypatch.setenv("MECHINTERP_KEY_FILE", str(tmp_path / "secret" / "key"))


@pytest.fixture
def folder(tmp_path):
    """Three patients with a series of two slices each; their values tell them apart."""
    for i, patient in enumerate(PATIENTS):
        write_series(
            tmp_path / "scans" / f"series{i}",
            np.full((2, 6, 4), 1024 + 10 * i, np.int16),
            PatientID=patient,
            StudyInstanceUID=f"1.2.{i}",
            SeriesInstanceUID=f"1.2.{i}.1",
            KVP=120,
        )
    return tmp_path / "scans"


def table(folder, *lines, name="metadata.csv"):
    (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")


def by_value(images, values):
    """Order what is said of the images by the patient that their pixels tell."""
    return sorted({(float(images[i].pixels[0, 0]) / 10, value) for i, value in enumerate(values)})


def test_rows_of_patients_reach_all_their_images(folder):
    table(
        folder,
        "patient_id,label,split,lesion_area",
        "MRN-3,malignant,test,7.5",
        "MRN-1,benign,train,",
        "MRN-2,benign,train,2",
    )
    (folder / "dataset.yaml").write_text("name: lungs\nlicence: CC0\nattributes: {lesion_area: {unit: mm²}}\n")
    images = open_images(folder)
    assert by_value(images, images.labels) == [(0, "benign"), (1, "benign"), (2, "malignant")]
    assert by_value(images, images.splits) == [(0, "train"), (1, "train"), (2, "test")]
    areas = images.attributes.column("lesion_area")
    assert by_value(images, np.nan_to_num(areas, nan=-1).tolist()) == [(0, -1), (1, 2), (2, 7.5)]
    assert images.attributes["lesion_area"].unit == "mm²"
    assert images.attributes.names[0] == "lesion_area"  # what was given stands before what headers say
    assert "tube_voltage" in images.attributes.names
    assert (images.name, images.licence) == ("lungs", "CC0")
    assert "MRN" not in repr([images.ids, images.groups, images.notes, images.attributes])
    assert not any("no DICOM" in note for note in images.notes)
    again = open_images(images.source)
    assert (again.ids, again.labels, again.splits) == (images.ids, images.labels, images.splits)


def test_a_file_has_its_own_row_or_that_of_its_folder(folder):
    table(folder, "file_name,label", "series0,a", "series1/007.dcm,b", "series1,c")
    images = open_images(folder)
    assert len(images) == 4
    assert sorted(images.labels) == ["a", "a", "b", "c"]
    assert "2 images of no row of metadata.csv left out" in images.notes


def test_a_volume_takes_the_row_of_its_series_and_refuses_two(folder):
    table(folder, "file_name,label", "series0,a", "series2,c")
    images = ImageSet.from_dicom(folder, volumes=True)
    planes = ImageSet.from_arrays([images[i].pixels[0] for i in range(2)])
    assert by_value(planes, images.labels) == [(0, "a"), (2, "c")]
    table(folder, "file_name,label", "series0/000.dcm,a", "series0/007.dcm,c")
    with pytest.raises(ImagesError, match="do not share a row \\(row 2, row 3\\): name the folder of the series"):
        ImageSet.from_dicom(folder, volumes=True)


def test_patients_of_the_table_stand_for_those_of_anonymous_headers(tmp_path):
    for i in range(4):
        write_dicom(tmp_path / f"{i}.dcm", np.full((4, 4), i, np.int16), PatientID="anonymous")
    table(tmp_path, "file_name,patient", *[f"{i}.dcm,{'' if i == 3 else f'p{i // 2}'}" for i in range(4)])
    images = open_images(tmp_path)
    assert len(set(images.groups)) == 3  # p0 (two images), p1, and the header's for the one that the table leaves open
    assert not {"p0", "p1"} & set(images.groups)


def test_a_patient_in_the_table_is_the_same_as_in_the_header(folder):
    before = set(open_images(folder).groups)
    table(folder, "file_name,patient_id", *[f"series{i},{p}" for i, p in enumerate(PATIENTS)])
    assert set(open_images(folder).groups) == before


def test_a_column_of_the_table_goes_before_the_header(folder):
    table(folder, "patient_id,tube_voltage", "MRN-1,80", "MRN-2,80", "MRN-3,80", "MRN-4,80")
    images = open_images(folder)
    assert set(images.attributes.column("tube_voltage")) == {80}
    assert "1 row of metadata.csv without image" in images.notes


def test_a_description_alone_says_black_and_white(folder):
    (folder / "dataset.yaml").write_text("intensity_range: [-100, 100]\nunits_are_patients: false\n")
    images = open_images(folder)
    assert set(images.intensity_ranges) == {(-100.0, 100.0)}
    assert not images.units_are_patients
    assert images.name == "DICOM"
    assert ImageSet.from_dicom(folder, name="mine", window="lung").intensity_ranges[0] == (-1350, 150)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (("label", "a"), "neither a column 'file_name' .* nor 'patient_id'"),
        (("patient_id,spacing_row_mm", "MRN-1,2"), "'spacing_row_mm', which is not for DICOM: the headers' holds"),
        (("patient_id,lesion_mask_file_name", "MRN-1,m.png"), "not for DICOM: give it as DICOM-SEG"),
        (("patient_id,label", "MRN-1,a", "MRN-1,b"), "row 3: its images have row 2 already"),
        (("patient_id,label", ",a"), "row 2 names no patient: fill in patient_id"),
        (("patient_id,label", "4711,a"), "no row of metadata.csv is of an image here: patient_id must be as in the he"),
        (("file_name,label", "Mustermann.dcm,a"), "row 2: its file_name is not there"),
        (("file_name,label", "../series0,a"), "row 2: file_name must be the path of a file or folder below"),
        (("patient_id,split", "MRN-1,later"), "row 2: split 'later' is none"),
        (("patient_id,label", "MRN-1"), "row 2 does not have 2 cells"),
    ],
)
def test_a_table_that_cannot_be_meant_is_refused_in_one_line(folder, lines, said):
    table(folder, *lines)
    with pytest.raises(ImagesError, match=said) as caught:
        open_images(folder)
    assert "Mustermann" not in str(caught.value)


def test_spacing_in_the_description_a_word_among_numbers_and_a_patient_in_two_splits_are_refused(folder):
    table(folder, "file_name,split", "series0/000.dcm,train", "series0/007.dcm,test")
    with pytest.raises(LeakageError):
        open_images(folder)
    table(folder, "patient_id,area", "MRN-1,3", "MRN-2,large")
    with pytest.raises(AttributeTableError, match=r"metadata\.csv: .*area.*large"):
        open_images(folder)
    (folder / "dataset.yaml").write_text("spacing_mm: [1, 1]\n")
    with pytest.raises(ImagesError, match="says spacing_mm, but that of DICOM stands in the headers"):
        open_images(folder)
