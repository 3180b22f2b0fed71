"""A path or a source opens the images it means; anything else names what is near."""

from pathlib import Path

import nibabel
import numpy as np
import pydicom.data
import pytest
from PIL import Image

from mechinterp.errors import ConfigError, ImagesError
from mechinterp.images import ImageSet, open_images
from mechinterp.images import brain_template as template


@pytest.fixture
def place(tmp_path):
    (tmp_path / "scans").mkdir()
    Image.fromarray(np.zeros((4, 4), dtype=np.uint8)).save(tmp_path / "scans" / "a.png")
    nibabel.save(nibabel.Nifti1Image(np.ones((4, 4, 4), dtype=np.uint8), np.eye(4)), tmp_path / "head.nii.gz")
    (tmp_path / "notes.txt").write_text("hello")
    return tmp_path


def test_a_folder_and_a_volume_are_told_apart(place):
    assert open_images(place / "scans").source["kind"] == "folder"
    assert open_images(str(place / "head.nii.gz")).source["kind"] == "nifti"


def test_a_path_that_is_not_there_names_its_siblings(place):
    with pytest.raises(ImagesError, match=r"scan are not there: .* has no 'scan', did you mean 'scans'"):
        open_images(place / "scan")
    with pytest.raises(ImagesError, match=r"has no 'scna', did you mean 'scans'"):
        open_images(place / "scna" / "deeper" / "still")
    with pytest.raises(ImagesError, match=r"has no 'hed\.nii\.gz', did you mean 'head\.nii\.gz'"):
        open_images(place / "hed.nii.gz")


def test_a_file_of_another_kind_is_named(place):
    with pytest.raises(ImagesError, match=r"notes\.txt is none of these: a folder of pictures"):
        open_images(place / "notes.txt")


def test_a_source_that_cannot_be_opened_says_why():
    with pytest.raises(ImagesError, match="no source to open again"):
        open_images(ImageSet.from_arrays(np.zeros((1, 4, 4))).source)
    with pytest.raises(ImagesError, match="images of kind 'foldr' cannot be opened: did you mean 'folder'"):
        open_images({"kind": "foldr"})
    with pytest.raises(ImagesError, match="a source of kind 'folder' has a setting that is none"):
        open_images({"kind": "folder", "path": ".", "colour": 1})


def test_templates_have_names(monkeypatch):
    monkeypatch.setattr(template, "mni_template_slices", lambda: "mni")
    monkeypatch.setattr(template, "ch2_slices", lambda stripped=False: f"ch2 {stripped}")
    assert open_images("template:mni152") == "mni"
    assert open_images("template:ch2") == "ch2 False"
    assert open_images("template:ch2bet") == "ch2 True"
    with pytest.raises(ImagesError, match="there is no template 'mni': did you mean 'mni152'"):
        open_images("template:mni")


def test_what_a_path_holds_is_recognised_and_said(place, monkeypatch):
    monkeypatch.setenv("MECHINTERP_KEY_FILE", str(place / "key"))
    (place / "dicom").mkdir()
    for i, name in enumerate(("CT_small.dcm", "MR_small.dcm")):
        found = Path(pydicom.data.get_testdata_file(name, download=False)).read_bytes()
        (place / "dicom" / f"IM{i}").write_bytes(found)  # without a suffix, as scanners write them
    np.save(place / "a.npy", np.zeros((2, 4, 4)))
    expected = {
        "scans": "a folder of pictures", "head.nii.gz": "a NIfTI volume, sliced", "dicom": "DICOM", "dicom/IM0": "DICOM",
        "a.npy": "arrays", "folder:{}/scans": "a folder of pictures", "nifti:{}/head.nii.gz": "NIfTI volumes",
        "volumes:{}/head.nii.gz": "NIfTI volumes",
    }  # fmt: skip
    for spec, said in expected.items():
        images = open_images(spec.format(place) if "{}" in spec else place / spec)
        assert images.notes[0] == f"recognised as {said}"
        assert open_images(images.source).ids == images.ids
    assert open_images("phantom").name == open_images("phantom:fundus").name
    with pytest.raises(ConfigError, match="no phantom 'funds': did you mean 'fundus'"):
        open_images("phantom:funds")


def test_a_folder_of_several_kinds_asks_which(place):
    (place / "scans" / "head.nii.gz").write_bytes((place / "head.nii.gz").read_bytes())
    with pytest.raises(ImagesError, match=r"several kinds \(1 of .*\): say which with folder:.* or nifti:"):
        open_images(place / "scans")
    assert len(open_images(f"folder:{place / 'scans'}")) == 1
    assert open_images(f"volumes:{place / 'scans'}").axes == 3
    (place / "scans" / "metadata.csv").write_text("file_name\na.png\n")
    assert open_images(place / "scans").ids == ("a.png",)


def test_a_folder_of_none_says_what_was_looked_for(place):
    (place / "empty").mkdir()
    with pytest.raises(ImagesError, match=r"holds no image \(looked for a folder of pictures"):
        open_images(place / "empty")
    (place / "empty" / "metadata.csv").write_text("file_name\na.png\n")
    with pytest.raises(ImagesError, match=r"row 2: image 'a\.png' is not there"):
        open_images(place / "empty")


def test_a_window_and_a_key_reach_the_readers_that_take_them(place):
    assert open_images(place / "head.nii.gz", window="brain").intensity_range == (0, 80)
    assert open_images(f"nifti:{place}", window="0,10").intensity_ranges[0] == (-5, 5)
    with pytest.raises(ImagesError, match="a window is for DICOM and NIfTI"):
        open_images(place / "scans", window="brain")
    assert open_images(place / "scans", key=place / "key").ids != ("a.png",)


def test_a_volume_whose_head_has_a_face_is_flagged_when_it_is_looked_for(place, monkeypatch):
    monkeypatch.setattr("mechinterp.images.flags.head_volumes.has_face", lambda volume, voxel_mm: True)
    images = open_images(place / "head.nii.gz", max_bad=0)
    assert [f.kind for f in images.flags] == ["face"]
    assert any("may show a face" in note for note in images.notes)
    assert not open_images(place / "head.nii.gz").flags
    assert [f.kind for f in open_images(f"volumes:{place / 'head.nii.gz'}", max_bad=0).flags] == ["face"]
