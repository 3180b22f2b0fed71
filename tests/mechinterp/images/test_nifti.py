"""A volume's slices keep spacing and position; its blocks are no patients."""

import nibabel
import numpy as np
import pytest

from mechinterp.errors import ConfigError, ImagesError
from mechinterp.images.image_set import ImageSet
from mechinterp.images.nifti import slice_names
from mechinterp.images.opening import open_images


@pytest.fixture
def path(tmp_path):
    """Return a ball of radius 20 mm in voxels of 1 × 2 × 4 mm, stored from right to left."""
    shape, mm = (60, 30, 15), np.array([1.0, 2.0, 4.0])
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), axis=-1) * mm - (29.5, 29.0, 28.0)
    ball = (np.linalg.norm(grid, axis=-1) <= 20).astype(np.int16) * 1000
    affine = np.diag([*mm, 1.0])
    affine[:3, 3] = (-29.5, -29.0, -28.0)
    flipped = np.flip(ball, 0)
    affine[:, 3] += affine[:, 0] * 59
    affine[:, 0] *= -1
    nibabel.save(nibabel.Nifti1Image(flipped, affine), tmp_path / "ball.nii.gz")
    return tmp_path / "ball.nii.gz"


def test_slices_of_a_ball_have_the_area_of_their_circles(path):
    images = ImageSet.from_nifti(path, step_mm=4.0, min_area_mm2=1)
    assert len(images) == 9
    assert images.ids[0] == "axial-016mm"
    assert images.ids[5] == "axial+004mm"
    assert images.spacing_mm == ((2.0, 1.0),) * 9
    assert images.intensity_range == (0, 1000)
    z = images.attributes.column("slice_position")
    np.testing.assert_allclose(z, np.arange(-16, 17, 4))
    area = images.attributes.column("foreground_area")
    np.testing.assert_allclose(area, np.pi * (400 - z**2), rtol=0.05)
    assert images.attributes["foreground_area"].unit == "mm²"
    assert images[0].pixels.shape == (30, 60)
    assert images.name == "ball"
    assert not images.units_are_patients
    assert images.splits is None


@pytest.mark.parametrize(("axis", "n", "spacing"), [("coronal", 30, (4.0, 1.0)), ("sagittal", 60, (4.0, 2.0))])
def test_other_axes_keep_their_spacing(path, axis, n, spacing):
    images = ImageSet.from_nifti(path, axis, step_mm=1.0)
    assert len(images) == n
    assert images.spacing_mm[0] == spacing
    assert len(set(images.ids)) == n


def test_blocks_are_groups_and_neighbours_are_not_in_different_splits(path):
    images = ImageSet.from_nifti(path, step_mm=4, block_mm=16, gap_mm=8, pattern=("train", "test"), label="none")
    assert images.groups == ("block-0",) * 4 + ("block-1",) * 4 + ("block-2",) * 4 + ("block-3",) * 3
    train, test = images.where("train"), images.where("test")
    z = images.attributes.column("slice_position")
    assert np.abs(z[train][:, None] - z[test]).min() >= 8
    assert None in images.splits
    assert set(images.labels) == {"none"}


@pytest.mark.parametrize(
    "settings",
    [{}, {"axis": "coronal", "step_mm": 4.0, "intensity_range": (-5, 9), "pattern": ("train", "test"), "name": "b"}],
)
def test_the_source_opens_the_same_set_again(path, settings):
    images = ImageSet.from_nifti(path, **settings)
    again = open_images(images.source)
    assert again.hash == images.hash
    for what in ("ids", "groups", "splits", "spacing_mm", "intensity_range", "name", "source"):
        assert getattr(again, what) == getattr(images, what)


def test_a_volume_without_foreground_says_what_to_lower(path):
    with pytest.raises(ImagesError, match=r"no axial slice of .*ball\.nii\.gz has 5000 mm² above 0: lower one"):
        ImageSet.from_nifti(path, min_area_mm2=5000)
    assert len(ImageSet.from_nifti(path, step_mm=4, min_area_mm2=1, foreground_above=-1)) == 15


def test_settings_that_cannot_be_meant_are_named(path):
    with pytest.raises(ConfigError, match="axis is 'axal'"):
        ImageSet.from_nifti(path, "axal")
    with pytest.raises(ConfigError, match="black must be below white"):
        ImageSet.from_nifti(path, intensity_range=(3, 3))


def test_names_have_the_decimals_they_need_and_stay_unique():
    assert slice_names("axial", [-6.0, 0.0, 10.0]) == ("axial-006mm", "axial+000mm", "axial+010mm")
    assert slice_names("axial", [-1.5, -0.0, 1.5]) == ("axial-001.5mm", "axial+000.0mm", "axial+001.5mm")
    assert slice_names("axial", [0.0, 1 / 3, 2 / 3]) == ("axial+000.00mm", "axial+000.33mm", "axial+000.67mm")
    assert slice_names("axial", [0.0, 0.0]) == ("axial-0000", "axial-0001")
