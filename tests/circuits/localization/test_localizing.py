"""Maps know their place; methods agree with captum and with closed forms; nothing is left behind."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from localization_models import SIZE, hooks, one_thread, small_vit, spot_images, spot_model, vit_images

from circuits.localization import MapConfig, effect_maps, feature_maps, localize, show_images
from circuits.localization.explained import blurred, default_site
from circuits.localization.map_methods import METHODS, methods_for
from circuits.localization.maps import RelevanceMaps, cells_to_pixels, tile_weights
from mechinterp import logit
from mechinterp.errors import ConfigError, ImagesError, ShapeError, SiteError
from mechinterp.feature_encoder import Neurons
from mechinterp.images.preparation import Preparation
from mechinterp.token_grid import TokenGrid


@pytest.fixture(autouse=True, scope="module")
def _alone():
    with one_thread():
        yield


@pytest.mark.parametrize("method", list(METHODS))
def test_every_method_gives_a_map_of_input_pixels_and_leaves_the_model_as_it_was(method):
    vit = small_vit()
    x = vit_images(3)
    before, hooked = vit.module(x), hooks(vit.module)
    maps = localize(vit, x, logit("b"), method, batch=2)
    assert maps.values.shape == (3, 12, 12)
    assert np.isfinite(maps.values).all()
    assert torch.equal(vit.module(x), before)
    assert hooks(vit.module) == hooked
    assert all(p.grad is None for p in vit.module.parameters())


@pytest.mark.parametrize("method", methods_for(small_vit()))
def test_after_an_exception_no_hook_is_left(method):
    vit, x = small_vit(), vit_images(2)
    before, hooked = vit.module(x), hooks(vit.module)

    def failing(logits):
        raise RuntimeError("on purpose")

    if method == "rollout":  # it never asks for the metric
        return
    with pytest.raises(RuntimeError, match="on purpose"):
        localize(vit, x, failing, method)
    assert torch.equal(vit.module(x), before)
    assert hooks(vit.module) == hooked


@pytest.mark.parametrize("method", list(METHODS))
def test_batches_do_not_matter(method):
    vit, x = small_vit(), vit_images(5)
    whole, parts = (localize(vit, x, logit("a"), method, batch=b).values for b in (5, 2))
    np.testing.assert_allclose(whole, parts, rtol=1e-5, atol=1e-6)


def test_grad_cam_equals_captums_on_a_map():
    from captum.attr import LayerGradCam

    model, x = spot_model(), show_images(spot_model(), spot_images(4)).x
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.module.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    cam = LayerGradCam(model.module, model.module.stages[1]).attribute(x, target=1, relu_attributions=True)[:, 0]
    grid = model.site("stages.1").grid
    expected = cells_to_pixels(cam.detach().numpy(), grid, (SIZE, SIZE))
    found = localize(model, x, logit("spots"), "grad-cam", config=MapConfig(site="stages.1"))
    np.testing.assert_allclose(found.values, expected, rtol=1e-4, atol=1e-5)


def test_integrated_gradients_add_up_to_the_difference_from_the_reference():
    vit, x = small_vit(), vit_images(3)
    found = localize(vit, x, logit("c"), "integrated-gradients", config=MapConfig(steps=200, reference="black"))
    expected = vit.logits(x)[:, 2] - vit.logits(torch.zeros_like(x))[:, 2]
    np.testing.assert_allclose(found.values.sum((1, 2)), expected.detach().numpy(), rtol=2e-2, atol=2e-2)


def test_occlusion_equals_the_obvious_loop_where_squares_do_not_overlap():
    model = spot_model()
    x = show_images(model, spot_images(2)).x
    found = localize(model, x, logit("spots"), "occlusion", config=MapConfig(window_share=1 / 24, reference="black"))
    row, column = np.unravel_index(int(x[0, 0].argmax()), (SIZE, SIZE))
    changed = x.clone()
    changed[0, 0, row, column] = 0
    fall = (model.logits(x) - model.logits(changed))[0, 1].item()
    assert found.values[0, row, column] == pytest.approx(fall, rel=1e-4)


def test_rollout_knows_no_class_and_needs_attention():
    vit, x = small_vit(), vit_images(2)
    a, b = (localize(vit, x, logit(c), "rollout").values for c in ("a", "b"))
    np.testing.assert_array_equal(a, b)
    with pytest.raises(SiteError, match="no attention pattern"):
        localize(spot_model(), torch.zeros(1, 1, SIZE, SIZE), logit(1), "rollout")
    assert "rollout" not in methods_for(spot_model())


def test_noise_is_the_same_on_every_call_and_differs_between_images():
    x = torch.zeros(3, 1, SIZE, SIZE)
    a, b = (localize(spot_model(), x, logit(1), "random", batch=n).values for n in (1, 3))
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a[0], a[1])


def test_a_vits_default_site_is_the_last_that_can_still_reach_its_cls_token():
    assert default_site(small_vit()) == "blocks.1.hook_resid_pre"
    assert default_site(spot_model()) == "stages.1"
    with pytest.raises(SiteError, match="neither stages nor blocks"):
        default_site(replace(spot_model(), sites={}))


def test_a_map_leads_back_to_the_image_and_to_mm():
    model = spot_model()
    images = spot_images(2, spacing=(0.5, 0.25))
    maps = localize(model, images, logit("spots"), "integrated-gradients", preparation=Preparation(fit="stretch"))
    on_image = maps.on_image(0)
    np.testing.assert_allclose(on_image, maps.values[0], rtol=1e-5)
    row, column = maps.peak(0)
    assert maps.peak_mm(0) == pytest.approx(((row + 0.5) * 0.5, (column + 0.5) * 0.25))
    assert images.masks(0)["spot"][row, column]


def test_what_the_input_does_not_show_is_not_a_number_on_the_image():
    model = spot_model()
    wide = replace(spot_images(1), read=lambda _i: np.zeros((24, 48), np.float32), read_masks=None, spacing_mm=None)
    maps = localize(model, wide, logit("spots"), "centre", preparation=Preparation(fit="crop"))
    found = maps.on_image(0)
    assert np.isnan(found[:, :12]).all()
    assert np.isnan(found[:, 36:]).all()
    assert np.isfinite(found[:, 12:36]).all()


def test_cells_are_means_over_tiles_and_spread_linearly_between_centres():
    grid = TokenGrid(2, 2, (4.0, 4.0), (2.0, 2.0), (4.0, 4.0))
    cells = np.array([[[1.0, 3.0], [5.0, 7.0]]])
    painted = cells_to_pixels(cells, grid, (8, 8))
    assert painted[0, 0, 0] == 1
    assert painted[0, 0, 7] == 3
    # between the centres 2 and 6 of a row, at pixel centre 3.5: three eighths of the way
    assert painted[0, 0, 3] == pytest.approx(1 + 2 * 1.5 / 4)
    blocks = np.kron(cells[0], np.ones((4, 4)))[None].astype(np.float32)
    maps = RelevanceMaps(blocks, "m", "x", show_images(spot_model(), torch.zeros(1, 1, 8, 8)))
    np.testing.assert_allclose(maps.cells(grid), cells)
    rows, _ = tile_weights(grid, (6, 6))
    np.testing.assert_allclose(rows.sum(1), 1)


def test_blur_keeps_a_constant_image():
    x = torch.full((1, 3, 9, 9), 2.5)
    torch.testing.assert_close(blurred(x, 2.0), x)


def test_maps_of_features_and_of_their_effects():
    model, images = spot_model(), spot_images(4)
    site = "stages.0"
    found = feature_maps(model, images, Neurons(site, 2), [0])
    drive = effect_maps(model, images, logit("spots"), Neurons(site, 2), [0])
    for maps in (found, drive):
        for i in range(4):
            assert images.masks(i)["spot"][maps.peak(i)]
    # unit 1 is dead: it drives nothing
    assert not effect_maps(model, images, logit("spots"), Neurons(site, 2), [1]).values.any()
    # token by token, the parts add up to the whole effect
    shown = show_images(model, images)
    removed = model.logits(shown.x)[:, 1] - model.module.head.bias[1]
    np.testing.assert_allclose(drive.values.sum((1, 2)), removed.detach().numpy(), rtol=1e-3)
    with pytest.raises(ConfigError, match="give some of 0 to 1"):
        feature_maps(model, images, Neurons(site, 2), [2])
    with pytest.raises(ConfigError, match="2 weights for 1 features"):
        feature_maps(model, images, Neurons(site, 2), [0], weights=[1, 2])


def test_what_cannot_be_meant_is_refused():
    model = spot_model()
    x = torch.zeros(1, 1, SIZE, SIZE)
    with pytest.raises(ConfigError, match="there is no method 'gradcam': did you mean 'grad-cam'"):
        localize(model, x, logit(1), "gradcam")
    with pytest.raises(ConfigError, match="batch is 0"):
        localize(model, x, logit(1), batch=0)
    with pytest.raises(ImagesError, match="there is no image"):
        localize(model, x[:0], logit(1))
    with pytest.raises(ShapeError, match="2 groups for 1 images"):
        localize(model, x, logit(1), groups=["a", "b"])
    with pytest.raises(ConfigError, match="reference is 'white'"):
        MapConfig(reference="white")
    with pytest.raises(ConfigError, match="steps is 0"):
        MapConfig(steps=0)
    with pytest.raises(ConfigError, match="window_share is 2"):
        MapConfig(window_share=2)
    with pytest.raises(SiteError, match="has no grid"):
        localize(model, x, logit(1), "grad-cam", config=MapConfig(site="head"))
