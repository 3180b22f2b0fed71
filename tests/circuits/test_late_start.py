"""A model that starts at a site does after it what the whole model does."""

import pytest
import torch
from small_models import one_thread, small_images, small_vit

from circuits import effects, mean, neurons
from circuits.late_start import starting_at
from circuits.planted.random_circuits import RandomCircuitConfig, random_circuit
from mechinterp import logit
from mechinterp.capturing import run_with_cache
from mechinterp.errors import SiteError


@pytest.fixture(autouse=True, scope="module")
def _alone():
    with one_thread():
        yield


@pytest.fixture(scope="module")
def whole():
    return small_vit(depth=3)


@pytest.fixture(scope="module")
def late(whole):
    return starting_at(whole, "blocks.0.hook_resid_post", small_images(2))


def test_logits_and_later_sites_are_the_whole_models(whole, late):
    x = small_images(5)
    inputs = late.inputs(x, batch=2)
    torch.testing.assert_close(late.logits(inputs), whole.logits(x), rtol=1e-9, atol=1e-9)
    sites = ["blocks.1.hook_resid_post", "blocks.2.hook_mlp_out"]
    found, expected = run_with_cache(late, inputs, sites), run_with_cache(whole, x, sites)
    for site in sites:
        torch.testing.assert_close(found[site], expected[site], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("method", ["exact", "attribution", "relevance"])
def test_effects_after_the_start_are_the_whole_models(whole, late, method):
    x, settings = small_images(4), {"method": method, "ablation": mean()}
    nodes = [neurons(whole, f"blocks.{k}.hook_resid_post") for k in (1, 2)]
    found = effects(logit(1), nodes, model=late, images=late.inputs(x), **settings)
    expected = effects(logit(1), nodes, model=whole, images=x, **settings)
    assert abs(found.per_image - expected.per_image).max() < 1e-5


def test_the_whole_model_is_itself_again_after_an_exception(whole, late):
    x = small_images(3)
    before = whole.logits(x)

    def failing(logits):
        raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        effects(failing, neurons(whole, "blocks.1.hook_resid_post"), model=late, images=late.inputs(x))
    assert torch.equal(whole.logits(x), before)


def test_a_site_that_something_bypasses_is_refused():
    planted = random_circuit(RandomCircuitConfig(kind="vit"), seed=0)
    site = next(name for name in planted.model.sites if name.endswith("hook_mlp_out"))
    with pytest.raises(SiteError, match="something bypasses site"):
        starting_at(planted.model, site, planted.images(2).x)
