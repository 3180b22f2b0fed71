"""A head with a face, without one, and what is no head: a drawn head, and real ones where they are installed."""

import numpy as np
import pytest

from mechinterp.images.brain_template import CH2_FOLDER, _mni_file
from mechinterp.images.flags.head_volumes import has_face
from mechinterp.images.volume import load_volume

MM = (2.0, 2.0, 2.0)


def head(*, face=True, scale=1.0):
    """Draw a skull, a brain and, below the forehead, a face with a nose; axes right, front, up; 2 mm."""
    x, y, z = (np.indices((90, 110, 120)) - np.array([45, 55, 0])[:, None, None, None]) * 2.0 / scale
    z = z - 20
    skull = (x / 75) ** 2 + (y / 95) ** 2 + ((z - 140) / 75) ** 2 < 1
    brain = (x / 65) ** 2 + (y / 83) ** 2 + ((z - 143) / 65) ** 2 < 1
    jaw = (np.abs(x) < 50) & (y > -10) & (y < 85) & (z > 20) & (z < 125)
    nose = (np.abs(x) < 12) & (y > 80) & (y < 105 - (z - 60) / 4) & (z > 60) & (z < 100)
    neck = (x / 50) ** 2 + ((y + 20) / 50) ** 2 < 1
    neck &= z < 100
    volume = np.zeros(x.shape, np.float32)
    volume[skull | neck] = 300
    if face:
        volume[jaw | nose] = 300
    volume[brain] = 700
    return volume


def test_a_face_is_seen_and_its_absence_too():
    assert has_face(head(), MM) is True
    assert has_face(head(face=False), MM) is False
    brain = np.where(head() == 700, 700, 0)
    assert has_face(brain, MM) is False
    assert has_face(head(scale=0.85), MM) is True
    assert has_face(np.repeat(head(), 2, axis=1), (2.0, 1.0, 2.0)) is True


def test_what_cannot_be_said_is_not_said():
    assert has_face(head()[:, :, 80:], MM) is None  # it ends above the nose
    assert has_face(head(), (0.5, 0.5, 0.5)) is None  # a doll's head
    assert has_face(np.zeros((20, 20, 20)), MM) is None
    assert has_face(np.full((20, 20, 20), np.nan), MM) is None


def test_noise_and_hounsfield_units_change_nothing():
    rng = np.random.default_rng(0)
    assert has_face(head() + rng.normal(0, 20, head().shape), MM) is True
    hounsfield = np.where(head() > 0, 40.0, -1000.0)
    assert has_face(hounsfield, MM) is True


def test_the_template_without_its_skull_has_no_face():
    volume = load_volume(_mni_file("t1"))
    assert has_face(volume.array, volume.voxel_mm) is False


@pytest.mark.skipif(not (CH2_FOLDER / "ch2.nii.gz").exists(), reason="Debian's mricron-data is not installed")
def test_a_real_head_has_a_face_until_it_is_cut_off():
    whole, stripped = (load_volume(CH2_FOLDER / name) for name in ("ch2.nii.gz", "ch2bet.nii.gz"))
    assert has_face(whole.array, whole.voxel_mm) is True
    assert has_face(stripped.array, stripped.voxel_mm) is False
    cut = whole.array.copy()
    cut[:, 150:, :75] = 0  # before the ears and below the brow
    assert has_face(cut, whole.voxel_mm) is False
