"""Where a preparation puts an image: against timm's and transformers' own processors, and by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mechinterp.errors import ImagesError
from mechinterp.images.fitting import fitted
from mechinterp.images.image_set import MedicalImage
from mechinterp.images.preparation import Preparation
from mechinterp.models.vision_model import InputContract

SHAPES = [(90, 60), (61, 97), (40, 40), (33, 51)]


def smooth(shape, seed=0):
    """Return an 8-bit picture without sharp edges, so that a shift by a part of a pixel is a small difference."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (6, 7), dtype=np.uint8))
    return np.asarray(small.resize((shape[1], shape[0]), Image.Resampling.BICUBIC))


def as_the_model(picture, contract):
    image = MedicalImage("i", picture.astype(np.float32), (0.0, 255.0), spacing_mm=(3.0, 0.5))
    return Preparation(fit="model").apply(image, contract)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("mode", "resize"), [("center", "crop"), ("squash", "stretch"), ("border", "pad")])
@pytest.mark.parametrize("size", [(32, 32), (32, 48)])
def test_the_models_own_resizing_is_timms(shape, mode, resize, size):
    from timm.data import create_transform

    contract = InputContract(*size, 1, mean=(0.0,), std=(1.0,), resize=resize, crop_fraction=0.875)
    ours, _ = as_the_model(smooth(shape), contract)
    transform = create_transform(
        (3, *size), interpolation="bilinear", crop_pct=0.875, crop_mode=mode, mean=(0,) * 3, std=(1,) * 3
    )
    theirs = transform(Image.fromarray(smooth(shape)).convert("RGB"))[0].numpy()
    difference = np.abs(ours[0] - theirs)
    # timm fills a border with its mean, and resizes in 8 bits; away from the border's edge both see the same pixels
    inside = theirs > 0 if mode == "border" else np.ones_like(theirs, dtype=bool)
    assert np.median(difference[inside]) < 1.5 / 255
    assert np.quantile(difference[inside], 0.98) < 4 / 255


@pytest.mark.parametrize("shape", SHAPES)
def test_the_models_own_resizing_is_transformers(shape):
    from transformers import CLIPImageProcessor, ViTImageProcessor

    picture = Image.fromarray(smooth(shape)).convert("RGB")
    clip = CLIPImageProcessor(size={"shortest_edge": 40}, crop_size=32, resample=2, do_normalize=False)
    vit = ViTImageProcessor(size={"height": 24, "width": 40}, resample=2, do_normalize=False)
    for processor, contract in (
        (clip, InputContract(32, 32, 1, mean=(0.0,), std=(1.0,), resize="crop", crop_fraction=32 / 40)),
        (vit, InputContract(24, 40, 1, mean=(0.0,), std=(1.0,), resize="stretch")),
    ):
        theirs = np.asarray(processor(picture, return_tensors="np")["pixel_values"])[0, 0]
        ours, _ = as_the_model(smooth(shape), contract)
        # theirs rounds the corner of an odd crop down, torchvision's to the even number: one pixel apart
        shifted = [np.abs(np.roll(ours[0], (i, j), (0, 1)) - theirs)[1:-1, 1:-1] for i in (0, 1) for j in (0, 1)]
        assert min(np.median(difference) for difference in shifted) < 1.5 / 255


def test_the_models_own_resizing_by_hand():
    contract = InputContract(32, 32, resize="crop", crop_fraction=0.8)
    # 60 × 90 -> 40 × 60, of which rows 4..36 and columns 14..46 are shown
    found = fitted("model", 0, (60, 90), (5.0, 1.0), contract)
    assert found.size == (32, 32)
    assert found.corner == (0, 0)
    assert found.start == pytest.approx((6, 21))
    assert found.stop == pytest.approx((54, 69))
    assert found.placement.scale == pytest.approx((1.5, 1.5))
    # the longer side to 40 and the other to 27, which needs no crop but a border above and below
    found = fitted("model", 0, (60, 90), None, InputContract(32, 32, resize="pad", crop_fraction=0.8))
    assert found.size == (27, 32)
    assert found.corner == (2, 0)
    assert found.placement.to_image([[2.0, 0.0]])[0] == pytest.approx([0, 9])


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(*[st.integers(3, 40)] * 3),
    spacing=st.tuples(*[st.floats(0.3, 5)] * 3),
    size=st.tuples(*[st.integers(8, 32)] * 3),
    fit=st.sampled_from(["pad", "crop", "stretch", "model"]),
)
def test_a_voxel_lights_up_where_the_placement_says(shape, spacing, size, fit):
    contract = InputContract(
        size[1], size[2], 1, mean=(0.0,), std=(1.0,), depth=size[0], resize="crop", crop_fraction=0.9
    )
    voxel = tuple(n // 2 for n in shape)  # the middle is never cut off
    pixels = np.zeros(shape, dtype=np.float32)
    pixels[voxel] = 1
    shown, placement = Preparation(fit=fit).apply(MedicalImage("v", pixels, spacing_mm=spacing, axes=3), contract)
    assert shown.shape == (1, *size)
    assert shown.max() > 0
    lit = np.argwhere(shown[0] > 0) + 0.5
    centre = placement.to_input(np.array([voxel]) + 0.5)[0]
    brightest = lit[np.argmax(shown[0][shown[0] > 0])]
    # linear interpolation reaches one pixel of the coarser of the two grids
    reach = np.maximum(1, 1 / np.asarray(placement.scale)) + 0.5
    assert (np.abs(lit - centre) <= reach + 1e-6).all()
    assert (np.abs(brightest - centre) <= np.maximum(0.5, 0.5 / np.asarray(placement.scale)) + 0.51).all()


def test_a_volume_keeps_its_physical_proportions_along_three_axes():
    # 10 slices 4 mm apart of 40 × 20 pixels of 1 mm: a cube of 40 mm, half of it wide
    found = fitted("pad", 0, (10, 40, 20), (4.0, 1.0, 1.0), InputContract(32, 32, depth=32))
    assert found.size == (32, 32, 16)
    assert found.corner == (0, 0, 8)
    assert found.placement.scale == pytest.approx((10 / 32, 1.25, 1.25))


def test_an_image_with_other_axes_than_the_model_is_named():
    with pytest.raises(
        ImagesError, match="the image of 3 axes cannot be given to a model of pictures: give its slices"
    ):
        fitted("pad", 0, (4, 5, 6), None, InputContract(8, 8))
    with pytest.raises(ImagesError, match="'v' of 2 axes cannot be given to a model of volumes: give whole volumes"):
        Preparation().apply(MedicalImage("v", np.zeros((4, 5), np.float32)), InputContract(8, 8, depth=8))
    with pytest.raises(ImagesError, match="the image of 2 axes has a spacing of 3: give one for each axis"):
        fitted("pad", 0, (4, 5), (1, 1, 1), InputContract(8, 8))
