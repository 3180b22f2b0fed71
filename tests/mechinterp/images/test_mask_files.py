"""What is inside of a mask, by what its values are."""

import numpy as np
import pytest
from PIL import Image

from mechinterp.attributes.from_masks import attributes_from_masks
from mechinterp.errors import ImagesError
from mechinterp.images.image_set import ImageSet
from mechinterp.images.mask_files import label_masks, read_mask_file


def saved(tmp_path, values):
    path = tmp_path / ("mask.npy" if values.dtype.kind in "fb" else "mask.png")
    if path.suffix == ".npy":
        np.save(path, values)
    else:
        Image.fromarray(values).save(path)
    return path


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0, 1]], np.uint8), [[False, True]]),
        (np.array([[0, 0]], np.uint8), [[False, False]]),
        (np.array([[127, 128, 255]], np.uint8), [[False, True, True]]),
        (np.array([[0, 12, 48, 9]], np.uint8), [[False] * 4]),  # a lesion smaller than a pixel
        (np.array([[100, 65535]], np.uint16), [[False, True]]),
        (np.array([[0.4, 0.5]]), [[False, True]]),
        (np.array([[True, False]]), [[True, False]]),
        (np.array([[[9, 9, 9], [255, 255, 255]]], np.uint8), [[False, True]]),
    ],
)
def test_inside_follows_the_type(tmp_path, values, expected):
    np.testing.assert_array_equal(read_mask_file(saved(tmp_path, values), "disc")["disc"], expected)


def test_what_is_no_mask_is_refused(tmp_path):
    with pytest.raises(
        ImagesError, match=r"a mask whose largest value is 3: save 0 and 255, or one file for each label"
    ):
        read_mask_file(saved(tmp_path, np.repeat(np.array([[0, 1, 2, 3]], np.uint8), 9, axis=0)))
    with pytest.raises(ImagesError, match="a mask in colour"):
        read_mask_file(saved(tmp_path, np.array([[[9, 8, 9], [255, 255, 255]]], np.uint8)))
    with pytest.raises(ImagesError, match=r"notes\.txt is not one of"):
        read_mask_file(tmp_path / "notes.txt")


@pytest.fixture
def folder(tmp_path):
    """Two images of 8 × 10 pixels; the second alone has a lesion, whose mask has half of its rows and columns."""
    for name in ("images", "masks/lesion"):
        (tmp_path / name).mkdir(parents=True)
    for i in range(2):
        Image.fromarray(np.full((8, 10), i, dtype=np.uint8)).save(tmp_path / "images" / f"{i}.png")
    Image.fromarray(np.full((4, 5), 255, dtype=np.uint8)).save(tmp_path / "masks" / "lesion" / "1.png")
    return tmp_path


def test_a_mask_of_another_size_than_its_image_is_refused_since_its_pixels_have_another_size_in_mm(folder):
    images = ImageSet.from_folder(folder, spacing_mm=0.5)
    with pytest.raises(
        ImagesError, match=r"'lesion' of image 'images/1.png' is 4 × 5 pixels, the image 8 × 10: resample"
    ):
        images.masks(1)
    with pytest.raises(ImagesError, match="resample"):
        attributes_from_masks(images, texture=False)


def test_what_an_image_has_no_mask_of_is_nowhere_in_it(folder):
    images = ImageSet.from_folder(folder)
    Image.fromarray(np.eye(8, 10, dtype=np.uint8)).save(folder / "masks" / "lesion" / "1.png")
    assert images.mask(0, "lesion").tolist() == np.zeros((8, 10), dtype=bool).tolist()
    assert images.mask(1, "disc", "lesion").tolist() == np.eye(8, 10, dtype=bool).tolist()
    assert images.mask(1).shape == (8, 10)
    assert not images.mask(1).any()


def test_a_label_volume_is_a_mask_for_each_label():
    found = label_masks(np.array([0, 1, 4, 4.0]), "brats")
    assert set(found) == {"1", "4"}
    assert found["4"].tolist() == [False, False, True, True]
    assert set(label_masks(np.array([0, 1]), "one")) == {"mask"}
    with pytest.raises(ImagesError, match="it is no label map"):
        label_masks(np.array([0.0, 0.5]), "shares")
