"""Relevance of nodes adds up to the metric, is the exact effect of a linear tail, and leaves nothing behind."""

import pytest
import torch
from localization_models import hooks, one_thread, small_vit, spot_images, spot_model, vit_images

from circuits import effects, heads, neurons, zero
from circuits.localization import LrpRules, node_relevance, show_images
from mechinterp import logit

PLAIN = LrpRules(conv_gamma=0, linear_gamma=0, attention="constant")


@pytest.fixture(autouse=True, scope="module")
def _alone():
    with one_thread():
        yield


@pytest.mark.parametrize("site", ["blocks.0.hook_resid_pre", "blocks.0.hook_resid_post", "blocks.1.hook_resid_pre"])
def test_without_biases_a_sites_neurons_add_up_to_the_logit(site):
    vit, x = small_vit(bias=False), vit_images(3)
    found = node_relevance(vit, x, logit("b"), neurons(vit, site), rules=PLAIN, batch=2)
    assert found.shape == (3, 10, 8)
    torch.testing.assert_close(found.sum((1, 2)), vit.logits(x)[:, 1].detach(), rtol=1e-3, atol=1e-4)


def test_of_a_linear_tail_it_is_the_exact_effect_of_zeroing():
    model = spot_model()
    x = show_images(model, spot_images(4)).x
    nodes = neurons(model, "stages.1")
    found = node_relevance(model, x, logit("spots"), nodes, rules=PLAIN).sum(1)
    exact = effects(logit("spots"), nodes, model=model, images=x, ablation=zero()).values[:, :, 0]
    torch.testing.assert_close(-found, torch.from_numpy(exact), rtol=1e-4, atol=1e-4)


def test_heads_are_nodes_too():
    vit, x = small_vit(), vit_images(2)
    found = node_relevance(vit, x, logit("a"), heads(vit, "blocks.0.attn.hook_z"))
    assert found.shape == (2, 10, 2)


def test_after_an_exception_no_hook_is_left():
    vit, x = small_vit(), vit_images(2)
    before = vit.module(x)

    def failing(logits):
        raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        node_relevance(vit, x, failing, neurons(vit, "blocks.0.hook_resid_post"))
    assert hooks(vit.module) == 0
    assert torch.equal(vit.module(x), before)


def test_a_circuits_map_shows_where_its_deepest_placed_nodes_act():
    from circuits import find_circuit
    from circuits.localization import circuit_maps

    model, images = spot_model(), spot_images(8)
    circuit = find_circuit(
        model, show_images(model, images).x, metric=logit("spots"), sites=["stages.0", "stages.1"], ablation=zero()
    )
    maps = circuit_maps(circuit, images)
    assert maps.method == "circuit"
    assert "stages.1" in maps.note
    # a cell of the second stage stands for two pixels: the peak lies in the spot or at its border
    from scipy.ndimage import binary_dilation

    assert all(binary_dilation(images.masks(i)["spot"])[maps.peak(i)] for i in range(8))
