"""Slices are upright whatever the file's axes, and lie where its affine says."""

import itertools
import sys

import nibabel
import numpy as np
import pytest

from mechinterp.errors import ConfigError, ImagesError, MissingDependencyError
from mechinterp.images.volume import Volume, load_volume

SHAPE = (5, 6, 7)  # left → right, posterior → anterior, inferior → superior
AFFINE = np.array([[2.0, 0, 0, -4], [0, 1.5, 0, -3], [0, 0, 3.0, -9], [0, 0, 0, 1]])


@pytest.fixture
def volume():
    return Volume(np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE), AFFINE)


def save(path, array, affine, **header):
    image = nibabel.Nifti1Image(array, affine)
    if header:
        image.header.set_slope_inter(**header)
    nibabel.save(image, path)
    return path


@pytest.mark.parametrize(
    ("axis", "corner_of_image", "voxel"),
    [
        ("axial", (0, 0), (0, 5, 3)),  # top left: left, anterior
        ("axial", (5, 4), (4, 0, 3)),  # bottom right: right, posterior
        ("coronal", (0, 0), (0, 3, 6)),  # top left: left, superior
        ("coronal", (6, 4), (4, 3, 0)),
        ("sagittal", (0, 0), (3, 5, 6)),  # top left: anterior, superior
        ("sagittal", (6, 5), (3, 0, 0)),
    ],
)
def test_corners_of_slices_are_the_voxels_they_should_be(volume, axis, corner_of_image, voxel):
    assert volume.plane(axis, 3)[corner_of_image] == volume.array[voxel]


def test_spacing_and_positions_by_hand(volume):
    assert volume.voxel_mm == (2.0, 1.5, 3.0)
    assert volume.plane_spacing_mm("axial") == (1.5, 2.0)
    assert volume.plane_spacing_mm("coronal") == (3.0, 2.0)
    assert volume.plane_spacing_mm("sagittal") == (3.0, 1.5)
    np.testing.assert_allclose(volume.positions_mm("axial"), [-9, -6, -3, 0, 3, 6, 9])
    np.testing.assert_allclose(volume.positions_mm("sagittal"), [-4, -2, 0, 2, 4])


def test_steps_are_whole_slices_and_at_least_one(volume):
    assert volume.every("axial", 6) == [0, 2, 4, 6]
    assert volume.every("axial", 0.1) == list(range(7))
    with pytest.raises(ConfigError, match="step_mm is 0"):
        volume.every("axial", 0)


def test_the_midline_is_the_column_of_zero_millimetres(volume):
    assert volume.midline_column("axial") == 2.5  # the centre of pixel 2, at x = 0 mm
    assert volume.midline_column("coronal") == 2.5
    assert volume.midline_column("sagittal") is None


def test_an_oblique_slice_lies_where_its_centre_does():
    angle = np.deg2rad(10)
    affine = np.eye(4)
    affine[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    volume = Volume(np.zeros((3, 5, 3)), affine)
    centre = affine @ [1, 2, 1, 1]
    assert volume.positions_mm("axial")[1] == pytest.approx(centre[2])


@pytest.mark.parametrize("signs", list(itertools.product([1, -1], repeat=3)))
@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_flipped_and_swapped_files_give_the_same_volume(volume, tmp_path, signs, order):
    turned, affine = volume.array.transpose(order), AFFINE[:, [*order, 3]].copy()
    for axis, sign in enumerate(signs):
        if sign < 0:
            turned = np.flip(turned, axis)
            affine[:, 3] += affine[:, axis] * (turned.shape[axis] - 1)
            affine[:, axis] *= -1
    again = load_volume(save(tmp_path / "a.nii.gz", turned, affine))
    np.testing.assert_array_equal(again.array, volume.array)
    np.testing.assert_allclose(again.affine, AFFINE, atol=1e-5)
    assert again.array.dtype == np.int16
    assert again.name == "a.nii.gz"


def test_slope_and_intercept_are_applied_and_nan_is_black(tmp_path):
    scaled = save(tmp_path / "a.nii", np.full(SHAPE, 3, dtype=np.int16), AFFINE, slope=2.0, inter=-1000.0)
    assert (load_volume(scaled).array == -994).all()
    holes = np.ones(SHAPE, dtype=np.float32)
    holes[0] = np.nan
    assert load_volume(save(tmp_path / "b.nii", holes, AFFINE)).array[0].max() == 0


@pytest.mark.parametrize(
    ("unit", "per_mm", "said"),
    [("meter", 1e-3, "metres"), ("micron", 1e3, "micrometres"), ("mm", 1.0, None), ("unknown", 1.0, None)],
)
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_lengths_are_millimetres_whatever_unit_the_file_states(tmp_path, kind, unit, per_mm, said):
    image = kind(np.zeros(SHAPE, dtype=np.uint8), np.diag([per_mm, per_mm, per_mm, 1]) @ AFFINE)
    image.header.set_xyzt_units(unit)
    nibabel.save(image, tmp_path / "a.nii")
    volume = load_volume(tmp_path / "a.nii")
    np.testing.assert_allclose(volume.affine, AFFINE, rtol=1e-6)
    assert volume.voxel_mm == pytest.approx((2.0, 1.5, 3.0))
    assert volume.positions_mm("axial")[:2] == pytest.approx([-9, -6])
    assert volume.stated_in == said


def test_a_unit_that_nifti_does_not_know_is_none(tmp_path):
    image = nibabel.Nifti1Image(np.zeros(SHAPE, dtype=np.uint8), AFFINE)
    image.header["xyzt_units"] = 5
    nibabel.save(image, tmp_path / "a.nii")
    assert load_volume(tmp_path / "a.nii").unit_mm is None


def test_a_mask_that_states_no_unit_is_in_its_volumes(tmp_path):
    image = nibabel.Nifti1Image(np.zeros(SHAPE, dtype=np.uint8), AFFINE)
    nibabel.save(image, tmp_path / "mask.nii")
    image.header.set_xyzt_units("micron")
    nibabel.save(image, tmp_path / "a.nii")
    volume, mask = load_volume(tmp_path / "a.nii"), load_volume(tmp_path / "mask.nii")
    volume.require_same_grid(mask)
    # one micrometre aside is half a voxel here
    moved = Volume(mask.array, mask.affine + np.array([[0, 0, 0, 1.0], *np.zeros((3, 4))]))
    with pytest.raises(ImagesError, match="does not lie on the grid"):
        volume.require_same_grid(moved)
    with pytest.raises(ImagesError, match="does not lie on the grid"):
        Volume(mask.array, AFFINE, unit_mm=1.0).require_same_grid(volume)


def test_a_series_needs_a_frame(tmp_path):
    series = np.stack([np.full(SHAPE, i, dtype=np.uint8) for i in range(3)], axis=-1)
    path = save(tmp_path / "a.nii", series, AFFINE)
    assert load_volume(path, frame=2).array.max() == 2
    with pytest.raises(ImagesError, match=r"a\.nii holds 3 volumes: choose one with frame=0 … frame=2"):
        load_volume(path)
    with pytest.raises(ImagesError, match="has no frame 3: it holds 3"):
        load_volume(path, frame=3)
    single = save(tmp_path / "b.nii", series[..., :1], AFFINE)
    assert load_volume(single).array.shape == SHAPE


def test_a_file_that_is_no_volume_is_named(tmp_path):
    save(tmp_path / "a.nii", np.zeros(SHAPE, dtype=np.uint8), AFFINE)
    with pytest.raises(ImagesError, match=r"b\.nii is not there: did you mean 'a\.nii'"):
        load_volume(tmp_path / "b.nii")
    with pytest.raises(ImagesError, match="is not there: there are none"):
        load_volume(tmp_path / "no" / "b.nii")
    (tmp_path / "text.nii").write_text("no volume")
    with pytest.raises(ImagesError, match=r"text\.nii cannot be read as NIfTI"):
        load_volume(tmp_path / "text.nii")
    whole = save(tmp_path / "c.nii.gz", np.random.default_rng(0).integers(0, 99, (20, 20, 20), np.uint8), AFFINE)
    whole.write_bytes(whole.read_bytes()[:-500])
    with pytest.raises(ImagesError, match=r"c\.nii\.gz cannot be read as NIfTI"):
        load_volume(whole)
    flat = save(tmp_path / "flat.nii", np.zeros((4, 4), dtype=np.uint8), AFFINE)
    with pytest.raises(ImagesError, match=r"flat\.nii has shape \(4, 4\): a volume has three axes"):
        load_volume(flat)
    colour = np.zeros(SHAPE, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    with pytest.raises(ImagesError, match="only volumes of one number per voxel"):
        load_volume(save(tmp_path / "rgb.nii", colour, AFFINE))


def test_without_nibabel_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "nibabel", None)
    with pytest.raises(
        MissingDependencyError, match=r"nibabel is not installed: pip install 'mechinterp-vision\[nifti\]'"
    ):
        load_volume(tmp_path / "a.nii")


def test_volumes_of_another_grid_are_refused(volume):
    volume.require_same_grid(Volume(np.zeros(SHAPE), AFFINE))
    with pytest.raises(ImagesError, match=r"'map' of shape \(5, 6, 8\) does not lie on the grid of 'volume'"):
        volume.require_same_grid(Volume(np.zeros((5, 6, 8)), AFFINE, "map"))
    with pytest.raises(ImagesError, match="does not lie on the grid"):
        volume.require_same_grid(Volume(np.zeros(SHAPE), np.eye(4)))


def test_an_axis_that_is_none_is_named(volume):
    with pytest.raises(ConfigError, match="axis is 'axail': did you mean 'axial'"):
        volume.plane("axail", 0)
