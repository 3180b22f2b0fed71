"""A set keeps every image's physics and never lets a patient straddle a split."""

import hashlib
import json

import numpy as np
import pytest
from PIL import Image

from mechinterp.attributes.table import Attribute, AttributeTable
from mechinterp.errors import ImagesError, LeakageError
from mechinterp.images.image_set import ImageSet, MedicalImage
from mechinterp.images.opening import open_images


@pytest.fixture
def images():
    return ImageSet.from_arrays(
        np.arange(4 * 6, dtype=np.uint8).reshape(4, 2, 3),
        labels=["a", "b", "a", None],
        groups=["p1", "p1", "p2", "p3"],
        splits=["train", "train", "test", None],
        spacing_mm=(2.0, 1.0),
        attributes={"size": [1, 2, 3, 4]},
        units={"size": "mm"},
        name="four",
    )


def test_scaled_is_black_at_the_range_s_start_and_clipped_at_its_end():
    image = MedicalImage("x", np.array([[-5.0, 10.0], [60.0, 200.0]], dtype=np.float32), (10.0, 110.0))
    np.testing.assert_allclose(image.scaled(), [[0, 0], [0.5, 1]])


def test_an_image_carries_everything_known_of_it(images):
    image = images[1]
    assert (image.id, image.label, image.group, image.split) == ("1", "b", "p1", "train")
    assert image.spacing_mm == (2.0, 1.0)
    assert image.intensity_range == (0.0, 255.0)
    assert image.pixels.dtype == np.float32
    np.testing.assert_array_equal(image.pixels, [[6, 7, 8], [9, 10, 11]])
    assert [i.id for i in images] == ["0", "1", "2", "3"]


def test_a_subset_keeps_order_attributes_and_pixels_but_no_source(images):
    subset = images.subset([2, 0])
    assert subset.ids == ("2", "0")
    assert subset.labels == ("a", "a")
    assert subset.groups == ("p2", "p1")
    assert subset.splits == ("test", "train")
    assert subset.spacing_mm == ((2.0, 1.0),) * 2
    np.testing.assert_array_equal(subset.attributes.column("size"), [3, 1])
    np.testing.assert_array_equal(subset[0].pixels, images[2].pixels)
    assert subset.source == {}
    assert subset.subset([1])[0].id == "0"


def test_patients_set_apart_to_test_on_are_so_when_opened_again(tmp_path):
    (tmp_path / "metadata.csv").write_text("file_name,group\n0.png,a\n1.png,a\n2.png,b\n")
    for i in range(3):
        Image.fromarray(np.full((4, 4), i, dtype=np.uint8)).save(tmp_path / f"{i}.png")
    images = ImageSet.from_folder(tmp_path).tested_on(["b"])
    assert images.splits == ("train", "train", "test")
    assert open_images(images.source).splits == images.splits
    assert ImageSet.from_arrays(np.zeros((2, 4, 4))).tested_on(["1"]).splits == ("train", "test")


def test_a_split_can_be_opened_again(tmp_path):
    rows = ["file_name,split"]
    for i in range(4):
        Image.fromarray(np.full((3, 3), i, dtype=np.uint8)).save(tmp_path / f"{i}.png")
        rows.append(f"{i}.png,{'test' if i % 2 else 'train'}")
    (tmp_path / "metadata.csv").write_text("\n".join(rows) + "\n")
    some = ImageSet.from_folder(tmp_path).without(["1.png"]).of_split("test")
    assert some.ids == ("3.png",)
    again = open_images(json.loads(json.dumps(some.source)))
    assert again.ids == ("3.png",)
    assert again.hash == some.hash
    assert again.source == some.source


def test_where_finds_a_split_and_names_those_there_are(images):
    np.testing.assert_array_equal(images.where("train"), [0, 1])
    with pytest.raises(ImagesError, match=r"no split 'validation': it has \['test', 'train'\]"):
        images.where("validation")


def test_the_hash_is_that_of_names_shapes_types_and_bytes(images):
    digest = hashlib.sha256()
    for i in range(4):
        digest.update(f"{i} (2, 3) uint8\n".encode() + np.arange(6 * i, 6 * i + 6, dtype=np.uint8).tobytes())
    assert images.hash == digest.hexdigest()
    assert images.subset([0, 1, 2]).hash != images.hash


def test_mapped_changes_pixels_and_spacing_but_no_attribute(images):
    turned = images.mapped(lambda image: image.pixels.T, "turned", lambda s: (s[1], s[0]))
    np.testing.assert_array_equal(turned[0].pixels, images[0].pixels.T)
    assert turned.spacing_mm[0] == (1.0, 2.0)
    assert turned.name == "four, turned"
    assert turned.attributes is images.attributes
    assert images.mapped(lambda image: image.pixels, "same").spacing_mm == images.spacing_mm


def test_a_patient_in_two_splits_is_an_error_not_a_warning(images):
    with pytest.raises(LeakageError, match="split 'train' and split 'test'"):
        ImageSet(("a", "b"), lambda i: np.zeros((2, 2)), groups=("p", "p"), splits=("train", "test"))
    # An image in no split leaks nothing.
    ImageSet(("a", "b"), lambda i: np.zeros((2, 2)), groups=("p", "p"), splits=("train", None))


def test_an_image_that_names_no_patient_is_its_own_where_others_name_theirs():
    def read(i):
        return np.zeros((2, 2))

    some = ImageSet(("a", "b", "c", "d"), read, groups=("p", None, "p", None))
    assert some.groups == ("p", "image b", "p", "image d")
    assert some.subset([3, 0]).groups == ("image d", "p")
    assert some[1].group == "image b"
    assert ImageSet(("a", "b"), read, groups=(None, None)).groups is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ids": ()}, "'images' holds no image"),
        ({"ids": ("a", "a")}, "names an image twice"),
        ({"ids": ("a", "b"), "labels": ("x",)}, "2 images but 1 labels"),
        ({"ids": ("a", "b"), "spacing_mm": ((1.0, 1.0),)}, "2 images but 1 spacing_mm"),
        (
            {"ids": ("a",), "attributes": AttributeTable((Attribute("s", "mm"),), np.zeros((3, 1)))},
            "1 images but attributes of 3",
        ),
    ],
)
def test_what_does_not_fit_together_is_named(settings, message):
    with pytest.raises(ImagesError, match=message):
        ImageSet(read=lambda i: np.zeros((2, 2)), **settings)
