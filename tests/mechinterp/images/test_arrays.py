"""Arrays become images with what is said of them."""

import numpy as np
import pytest

from mechinterp.attributes.table import Attribute, AttributeTable
from mechinterp.errors import ConfigError, ImagesError
from mechinterp.images.arrays import from_arrays


def test_defaults_name_images_in_order_and_find_the_range():
    images = from_arrays(np.zeros((11, 4, 4), dtype=np.uint8))
    assert images.ids[0] == "00"
    assert images.ids[10] == "10"
    assert images.intensity_range == (0, 255)
    assert images.source == {}
    assert images.units_are_patients


def test_images_may_differ_in_size_and_spacing():
    images = from_arrays([np.zeros((4, 5)), np.zeros((7, 3, 3))], spacing_mm=[(2, 1), None], ids=["a", "b"])
    assert images[0].spacing_mm == (2.0, 1.0)
    assert images[1].spacing_mm is None
    assert images[1].pixels.shape == (7, 3, 3)


def test_attributes_come_by_name_or_as_a_table():
    by_name = from_arrays(np.zeros((2, 4, 4)), attributes={"age": [1, None]}, units={"age": "years"}).attributes
    assert by_name["age"].unit == "years"
    assert np.isnan(by_name.column("age")[1])
    table = AttributeTable.from_columns([(Attribute("x", "mm"), [1, 2])])
    assert from_arrays(np.zeros((2, 4, 4)), attributes=table).attributes is table


def test_a_given_range_wins_and_is_checked():
    assert from_arrays(np.zeros((1, 2, 2)), intensity_range=(-100, 100)).intensity_range == (-100, 100)
    with pytest.raises(ConfigError, match="black must be below white"):
        from_arrays(np.zeros((1, 2, 2)), intensity_range=(1, 0))


@pytest.mark.parametrize(
    ("arrays", "settings", "message"),
    [
        (np.zeros((2, 3, 8, 8)), {}, r"array 0 of 'arrays' has shape \(3, 8, 8\)"),
        ([np.zeros((0, 4))], {}, r"shape \(0, 4\)"),
        (np.zeros((2, 4, 4)), {"labels": ["a"]}, "2 images but 1 labels"),
        (np.zeros((2, 4, 4)), {"attributes": {"x": [1]}}, "attribute 'x' has 1 values for 2 images"),
        (np.zeros((2, 4, 4)), {"spacing_mm": [1.0]}, "2 images but 1 spacing_mm"),
        (np.zeros((0, 4, 4), dtype=np.uint8), {"intensity_range": (0, 1)}, "holds no image"),
    ],
)
def test_what_does_not_fit_is_named(arrays, settings, message):
    with pytest.raises(ImagesError, match=message):
        from_arrays(arrays, **settings)
