"""Perturbations change what they say, keep the rest, and know what happens to the spacing."""

import numpy as np
import pytest

from mechinterp.errors import ConfigError
from mechinterp.images.image_set import ImageSet, MedicalImage
from mechinterp.images.perturbations import flipped, gain, margin, rotated, skull_ring, standard_perturbations


def disc(radius=20, size=90, spacing=(1.0, 1.0), value=600.0):
    r = (np.arange(round(size / spacing[0])) + 0.5) * spacing[0] - size / 2
    c = (np.arange(round(size / spacing[1])) + 0.5) * spacing[1] - size / 2
    away = np.hypot(*np.meshgrid(r, c, indexing="ij"))
    pixels = np.where(away <= radius, value, 100.0).astype(np.float32)
    return MedicalImage("disc", pixels, (100.0, 1100.0), spacing), away


def test_quarter_turns_go_counter_clockwise_and_swap_the_spacing():
    images = ImageSet.from_arrays(np.array([[[1, 2, 3], [4, 5, 6]]], dtype=np.uint8), spacing_mm=(2.0, 1.0))
    once = rotated(1).of(images)
    np.testing.assert_array_equal(once[0].pixels, [[3, 6], [2, 5], [1, 4]])
    assert once[0].spacing_mm == (1.0, 2.0)
    assert rotated(2).of(images)[0].spacing_mm == (2.0, 1.0)
    assert rotated(-1).name == "rotated by 270°"
    np.testing.assert_array_equal(rotated(4)(images[0]), images[0].pixels)
    back = rotated(3).of(once)
    np.testing.assert_array_equal(back[0].pixels, images[0].pixels)
    assert back[0].spacing_mm == images[0].spacing_mm


def test_flips_by_hand():
    image = MedicalImage("x", np.array([[1, 2], [3, 4]], dtype=np.float32))
    np.testing.assert_array_equal(flipped("left-right")(image), [[2, 1], [4, 3]])
    np.testing.assert_array_equal(flipped("up-down")(image), [[3, 4], [1, 2]])


def test_gain_counts_from_black_and_clips_at_white():
    image = MedicalImage("x", np.array([[100, 200, 1100]], dtype=np.float32), (100.0, 1100.0))
    np.testing.assert_allclose(gain(2)(image), [[100, 300, 1100]])
    np.testing.assert_allclose(gain(0.5)(image), [[100, 150, 600]])


def test_a_margin_is_black_and_proportional():
    image = MedicalImage("x", np.full((10, 20), 7, dtype=np.float32), (5.0, 9.0))
    wider = margin(0.1)(image)
    assert wider.shape == (12, 24)
    np.testing.assert_array_equal(wider[1:-1, 2:-2], image.pixels)
    assert wider[0].max() == wider[:, 1].max() == 5
    assert margin(0.1)(MedicalImage("c", np.ones((10, 10, 3), dtype=np.float32))).shape == (12, 12, 3)


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (2.0, 0.5), (0.5, 2.0)])
def test_the_ring_around_a_disc_is_a_ring_in_millimetres(spacing):
    image, away = disc(spacing=spacing)
    drawn = MedicalImage("ring", skull_ring(gap_mm=8, thickness_mm=10, brightness=0.8)(image), (100.0, 1100.0)).scaled()
    blur = max(spacing)
    np.testing.assert_allclose(drawn[away <= 20 - blur], 0.5)
    assert drawn[(away > 20 + blur) & (away < 28 - blur)].max() == 0
    np.testing.assert_allclose(drawn[(away > 28 + blur) & (away < 38 - blur)], 0.8)
    assert drawn[away > 38 + blur].max() == 0


def test_the_ring_follows_the_hull_of_all_large_parts_but_no_speck():
    pixels = np.zeros((100, 100), dtype=np.float32)
    pixels[40:60, 20:40] = pixels[40:60, 60:80] = 0.5  # two parts, a gap between them
    pixels[5, 5] = 1  # a speck
    drawn = skull_ring()(MedicalImage("x", pixels))
    assert drawn[50, 50] == 0  # between the parts: inside the hull, untouched
    assert drawn[50, 20 - 8] == pytest.approx(0.9)
    assert drawn[40 - 8, 50] == pytest.approx(0.9)
    assert drawn[5, 5] == 1
    assert drawn[8, 8] == 0


def test_an_empty_image_and_the_head_itself_stay_as_they_are():
    empty = MedicalImage("x", np.zeros((9, 9), dtype=np.float32))
    np.testing.assert_array_equal(skull_ring()(empty), empty.pixels)
    image, away = disc()
    np.testing.assert_allclose(skull_ring()(image)[away <= 20], image.pixels[away <= 20])
    colour = MedicalImage("c", np.repeat(image.pixels[..., None], 3, axis=-1), image.intensity_range)
    np.testing.assert_allclose(skull_ring()(colour)[..., 1], skull_ring()(image), atol=1e-3)


def test_the_standard_ones_have_names_of_their_own_and_keep_the_range():
    image, _ = disc()
    perturbations = standard_perturbations()
    assert len({p.name for p in perturbations}) == len(perturbations)
    for perturbation in perturbations:
        pixels = perturbation(image)
        assert pixels.dtype == np.float32
        assert pixels.min() >= 100
        assert pixels.max() <= 1100.001


def test_a_set_tells_its_perturbation():
    images = ImageSet.from_arrays(np.ones((2, 4, 4), dtype=np.uint8), name="two")
    changed = gain(0.8).of(images)
    assert changed.name == "two, gain 0.8"
    assert changed.source == {}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: flipped("sideways"), "cannot flip 'sideways'"),
        (lambda: gain(0), "gain is 0"),
        (lambda: margin(-1), "margin is -1"),
        (lambda: skull_ring(thickness_mm=0), "the ring wider than 0"),
        (lambda: skull_ring(brightness=2), "are fractions of white"),
    ],
)
def test_what_cannot_be_meant_is_named(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
