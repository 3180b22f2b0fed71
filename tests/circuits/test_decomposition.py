"""Sums that must come out, and attention against timm's own."""

import numpy as np
import pytest
import torch
from small_models import one_thread, small_images, small_vit

from circuits import residual_decompose
from circuits.attention import attention_patterns, moved_by_patch, rollout, watching_attention
from circuits.decomposition import readout
from circuits.metrics import as_metric
from circuits.nodes import whole
from circuits.planted.by_hand import hand_made_vit
from circuits.saturation import query_key_effects
from circuits.wiring import Wiring
from mechinterp import intervene, logit, logit_difference, probability, run_with_cache
from mechinterp.errors import ConfigError, ShapeError, SiteError
from mechinterp.feature_encoder import Directions


@pytest.fixture(autouse=True, scope="module")
def _alone():
    with one_thread():
        yield


@pytest.fixture(scope="module")
def vit():
    return small_vit(3)


@pytest.fixture(scope="module")
def x():
    return small_images(4)


def test_heads_mlps_embedding_and_constant_sum_to_the_logit_difference(vit, x):
    found = residual_decompose(vit, x, logit_difference("a", "c"), batch=3)
    assert np.abs(found.remainder).max() < 1e-10
    assert len(found.names) == 2 + 3 * (2 + 1 + 1)
    z = vit.module(x).detach()
    assert np.allclose(found.metric, (z[:, 0] - z[:, 2]).numpy())
    assert sum(found.mean().values()) == pytest.approx(found.metric.mean())
    assert found.figure().data[0].measure[-1] == "total"


def test_a_heads_share_is_what_its_output_adds_under_a_held_norm(vit, x):
    """The slow twin: take the head's part out of the last residual stream by hand."""
    found = residual_decompose(vit, x, logit(1))
    with torch.no_grad():
        z = run_with_cache(vit, x, ["blocks.1.attn.hook_z"])["blocks.1.attn.hook_z"].clone()
        z[..., 4:] = 0
        wrote = z @ vit.module.blocks[1].attn.proj.weight.T
        final = run_with_cache(vit, x, ["blocks.2.hook_resid_post"])["blocks.2.hook_resid_post"]
        scale = (final.var(-1, unbiased=False, keepdim=True) + vit.module.norm.eps).rsqrt()
        normed = (wrote - wrote.mean(-1, keepdim=True)) * scale * vit.module.norm.weight
        slow = normed[:, 0] @ vit.module.head.weight[1]
    column = found.names.index("blocks.1 head 0")
    assert np.abs(found.values[:, column] - slow.numpy()).max() < 1e-9


def test_features_of_a_component_sum_to_it_with_their_error(vit, x):
    site = "blocks.1.hook_mlp_out"
    basis = torch.linalg.qr(torch.randn(8, 8, dtype=torch.float64))[0][:5]
    sae = Directions(site, basis, torch.zeros(8, dtype=torch.float64))
    split = residual_decompose(vit, x, logit(1), saes=[sae])
    plain = residual_decompose(vit, x, logit(1))
    parts = [k for k, n in enumerate(split.names) if n.startswith(site)]
    assert len(parts) == 6
    assert np.allclose(split.values[:, parts].sum(1), plain.values[:, plain.names.index(site)])
    assert np.abs(split.remainder).max() < 1e-10


def test_a_metric_that_is_not_affine_leaves_a_remainder(vit, x):
    assert np.abs(residual_decompose(vit, x, probability(1)).remainder).max() > 1e-6


def test_what_is_no_summand_is_refused(vit, x):
    sae = Directions("blocks.0.mlp.hook_post", torch.eye(16).double(), torch.zeros(16).double())
    with pytest.raises(SiteError, match="no summand of the last residual stream"):
        residual_decompose(vit, x, logit(1), saes=[sae])


def test_patterns_are_timms_own(vit, x):
    patterns = attention_patterns(vit, x)
    block = vit.module.blocks[1].attn
    with torch.no_grad():
        h = vit.module.blocks[1].norm1(run_with_cache(vit, x, ["blocks.1.hook_resid_pre"])["blocks.1.hook_resid_pre"])
        q, k, _ = block.qkv(h).reshape(4, 10, 3, 2, 4).permute(2, 0, 3, 1, 4)
        slow = (q @ k.transpose(-2, -1) / 2).softmax(-1)
    assert torch.allclose(patterns[1], slow, atol=1e-9)
    with watching_attention() as calls, torch.no_grad():
        out = vit.module(x)
    assert torch.allclose(out, vit.module(x).detach(), atol=1e-9)
    assert torch.allclose(calls[1].scores().softmax(-1), slow, atol=1e-9)


def test_rollout_by_hand():
    one = torch.tensor([[[[0.0, 1.0], [0.5, 0.5]]]])
    mixed = torch.tensor([[0.5, 0.5], [0.25, 0.75]])
    assert torch.allclose(rollout([one])[0], mixed)
    assert torch.allclose(rollout([one, one])[0], mixed @ mixed)
    assert torch.allclose(rollout([one, one], residual=1.0)[0], torch.eye(2))
    with pytest.raises(ConfigError, match="rollout of 0 patterns"):
        rollout([])


def test_what_patches_move_sums_to_each_heads_gradient_times_value(vit, x):
    site = "blocks.2.attn.hook_z"
    w = Wiring(vit, [whole(vit, site)], as_metric(logit(1), vit), x, frozenset({"norm", "attention"}))
    state = w.state(x)
    gradient, _ = readout(w, state)
    with watching_attention() as calls, torch.no_grad():
        vit.module(x)
    moved = moved_by_patch(calls[2], gradient)
    per_head = (state.acts[site] * gradient).sum(1).reshape(4, 2, 4).sum(2)
    assert torch.allclose(moved.sum(-1), per_head)


def test_a_planted_heads_values_come_from_the_patch_it_seeks():
    planted = hand_made_vit()
    images = planted.images(5, seed=3, present=1.0)
    tag = list(planted.plan.inputs).index("tag")
    pattern = attention_patterns(planted.model, images.x)[0][:, -1, 0]
    cell = images.cells[:, tag]
    assert (pattern.argmax(-1).numpy() == 1 + cell[:, 0] * 4 + cell[:, 1]).all()


def test_saturated_attention_is_seen_by_the_correction_and_missed_by_the_gradient():
    """A head that looks at one patch with weight near 1: taking its query away matters, its gradient does not say so."""
    planted = hand_made_vit(sharpness=20.0)
    images = planted.images(6, seed=3, present=1.0)
    model, site = planted.model, "blocks.0.attn.hook_k"
    order = torch.tensor([1, 2, 3, 4, 5, 0])
    # the partners show the tag elsewhere: with their keys the head looks at the wrong patch
    found = query_key_effects(model, logit(1), images.x, images.x[order])
    with torch.no_grad():
        keys = run_with_cache(model, images.x, [site])[site]
        width = keys.shape[-1] // 4
        new = keys.clone()
        new[..., -width:] = keys[order][..., -width:]
        with intervene(model, {site: lambda _a: new}):
            after = model.logits(images.x)[:, 1]
        exact = after - model.logits(images.x)[:, 1]
    corrected, plain = found.key[:, 0, -1], found.key_linear[:, 0, -1]
    assert plain.abs().max() < 1e-3 * exact.abs().mean()
    # what follows the pattern is still linearised, so the size is a part of the whole; the sign is right
    assert corrected.abs().mean() > 0.3 * exact.abs().mean()
    assert (corrected * exact >= 0).all()


def test_partners_must_be_as_many(vit, x):
    with pytest.raises(ShapeError, match="4 images and 2 partners"):
        query_key_effects(vit, logit(1), x, x[:2])
