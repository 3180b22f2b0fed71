"""Every structure of an image set measured from its masks: in millimetres, from landmarks, within an organ, refused in words."""

import numpy as np
import pytest

from mechinterp.attributes.from_masks import attributes_from_masks
from mechinterp.attributes.shape import shape_attributes
from mechinterp.attributes.texture import texture_attributes
from mechinterp.errors import AttributeTableError
from mechinterp.images.image_set import ImageSet

SPACING = (0.5, 2.0)


def box(top, left, height, width, size=(40, 30)):
    mask = np.zeros(size, dtype=bool)
    mask[top : top + height, left : left + width] = True
    return mask


MASKS = (
    {"lesion": box(10, 4, 8, 3), "organ": box(4, 2, 24, 12), "disc": box(0, 0, 2, 2)},
    {"organ": box(4, 2, 24, 12), "disc": box(20, 10, 4, 4)},
)


def an_image_set(channels=0, **settings):
    rng = np.random.default_rng(0)
    pixels = [rng.uniform(0, 200, size=(40, 30, channels) if channels else (40, 30)) for _ in MASKS]
    made = {
        "ids": ("a", "b"), "read": lambda i: pixels[i], "intensity_range": (0.0, 200.0), "spacing_mm": (SPACING, SPACING),
        "read_masks": lambda i: MASKS[i], **settings,
    }  # fmt: skip
    return ImageSet(**made), pixels


def test_a_box_has_its_area_its_place_from_the_landmark_and_its_share_of_the_organ():
    images, _ = an_image_set()
    table = attributes_from_masks(images, ["lesion"], landmarks=["disc"], within="organ", texture=False)
    assert table["lesion_area"].unit == "mm²"
    assert table.column("lesion_area").tolist() == [8 * 3 * 1.0, 0.0]  # a pixel is half a millimetre by two
    # middle of the lesion (14, 5.5), of the disc (1, 1), in pixels
    assert table.column("lesion_below_disc")[0] == pytest.approx(13 * 0.5)
    assert table.column("lesion_right_of_disc")[0] == pytest.approx(4.5 * 2.0)
    assert table.column("lesion_share_of_organ").tolist() == pytest.approx([24 / 288, 0.0])
    assert np.isnan(table.column("lesion_largest_diameter")[1])


def test_all_masks_that_any_image_has_are_measured_as_one_by_one():
    images, pixels = an_image_set()
    table = attributes_from_masks(images)
    for name in ("disc", "lesion", "organ"):
        masks = [m.get(name, np.zeros((40, 30), dtype=bool)) for m in MASKS]
        shape = shape_attributes(masks, [SPACING] * 2, name)
        texture = texture_attributes([(p / 200).astype(np.float32) for p in pixels], masks, [SPACING] * 2, name)
        for alone in (shape, texture):
            for about in alone:
                assert table[about.name] == about
                np.testing.assert_allclose(table.column(about.name), alone.column(about.name), rtol=1e-5)
    assert len(table) == 2


def test_pixels_of_one_unit_are_measured_in_it():
    images, pixels = an_image_set(pixel_units=("HU", "HU"))
    table = attributes_from_masks(images, ["organ"])
    assert table["organ_mean"].unit == "HU"
    assert table.column("organ_mean")[0] == pytest.approx(pixels[0][MASKS[0]["organ"]].mean(), rel=1e-5)


def test_colour_is_measured_in_the_mean_of_its_channels():
    images, pixels = an_image_set(channels=3)
    found = attributes_from_masks(images, ["organ"]).column("organ_mean")[1]
    assert found == pytest.approx(pixels[1].mean(-1)[MASKS[1]["organ"]].mean() / 200, rel=1e-5)


def test_what_cannot_be_measured_is_refused_by_name():
    images, _ = an_image_set()
    with pytest.raises(AttributeTableError, match="no image has a mask 'lesions': did you mean 'lesion'"):
        attributes_from_masks(images, ["lesions"])
    unknown, _ = an_image_set(spacing_mm=(SPACING, None))
    with pytest.raises(AttributeTableError, match="image 'b' has no spacing"):
        attributes_from_masks(unknown)
    with pytest.raises(AttributeTableError, match="holds volumes"):
        attributes_from_masks(an_image_set(axes=3, spacing_mm=None)[0])
