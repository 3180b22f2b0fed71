"""``effects(method="relevance")``: coefficients of relevance × change, for several sites in one backward pass."""

import numpy as np
import pytest
import torch
from small_models import both_runs, one_thread, planted_wiring, small_images, small_vit

from circuits import effects, heads, mean, neurons, resample, zero
from circuits.localization import node_relevance
from circuits.node_scores import site_gradients
from circuits.relevance_patching import PATCHING_RULES, relevance_coefficients
from mechinterp import logit
from mechinterp.errors import ConfigError

SITES = ("blocks.0.hook_resid_post", "blocks.1.hook_resid_post")


@pytest.fixture(autouse=True, scope="module")
def _alone():
    with one_thread():
        yield


@pytest.fixture(scope="module")
def vit():
    return small_vit()


def test_what_is_taken_away_is_the_relevance_that_a_node_has(vit):
    x, sets = small_images(5), [neurons(vit, site) for site in SITES]
    found = effects(logit(1), sets, model=vit, images=x, method="relevance", ablation=zero(), batch=2)
    alone = [node_relevance(vit, x, logit(1), nodes, rules=PATCHING_RULES).sum(1).numpy() for nodes in sets]
    np.testing.assert_allclose(-found.per_image, np.concatenate(alone, axis=1), rtol=1e-4, atol=1e-5)
    assert found.passes == {"forward": 1, "backward": 1}


def test_it_is_no_gradient_where_the_model_is_not_linear(vit):
    x, nodes = small_images(5), neurons(vit, SITES[0])
    near, plain = (effects(logit(1), nodes, model=vit, images=x, method=m) for m in ("relevance", "attribution"))
    assert np.abs(near.per_image - plain.per_image).max() > 0.01 * np.abs(plain.per_image).max()


def test_where_only_relus_lie_between_it_is_the_gradient():
    _, shown, wiring = planted_wiring("cnn")
    x = shown.x + 0.05 * torch.randn(shown.x.shape, generator=torch.Generator().manual_seed(0), dtype=shown.x.dtype)
    both = both_runs(wiring, x, mean())  # as drawn, sums of exactly 0 lie before some ReLUs, where a share has no value
    found, slopes = relevance_coefficients(wiring, both.clean), site_gradients(wiring, both.clean)
    for site in wiring.sites[1:]:
        active = both.clean.acts[site] > 0
        torch.testing.assert_close(found[site][active], slopes[site][active], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("ablation", [zero(), mean(), resample(2)], ids=lambda a: a.name)
def test_after_the_last_site_where_the_rest_is_linear_it_is_exact(ablation):
    _, shown, wiring = planted_wiring("cnn")
    last = wiring.layers[-1]
    settings = {"model": wiring.model, "images": shown.x, "ablation": ablation}
    exact, near = (effects(logit(1), last, method=m, **settings) for m in ("exact", "relevance"))
    np.testing.assert_allclose(near.per_image, exact.per_image, rtol=1e-5, atol=1e-5)  # the rules' stabiliser


def test_a_metrics_own_product_is_differentiated_as_it_is(vit):
    x, nodes = small_images(4), neurons(vit, SITES[1])
    settings = {"model": vit, "images": x, "method": "relevance", "ablation": zero()}
    product = effects(lambda z: z[:, 0] * z[:, 1], nodes, **settings).per_image
    one, two = (effects(logit(k), nodes, **settings) for k in (0, 1))
    chained = two.before[:, None] * one.per_image + one.before[:, None] * two.per_image
    np.testing.assert_allclose(product, chained, rtol=1e-4, atol=1e-5)


def test_heads_and_places_are_nodes_too(vit):
    x = small_images(3)
    nodes = heads(vit, "blocks.0.attn.hook_z", 2)
    settings = {"model": vit, "images": x, "method": "relevance", "ablation": mean()}
    places = effects(logit(1), nodes, resolution="token", **settings).values
    whole = effects(logit(1), nodes, **settings).values
    np.testing.assert_allclose(places.sum(2), whole[:, :, 0], atol=1e-5)


def test_rules_of_its_own_take_no_freeze(vit):
    with pytest.raises(ConfigError, match="has its own rules for attention and normalisation: give no freeze"):
        effects(
            logit(1), neurons(vit, SITES[0]), model=vit, images=small_images(2), method="relevance",
            freeze=frozenset({"norm"}),
        )  # fmt: skip


def test_after_an_exception_gradients_are_gradients_again(vit):
    def failing(logits):
        raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        effects(failing, neurons(vit, SITES[0]), model=vit, images=small_images(2), method="relevance")
    x = torch.tensor([-1.0, 2.0], requires_grad=True)
    torch.relu(x).sum().backward()
    assert x.grad.tolist() == [0.0, 1.0]
