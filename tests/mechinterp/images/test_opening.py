"""A path or a source opens the images it means; anything else names what is near."""

import nibabel
import numpy as np
import pytest
from PIL import Image

from mechinterp.errors import ImagesError
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
