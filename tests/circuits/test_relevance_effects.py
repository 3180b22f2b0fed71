"""``effects(method="relevance")``: coefficients of relevance × change, for several sites in one backward pass."""

from contextlib import suppress

import numpy as np
import pytest
import torch
from small_models import one_thread, small_images, small_vit

from circuits import effects, heads, mean, neurons, zero
from circuits.localization import node_relevance
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
    alone = [node_relevance(vit, x, logit(1), nodes).sum(1).numpy() for nodes in sets]
    np.testing.assert_allclose(-found.per_image, np.concatenate(alone, axis=1), rtol=1e-4, atol=1e-5)
    assert found.passes == {"forward": 1, "backward": 1}


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

    with suppress(RuntimeError):
        effects(failing, neurons(vit, SITES[0]), model=vit, images=small_images(2), method="relevance")
    x = torch.tensor([-1.0, 2.0], requires_grad=True)
    torch.relu(x).sum().backward()
    assert x.grad.tolist() == [0.0, 1.0]
