"""Real heads: upright, in millimetres, with attributes that make anatomical sense."""

import gzip
import shutil
import sys

import nibabel
import numpy as np
import pytest

from mechinterp.errors import ImagesError, MissingDependencyError
from mechinterp.images import brain_template as template
from mechinterp.images.opening import open_images


@pytest.fixture(scope="module")
def mni():
    pytest.importorskip("nibabel")
    pytest.importorskip("nilearn", exc_type=ImportError)
    return template.mni_template_slices(step_mm=6.0)


def at(images, name):
    return images.ids.index(name)


def test_slices_lie_where_the_template_s_millimetres_say(mni):
    z = mni.attributes.column("slice_position")
    np.testing.assert_allclose(np.diff(z), 6)
    assert mni.ids[0] == "axial-066mm"
    assert mni.intensity_range == (0, 255)
    assert set(mni.spacing_mm) == {(1.0, 1.0)}
    assert mni[0].pixels.shape == (233, 197)
    assert not mni.units_are_patients
    assert "McConnell Brain Imaging Centre" in mni.licence


def test_anterior_is_up(mni):
    mask = mni[at(mni, "axial+000mm")].pixels > 0
    rows = np.flatnonzero(mask.any(axis=1))
    # The file's y runs from -134 mm; the brain from about -104 (occipital) to +72 mm (frontal): more black behind.
    assert rows[0] == pytest.approx(98 - 72, abs=3)
    assert rows[-1] == pytest.approx(98 + 104, abs=3)


def test_the_template_is_symmetric_about_its_midline(mni):
    pixels = mni[at(mni, "axial+018mm")].pixels
    np.testing.assert_array_equal(pixels, pixels[:, ::-1])
    assert "asymmetry" not in mni.attributes.names


def test_attributes_make_anatomical_sense(mni):
    attributes = mni.attributes
    middle, top = at(mni, "axial+006mm"), at(mni, "axial+066mm")
    assert 18_000 < attributes.column("brain_area")[middle] < 23_000
    assert attributes.column("deep_csf_area")[at(mni, "axial+018mm")] > 600  # the lateral ventricles
    assert attributes.column("deep_csf_area")[top] < 200  # only the fissure
    assert attributes.column("white_fraction")[at(mni, "axial+030mm")] > attributes.column("white_fraction")[0]
    total = sum(attributes.column(f"{t}_fraction") for t in ("grey", "white", "csf"))
    np.testing.assert_allclose(total, 1, atol=1e-6)
    assert set(np.round(attributes.column("orientation"))) <= {0, 90}  # symmetric: long or wide, never askew
    assert "MNI ICBM152" in attributes["grey_fraction"].measured
    assert not np.isnan(attributes.values).any()


def test_the_volume_of_the_brain_is_the_template_s(mni):
    litres = mni.attributes.column("brain_area").sum() * 6 / 1e6
    assert litres == pytest.approx(1.8865, rel=0.01)  # voxels above zero in the T1 file, 1 mm³ each


def test_the_source_opens_the_same_slices_again():
    images = template.mni_template_slices(8.0, min_area_mm2=5000, pattern=("train", "test"), label="notumor")
    again = open_images(images.source)
    assert again.hash == images.hash
    assert again.splits == images.splits
    assert again.source == images.source
    assert set(again.labels) == {"notumor"}
    assert images.attributes.column("brain_area").min() >= 5000
    z = images.attributes.column("slice_position")
    train, test = images.where("train"), images.where("test")
    assert np.abs(z[train][:, None] - z[test]).min() >= 4


def test_too_much_brain_asked_for_says_what_to_lower():
    with pytest.raises(ImagesError, match=r"no slice of 'MNI152 template' has 1e\+06 mm² of brain: lower min_area_mm2"):
        template.mni_template_slices(30.0, min_area_mm2=1e6)


def test_the_template_is_found_without_importing_nilearn(monkeypatch):
    monkeypatch.setitem(sys.modules, "nilearn.datasets", None)
    assert template._mni_file("t1").is_file()


def test_without_the_template_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(template.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'mechinterp-vision\[brain-mri\]'"):
        template.mni_template_slices()


@pytest.fixture
def heads(tmp_path):
    """Write a head with three tissues and a skull, and the same without, under the names of Debian's package."""
    grid = np.stack(np.meshgrid(*[np.arange(48.0) - 23.5] * 3, indexing="ij"), axis=-1) * 4
    radius = np.linalg.norm(grid / (0.8, 1.0, 0.9), axis=-1)
    brain = np.select([radius < 20, radius < 50, radius < 70], [30, 118, 80], 0)
    brain[24:, :, :] = np.where(brain[24:] == 80, 85, brain[24:])  # the right is a little brighter
    skull = np.where((radius > 78) & (radius < 90), 200, 0)
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    affine[:3, 3] = -94
    for name, array in (("ch2", brain + skull), ("ch2bet", brain)):
        nibabel.save(nibabel.Nifti1Image(array.astype(np.uint8), affine), tmp_path / f"{name}.nii.gz")
    return tmp_path


def test_a_single_head_is_measured_by_its_own_mask_and_guessed_tissues(heads):
    images = template.ch2_slices(heads, step_mm=8, min_area_mm2=1000)
    stripped = template.ch2_slices(heads, step_mm=8, min_area_mm2=1000, stripped=True)
    assert images.ids == stripped.ids
    assert images.intensity_range == (0, 200)
    assert stripped.intensity_range == (0, 118)
    for name in ("brain_area", "grey_fraction", "white_fraction", "csf_fraction", "orientation"):
        np.testing.assert_array_equal(images.attributes.column(name), stripped.attributes.column(name))
    assert "guess by three Otsu classes" in images.attributes["grey_area"].measured
    assert (stripped.attributes.column("asymmetry") > 0).all()
    assert open_images(stripped.source).hash == stripped.hash
    assert "BSD-3-Clause" in images.licence
    middle = np.argmin(np.abs(images.attributes.column("slice_position")))
    z = images.attributes.column("slice_position")[middle]
    outer, inner = (np.pi * (r**2 - (z / 0.9) ** 2) * 0.8 for r in (70, 50))
    assert images.attributes.column("brain_area")[middle] == pytest.approx(outer, rel=0.05)
    assert images.attributes.column("grey_area")[middle] == pytest.approx(outer - inner, rel=0.06)


def test_a_missing_head_names_the_package_that_brings_it(tmp_path):
    with pytest.raises(
        ImagesError, match=r"ch2\.nii\.gz is not there: apt-get install mricron-data, or name its folder"
    ):
        template.ch2_slices(tmp_path)


def test_heads_of_two_grids_are_refused(heads):
    with gzip.open(heads / "ch2bet.nii.gz") as file:
        image = nibabel.Nifti1Image.from_bytes(file.read())
    shutil.copy(heads / "ch2.nii.gz", heads / "keep.nii.gz")
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj)[:40], image.affine), heads / "ch2bet.nii.gz")
    with pytest.raises(ImagesError, match=r"'ch2bet\.nii\.gz' .* does not lie on the grid"):
        template.ch2_slices(heads)


@pytest.mark.skipif(not (template.CH2_FOLDER / "ch2.nii.gz").is_file(), reason="Debian's mricron-data is not installed")
def test_the_real_single_head_is_upright_and_slightly_askew():
    images = template.ch2_slices(step_mm=8.0)
    z = images.attributes.column("slice_position")
    middle = int(np.argmin(np.abs(z - 10)))
    assert 15_000 < images.attributes.column("brain_area")[middle] < 22_000
    assert 0 < images.attributes.column("asymmetry")[middle] < 0.3
    assert abs(images.attributes.column("orientation")[middle]) < 10
