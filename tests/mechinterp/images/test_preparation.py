"""A dot arrives where its placement says, proportions are physical, and intensities are those of the contract."""

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mechinterp.errors import ConfigError, ImagesError
from mechinterp.images.image_set import MedicalImage
from mechinterp.images.preparation import Preparation
from mechinterp.models.vision_model import InputContract

GREY_32 = InputContract(32, 32, channels=1, mean=(0.0,), std=(1.0,))


def image(pixels, **more):
    return MedicalImage("one", np.asarray(pixels, dtype=np.float32), **more)


def prepared(pixels, contract=GREY_32, spacing_mm=None, **settings_):
    return Preparation(**settings_).apply(image(pixels, spacing_mm=spacing_mm), contract)


fits = st.sampled_from(["pad", "stretch", "crop"])
spacings = st.one_of(st.none(), st.tuples(st.floats(0.3, 3), st.floats(0.3, 3)))


@settings(max_examples=200, deadline=None)
@given(
    fit=fits,
    shape=st.tuples(st.integers(8, 70), st.integers(8, 70)),
    size=st.tuples(st.integers(16, 64), st.integers(16, 64)),
    spacing_mm=spacings,
    margin=st.floats(0, 0.3),
    where=st.tuples(st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True)),
)
@example(fit="crop", shape=(8, 70), size=(16, 64), spacing_mm=(3.0, 0.3), margin=0.0, where=(0.5, 0.5))
def test_a_dot_arrives_where_its_placement_says(fit, shape, size, spacing_mm, margin, where):
    pixels = np.zeros(shape, dtype=np.float32)
    row, column = int(where[0] * shape[0]), int(where[1] * shape[1])
    pixels[row, column] = 1
    contract = InputContract(*size, channels=1)
    x, placement = prepared(pixels, contract, spacing_mm, fit=fit, margin=margin)
    expected = placement.to_input(np.array([row + 0.5, column + 0.5]))
    # A cropped dot, or one whose blur touches the edge of what is shown, has no centre of mass to compare with.
    first, last = placement.to_input(np.array([[0.0, 0.0], list(shape)]))
    reach = np.maximum(1 / np.asarray(placement.scale), 1) * 1.5 + 1
    low, high = np.maximum(first, margin * np.asarray(size)), np.minimum(last, (1 - margin) * np.asarray(size))
    if np.any(expected - reach < low) or np.any(expected + reach > high):
        return
    weights = x[0].astype(float)
    found = [(weights.sum(1 - axis) * (np.arange(size[axis]) + 0.5)).sum() / weights.sum() for axis in (0, 1)]
    np.testing.assert_allclose(found, expected, atol=1)


@given(
    fit=fits,
    shape=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    spacing_mm=spacings,
    margin=st.floats(0, 0.49),
)
def test_the_placement_alone_is_that_of_the_input(fit, shape, spacing_mm, margin):
    preparation = Preparation(fit, margin)
    _, placement = preparation.apply(image(np.zeros(shape), spacing_mm=spacing_mm), GREY_32)
    assert preparation.placement(shape, spacing_mm, GREY_32) == placement


def test_pad_centres_the_whole_image_by_hand():
    x, placement = prepared(np.ones((20, 40)), fit="pad")
    assert placement.scale == (1.25, 1.25)
    assert placement.offset == (-10.0, 0.0)
    assert x[0, :8].max() == 0
    assert x[0, 8:24].min() == 1
    assert x[0, 24:].max() == 0


def test_crop_fills_the_input_from_the_middle_by_hand():
    pixels = np.zeros((20, 40))
    pixels[:, 10:30] = 1
    x, placement = prepared(pixels, InputContract(20, 20, channels=1), fit="crop")
    assert x.min() == 1
    assert placement.scale == (1.0, 1.0)
    assert placement.offset == (0.0, 10.0)


def test_stretch_gives_up_the_proportions():
    x, placement = prepared(np.ones((20, 40)), fit="stretch")
    assert x.min() == 1
    assert placement.scale == (20 / 32, 40 / 32)


@pytest.mark.parametrize("fit", ["pad", "crop"])
def test_proportions_are_the_physical_ones(fit):
    # 24 mm × 24 mm, though the pixels are three times as high as wide.
    _, placement = prepared(np.ones((8, 24)), spacing_mm=(3.0, 1.0), fit=fit)
    millimetres = np.asarray(placement.scale) * (3.0, 1.0)
    np.testing.assert_allclose(millimetres, 0.75)


def test_a_margin_is_black_and_keeps_the_placement():
    x, placement = prepared(np.ones((24, 24)), margin=0.125)
    assert x[0, 4:28, 4:28].min() == 1
    assert x.sum() == 24 * 24
    np.testing.assert_allclose(placement.to_input(np.array([0.0, 0.0])), [4, 4])


def test_intensities_are_scaled_by_range_gain_and_contract():
    contract = InputContract(4, 4, channels=3, value_range=(-1.0, 1.0), mean=(0.0, 0.5, 0.0), std=(1.0, 1.0, 0.5))
    recorded = image(np.full((4, 4), 300.0), intensity_range=(100.0, 500.0))
    x, _ = Preparation(gain=1.5).apply(recorded, contract)  # (300 - 100) / 400 × 1.5 = 0.75 → 0.5 in -1..1
    np.testing.assert_allclose(x[:, 0, 0], [0.5, 0.0, 1.0], atol=1e-6)


def test_a_gain_clips_at_white_and_the_range_at_black():
    x, _ = Preparation(gain=4.0).apply(image([[-1.0, 0.5], [0.1, 9.0]]), InputContract(2, 2, channels=1))
    np.testing.assert_allclose(x[0], [[0, 1], [0.4, 1]], atol=1e-6)


def test_the_border_is_black_after_normalisation_too():
    contract = InputContract(8, 8, channels=1, mean=(0.5,), std=(0.25,))
    x, _ = prepared(np.ones((4, 8)), contract)
    assert x[0, 0, 0] == -2
    assert x[0, 4, 4] == 2


def test_grey_is_repeated_and_colour_mixed_by_luminance():
    grey, _ = prepared(np.full((4, 4), 0.25), InputContract(4, 4))
    assert grey.shape == (3, 4, 4)
    assert (grey == 0.25).all()
    colour = np.zeros((4, 4, 3))
    colour[..., 1] = 1
    mixed, _ = prepared(colour, InputContract(4, 4, channels=1))
    np.testing.assert_allclose(mixed, 0.587, atol=1e-6)
    kept, _ = prepared(colour, InputContract(4, 4))
    np.testing.assert_allclose(kept[:, 0, 0], [0, 1, 0])


@given(fit=fits, size=st.integers(4, 80))
@settings(max_examples=50, deadline=None)
def test_the_resize_is_that_of_torch_with_antialiasing(fit, size):
    pixels = np.random.default_rng(size).random((37, 37)).astype(np.float32)
    x, _ = prepared(pixels, InputContract(size, size, channels=1), fit=fit)
    twin = torch.nn.functional.interpolate(
        torch.from_numpy(pixels)[None, None], size=(size, size), mode="bilinear", antialias=True, align_corners=False
    )
    np.testing.assert_allclose(x[0], twin[0, 0].numpy(), atol=1e-5)


def test_hash_and_json_tell_preparations_apart_and_come_back():
    plain, other = Preparation(), Preparation("crop", 0.1, 0.8)
    assert Preparation.from_json(other.to_json()) == other
    assert plain.hash != other.hash
    assert Preparation(margin=0).hash == plain.hash


def test_a_setting_that_cannot_be_meant_is_named():
    with pytest.raises(ConfigError, match=r"fit is 'padd': did you mean 'pad'"):
        Preparation(fit="padd")
    with pytest.raises(ConfigError, match=r"margin is 0\.5"):
        Preparation(margin=0.5)
    with pytest.raises(ConfigError, match="gain is 0"):
        Preparation(gain=0)
    with pytest.raises(ConfigError, match=r"no setting 'gian': did you mean 'gain'"):
        Preparation.from_json({"gian": 1})


def test_an_image_that_cannot_be_given_to_the_model_is_named():
    with pytest.raises(ImagesError, match=r"'one' of shape \(4, 4, 2\).*3 channels"):
        prepared(np.zeros((4, 4, 2)), InputContract(4, 4))
    with pytest.raises(ImagesError, match="'one' has pixels that are no numbers"):
        prepared(np.full((4, 4), np.nan))
    with pytest.raises(ConfigError, match="mean has 2 values for 3 channels"):
        prepared(np.zeros((4, 4)), InputContract(4, 4, mean=(0.0, 1.0)))
