"""Faces in photographs: scikit-image's hundred faces and hundred other pictures."""

from pathlib import Path

import numpy as np
import skimage
from PIL import Image

from mechinterp.images.flags.photographs import faces
from mechinterp.images.image_files import read_image_file

PICTURES = Path(skimage.__file__).parent / "data"


def coloured(grey, size):
    picture = Image.fromarray((grey * 255).astype(np.uint8)).resize((size, size), Image.Resampling.BICUBIC)
    return np.repeat(np.asarray(picture, dtype=np.float32)[..., None] / 255, 3, axis=-1)


def test_most_faces_are_found_and_few_other_pictures_are_taken_for_one():
    pictures = np.load(PICTURES / "lfw_subset.npy")  # the first hundred are faces
    found = np.array([bool(faces(coloured(p, 50))) for p in pictures])
    assert found[:100].mean() >= 0.85
    assert found[100:].mean() <= 0.03


def test_a_portrait_is_found_at_its_place_and_medical_photographs_are_not_flagged():
    portrait = read_image_file(PICTURES / "astronaut.png") / np.float32(255)
    top, left, bottom, right = faces(portrait)[0]
    assert top < 120 < bottom  # her nose
    assert left < 225 < right
    for name in ("retina.jpg", "ihc.png"):
        assert not faces(read_image_file(PICTURES / name) / np.float32(255))


def test_grey_and_tiny_pictures_are_not_looked_at():
    assert faces(np.ones((100, 100), np.float32)) == []
    assert faces(np.ones((10, 100, 3), np.float32)) == []
    assert faces(np.ones((60, 6000, 3), np.float32)) == []
