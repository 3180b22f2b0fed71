"""Folders of DICOM: order, names, windows, volumes, segmentations, and what is set aside."""

import logging
import warnings
from dataclasses import replace

import highdicom
import numpy as np
import pydicom
import pytest
from made_dicom import PATIENT, sequence, write_dicom, write_series
from pydicom.sr.codedict import codes

from mechinterp.attributes.from_masks import attributes_from_masks
from mechinterp.errors import AttributeTableError, ConfigError, ImagesError, MissingDependencyError
from mechinterp.images import ImageSet, open_images
from mechinterp.images.dicom.stacks import Turn

rng = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _key(tmp_path, monkeypatch):
    monkeypatch.setenv("MECHINTERP_KEY_FILE", str(tmp_path / "secret" / "key"))


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "scans"


def volume(*shape):
    return rng.integers(0, 2000, shape).astype(np.int16)


def test_slices_are_sorted_by_position_whatever_names_and_numbers_say(folder):
    stored = volume(5, 6, 4)
    write_series(folder, stored)
    images = ImageSet.from_dicom(folder)
    for i, plane in enumerate(stored):
        np.testing.assert_array_equal(images[i].pixels, plane - 1024.0)
    assert images.spacing_mm == ((0.5, 0.25),) * 5
    assert len(set(images.groups)) == len(set(images.cases)) == 1
    assert [name.rsplit("-", 1)[1] for name in images.ids] == ["0000", "0001", "0002", "0003", "0004"]


def test_nothing_that_is_kept_names_the_patient(folder, tmp_path):
    write_series(folder / "Mustermann_Erika", volume(3, 6, 4), InstitutionName="Charité", AccessionNumber="ACC-99-1")
    images = open_images(folder, max_bad="10%")
    said = repr(
        [images.ids, images.groups, images.cases, images.notes, images.attributes, images.name, images.set_aside]
    )
    for secret in (*PATIENT.values(), "Mustermann", "Erika", "Charité", "ACC-99-1", "1.2.840.99999"):
        assert secret not in said
    assert (tmp_path / "secret" / "key").read_text().strip() not in repr(images)


def test_warnings_of_pydicom_which_quote_values_reach_no_log(folder, caplog):
    write_dicom(folder / "a.dcm", volume(4, 4), StudyDate="Mustermann was here")
    with warnings.catch_warnings(record=True) as warned, caplog.at_level(logging.DEBUG):
        warnings.simplefilter("always")
        images = ImageSet.from_dicom(folder)
        images[0]
    assert "Mustermann" not in caplog.text
    assert not [w for w in warned if "Mustermann" in str(w.message)]


def test_other_patients_change_no_name(folder):
    write_series(folder / "a", volume(3, 6, 4))
    before = set(ImageSet.from_dicom(folder).ids)
    for i in range(3):
        other = {"PatientID": f"other{i}", "StudyInstanceUID": f"1.2.{i}", "SeriesInstanceUID": f"1.2.{i}.1"}
        write_series(folder / "b" / str(i), volume(3, 6, 4), **other)
    after = ImageSet.from_dicom(folder)
    assert len(after) == 12
    assert before < set(after.ids)
    assert len(set(after.groups)) == 4


def test_without_a_patient_the_study_stands_for_it(folder):
    write_dicom(folder / "a.dcm", volume(4, 4), remove=tuple(PATIENT))
    write_dicom(folder / "b.dcm", volume(4, 4), remove=tuple(PATIENT), StudyInstanceUID="1.2.3")
    named = {"remove": ("PatientID",), "StudyInstanceUID": "1.2.4"}
    write_dicom(folder / "c.dcm", volume(4, 4), **named)
    images = ImageSet.from_dicom(folder)
    assert len(set(images.groups)) == 3
    assert any("2 images that name no patient" in note for note in images.notes)


def test_a_window_is_named_given_the_headers_or_the_series(folder):
    stored = np.array([[0, 100], [1100, 3000]], dtype=np.int16)
    write_series(folder, np.stack([stored, stored // 2]))
    by_pixels = ImageSet.from_dicom(folder)
    assert by_pixels.intensity_ranges == ((-1024, 1976), (-1024, 1976))
    assert ImageSet.from_dicom(folder, window="lung").intensity_ranges == ((-1350, 150),) * 2
    assert ImageSet.from_dicom(folder, window="0,100")[0].intensity_range == (-50, 50)
    write_dicom(folder / "mr.dcm", stored, modality="MR", WindowCenter=50.5, WindowWidth=101)
    mixed = ImageSet.from_dicom(folder, window="soft tissue")
    assert set(mixed.intensity_ranges) == {(-147.5, 227.5), (0, 100)}
    with pytest.raises(ConfigError, match="there is no window 'lungs': did you mean 'lung'"):
        ImageSet.from_dicom(folder, window="lungs")
    with pytest.raises(ConfigError, match="window 'bone' is in HU, but no image is: give CENTRE,WIDTH"):
        ImageSet.from_dicom(folder / "mr.dcm", window="bone")


@pytest.mark.parametrize(
    "orientation",
    [(1, 0, 0, 0, 1, 0), (1, 0, 0, 0, 0, -1), (0, 1, 0, 0, 0, -1), (-1, 0, 0, 0, -1, 0), (0, 1, 0, 1, 0, 0)],
)
def test_a_volume_is_upright_whatever_plane_it_was_taken_in(folder, orientation):
    """A marked voxel at a known place in the patient lands where the convention says."""
    along_row, along_column = np.array(orientation[:3]), np.array(orientation[3:])
    normal = np.cross(along_row, along_column)
    stored = np.full((5, 6, 7), 1024, dtype=np.int16)
    stored[1, 4, 2] = 2024
    first = np.array([10.0, 20.0, 30.0])
    write_series(folder, stored, first=first, orientation=orientation, step=2.0, spacing=(0.5, 0.25))
    image = ImageSet.from_dicom(folder, volumes=True)[0]
    assert image.pixels.shape[0] * image.spacing_mm[0] in {10, 3, 1.75}
    # place of the mark in the patient (left, back, up), and of every corner
    place = first + 1 * 2.0 * normal + 4 * 0.5 * along_column + 2 * 0.25 * along_row
    ends = np.stack([first, first + 4 * 2.0 * normal + 5 * 0.5 * along_column + 6 * 0.25 * along_row])
    low, high = ends.min(0), ends.max(0)
    z, y, x = image.spacing_mm
    expected = round((place[2] - low[2]) / z), round((place[1] - low[1]) / y), round((high[0] - place[0]) / x)
    assert tuple(np.argwhere(image.pixels == 1000)[0]) == expected


def test_a_turn_that_changes_nothing_is_found():
    turn = Turn.of((-1, 0, 0, 0, 1, 0))
    assert turn.axes == (0, 1, 2)
    assert turn.flipped == (True, False, False)  # its normal points to the feet


def test_series_that_make_no_volume_are_set_aside_with_the_reason(folder):
    write_series(folder / "whole", volume(4, 6, 4))
    write_series(folder / "gap", volume(5, 6, 4), SeriesInstanceUID="1.2.1")
    (folder / "gap" / "014.dcm").unlink()
    write_dicom(folder / "one.dcm", volume(6, 4), SeriesInstanceUID="1.2.2")
    for i in range(2):
        write_dicom(folder / f"nowhere{i}.dcm", volume(6, 4), SeriesInstanceUID="1.2.3")
        write_dicom(folder / f"colour{i}.dcm", np.zeros((2, 2, 3), np.uint8), SeriesInstanceUID="1.2.4")
    images = ImageSet.from_dicom(folder, volumes=True)
    assert len(images) == 1
    assert sorted((s.reason, s.damaged) for s in images.set_aside) == [
        ("its series has one slice", False),
        ("its series is in colour", False),
        ("its slices are missing, doubled or unevenly spaced", True),
        ("its slices have no position", False),
    ]


def test_files_that_are_no_images_are_set_aside_by_number(folder):
    write_dicom(folder / "a Mustermann.dcm", volume(4, 4))
    (folder / "b Mustermann.dcm").write_bytes(b"nothing of the kind")
    write_dicom(folder / "c Mustermann.dcm", volume(4, 4), remove=["Rows", "PhotometricInterpretation", "PixelData"])
    (folder / "d.dcm").write_bytes((folder / "a Mustermann.dcm").read_bytes())
    (folder / "DICOMDIR").write_bytes(b"")
    (folder / "notes.txt").write_text("hello")
    (folder / ".hidden.dcm").write_text("hello")
    images = ImageSet.from_dicom(folder)
    assert len(images) == 1
    assert [(s.name, s.reason, s.damaged) for s in images.set_aside] == [
        ("file 2 of 4", "it is no DICOM file", True),
        ("file 3 of 4", "it holds no pixels (DICOM class 'CT Image')", False),
        ("file 4 of 4", "it is the same image as an earlier file", False),
    ]
    assert images.set_aside[0].path == folder / "b Mustermann.dcm"
    assert "Mustermann" not in str([s.to_json() for s in images.set_aside])
    assert "1 file in the folder that are no DICOM" in images.notes[1]


def test_flags_of_the_header_are_kept(folder):
    write_dicom(folder / "a.dcm", volume(4, 4), BurnedInAnnotation="YES", RecognizableVisualFeatures="YES")
    assert [f.kind for f in ImageSet.from_dicom(folder).flags] == ["burned-in text", "face"]


def segmentation_of(folder, masks):
    """Let highdicom write a segmentation of a series: two segments."""
    sources = sorted((pydicom.dcmread(p) for p in folder.glob("*.dcm")), key=lambda h: h.ImagePositionPatient[2])
    described = [
        highdicom.seg.SegmentDescription(
            number,
            label,
            codes.SCT.Organ,
            codes.SCT.Liver,
            highdicom.seg.SegmentAlgorithmTypeValues.MANUAL,
        )
        for number, label in ((1, "liver"), (2, "lesion"))
    ]
    return highdicom.seg.Segmentation(
        source_images=sources,
        pixel_array=np.stack(masks, axis=-1).astype(np.uint8),
        segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=described,
        series_instance_uid="1.2.840.99999.7",
        series_number=7,
        sop_instance_uid="1.2.840.99999.7.1",
        instance_number=1,
        manufacturer="ours",
        manufacturer_model_name="ours",
        software_versions="1",
        device_serial_number="1",
        omit_empty_frames=True,
    )


def test_segmentations_become_masks_of_their_images(folder):
    # highdicom wants the elements that a real scanner writes
    scanner = {
        "StudyID": "1", "StudyDate": "", "StudyTime": "", "AccessionNumber": "", "PatientSex": "", "SeriesNumber": 1,
        "FrameOfReferenceUID": "1.2.840.99999.5", "ReferringPhysicianName": "", "SliceThickness": 2.5,
    }  # fmt: skip
    write_series(folder, volume(4, 16, 16), **scanner)
    liver, lesion = np.zeros((2, 4, 16, 16), dtype=bool)
    liver[1:, 2:12, 3:9] = True
    lesion[2, 4:6, 4:6] = True
    segmentation_of(folder, [liver, lesion]).save_as(folder / "seg.dcm")
    images = ImageSet.from_dicom(folder)
    assert len(images) == 4
    for i in range(4):
        masks = images.masks(i)
        for name, mask in (("liver", liver[i]), ("lesion", lesion[i])):
            np.testing.assert_array_equal(masks.get(name, np.zeros((16, 16), bool)), mask)
    whole = ImageSet.from_dicom(folder, volumes=True).masks(0)
    np.testing.assert_array_equal(whole["lesion"], lesion[:, :, ::-1])
    np.testing.assert_array_equal(images.subset([2]).masks(0)["lesion"], lesion[2])
    assert images.mapped(lambda im: im.pixels, "same").read_masks is None


def test_a_fractional_segmentation_is_cut_at_half(folder):
    uid = "1.2.840.99999.8"
    write_dicom(folder / "a.dcm", volume(4, 4), SOPInstanceUID=uid)
    frame = sequence(
        SegmentIdentificationSequence=sequence(ReferencedSegmentNumber=1),
        DerivationImageSequence=sequence(SourceImageSequence=sequence(ReferencedSOPInstanceUID=uid)),
    )
    segments = pydicom.Sequence([sequence(SegmentNumber=n, SegmentLabel="x")[0] for n in (1, 2)])
    values = np.array([[0, 49, 50, 100]] * 4, dtype=np.uint8)
    write_dicom(
        folder / "seg.dcm", values, modality="SEG", SegmentationType="FRACTIONAL", MaximumFractionalValue=100,
        SegmentSequence=segments, PerFrameFunctionalGroupsSequence=frame,
    )  # fmt: skip
    np.testing.assert_array_equal(ImageSet.from_dicom(folder).masks(0)["x 1"][0], [False, False, True, True])
    write_dicom(
        folder / "seg.dcm", values[:3], modality="SEG", SegmentSequence=segments, PerFrameFunctionalGroupsSequence=frame
    )
    with pytest.raises(ImagesError, match=r"its segmentation is \(3, 4\), the image \(4, 4\)"):
        ImageSet.from_dicom(folder).masks(0)


def test_what_is_not_there_or_holds_nothing_says_so(folder, monkeypatch):
    with pytest.raises(ImagesError, match=r"DICOM folder .*scans is not there"):
        ImageSet.from_dicom(folder)
    folder.mkdir()
    with pytest.raises(ImagesError, match=r"holds no DICOM file .looked for 'DICM' after 128 bytes"):
        ImageSet.from_dicom(folder)
    (folder / "x.dcm").write_bytes(b"x")
    with pytest.raises(ImagesError, match=r"none of the 1 DICOM files .*file 1 of 1: it is no DICOM file"):
        ImageSet.from_dicom(folder)
    short = volume(4, 4)
    write_dicom(folder / "x.dcm", short, PixelData=short.tobytes()[:-4])
    with pytest.raises(ImagesError, match=r"no image of .* can be read \(its pixel data are cut short\)"):
        ImageSet.from_dicom(folder)
    monkeypatch.setitem(__import__("sys").modules, "pydicom", None)
    with pytest.raises(
        MissingDependencyError, match=r"pydicom is not installed: pip install 'mechinterp-vision\[dicom\]'"
    ):
        ImageSet.from_dicom(folder)


def test_old_files_without_a_preamble_are_read_too(folder):
    stored = volume(4, 4)
    path = write_dicom(folder / "a.dcm", stored)
    whole = pydicom.dcmread(path)
    bare = pydicom.Dataset({element.tag: element for element in whole})
    bare.save_as(folder / "b.dcm", implicit_vr=True, little_endian=True)
    path.unlink()
    np.testing.assert_array_equal(ImageSet.from_dicom(folder)[0].pixels, stored)


def test_a_head_that_slices_make_is_flagged_once(folder, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "mechinterp.images.flags.head_volumes.has_face", lambda volume, mm: seen.append((volume.shape, mm)) or True
    )
    write_series(folder, volume(4, 6, 8))
    images = open_images(folder, max_bad=0)
    assert [(f.kind, f.image) for f in images.flags] == [("face", images.ids[0])]
    assert seen == [((8, 6, 4), (0.25, 0.5, 2.5))]


def test_pixels_that_are_not_square_are_told_where_millimetres_do_not_say_so(tmp_path):
    tall = {"modality": "XA", "PixelAspectRatio": [2, 1], "remove": ("PixelSpacing",)}
    write_dicom(tmp_path / "a.dcm", np.zeros((4, 8), np.uint8), **tall)
    write_dicom(tmp_path / "b.dcm", np.zeros((4, 8), np.uint8), **{**tall, "PixelAspectRatio": [1, 1]})
    write_dicom(tmp_path / "c.dcm", np.zeros((4, 8), np.uint8), **tall, ImagerPixelSpacing=[0.4, 0.2])
    images = ImageSet.from_dicom(tmp_path)
    assert sorted(images.spacing_mm, key=str) == [(0.4, 0.2), None, None]
    (note,) = (note for note in images.notes if "PixelAspectRatio" in note)
    assert note.startswith("1 image whose pixels are not square")
    assert note.endswith("write PixelSpacing into the header")
    with pytest.raises(AttributeTableError, match=r"has no spacing.* of DICOM PixelSpacing in the header"):
        attributes_from_masks(replace(images, read_masks=lambda _: {"all": np.ones((4, 8), dtype=bool)}))


def test_slices_whose_pixels_differ_in_size_make_no_volume(folder):
    for i, spacing in enumerate(([0.5, 0.5], [0.5, 0.5], [0.25, 0.25])):
        where = {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "ImagePositionPatient": [0, 0, 2.0 * i]}
        write_dicom(folder / f"{i}.dcm", np.zeros((4, 4), np.int16), PixelSpacing=spacing, **where)
    assert [s[0] for s in ImageSet.from_dicom(folder).spacing_mm] == [0.5, 0.5, 0.25]
    with pytest.raises(ImagesError, match="its slices have pixels of different sizes"):
        ImageSet.from_dicom(folder, volumes=True)
