"""Every family's attention: what its sites hold, by arithmetic, by the libraries' own means, and by what changing them does."""

import functools

import pytest
import torch
from torch import nn
from vit_families import DEPTH, FAMILIES, build, pixels

from mechinterp.capturing import run_with_cache
from mechinterp.errors import SiteError
from mechinterp.interventions import ablate, intervene, patch

INSIDE = ["attn.hook_q", "attn.hook_k", "attn.hook_v", "attn.hook_pattern", "attn.hook_z", "attn.hook_result"]
BLOCK = ["hook_resid_pre", "hook_attn_out", "hook_resid_mid", "mlp.hook_post", "hook_mlp_out", "hook_resid_post"]
# what stands between the heads and the residual stream is no linear map there
WITHOUT_RESULT = {"timm ViT, norm before the projection"}
LAST = DEPTH - 1
model_of = functools.cache(build)
families = pytest.mark.parametrize("family", FAMILIES)


def close(a, b, tolerance=1e-5):
    return a.shape == b.shape and bool((a - b).abs().max() <= tolerance * b.abs().max())


def names_of(family):
    model = model_of(family)
    return [f"blocks.{LAST}.{name}" for name in INSIDE if f"blocks.{LAST}.{name}" in model.sites]


def run(model, x):
    with torch.no_grad():
        return model.logits(x).clone()


def cached(model, x, *names):
    with torch.no_grad():
        acts = run_with_cache(model, x, [f"blocks.{LAST}.{name}" for name in names])
    return [acts[f"blocks.{LAST}.{name}"] for name in names]


@families
def test_every_family_has_all_sites_of_a_block(family):
    model = model_of(family)
    for block in range(DEPTH):
        missing = {n for n in INSIDE + BLOCK if f"blocks.{block}.{n}" not in model.sites}
        assert missing == ({"attn.hook_result"} if family in WITHOUT_RESULT else set())
        order = [n.split(".", 2)[2] for n in model.sites if n.startswith(f"blocks.{block}.") and "hook_" in n]
        assert [n for n in order if n in INSIDE] == [n for n in INSIDE if n not in missing]


WITHOUT_POOLED = {"hf DeiT, distilled", "timm DeiT, distilled", "hf DINOv2, SwiGLU", "hf DINOv3", "hf DINOv3, gated", "open_clip", "open_clip, layer scale"}  # fmt: skip
WITHOUT_FINAL_NORM = {"hf CLIP", "hf BEiT", "timm BEiT", "timm EVA"}


def test_what_a_family_lacks_is_what_the_documentation_says():
    def without(name):
        return {family for family in FAMILIES if name not in model_of(family).sites}

    assert without("hook_pooled") == WITHOUT_POOLED
    assert without("ln_final.hook_normalized") == WITHOUT_FINAL_NORM
    assert without("blocks.0.mlp.hook_pre") == {"timm EVA"}
    assert without("blocks.0.attn.hook_result") == WITHOUT_RESULT


@families
def test_the_pattern_times_the_values_is_what_the_heads_put_out_and_adds_up_to_the_attentions_output(family):
    model = model_of(family)
    x = pixels(model)
    q, k, v, pattern, z, added = cached(
        model, x, "attn.hook_q", "attn.hook_k", "attn.hook_v", "attn.hook_pattern", "attn.hook_z", "hook_attn_out"
    )
    site = {name: model.site(f"blocks.{LAST}.{name}") for name in INSIDE if f"blocks.{LAST}.{name}" in model.sites}
    heads = site["attn.hook_z"].heads
    by_head = site["attn.hook_pattern"].split_heads(pattern)
    tokens = site["attn.hook_z"].tokens
    assert by_head.shape == (2, heads, tokens, tokens)
    assert torch.allclose(by_head.sum(-1), torch.ones(()), atol=1e-5)
    values = site["attn.hook_v"].split_heads(v)
    assert values.shape == site["attn.hook_q"].split_heads(q).shape == site["attn.hook_k"].split_heads(k).shape
    assert values.shape == (2, tokens, heads, 24 // heads)
    assert close(torch.einsum("bhqk,bkhd->bqhd", by_head, values), site["attn.hook_z"].split_heads(z))
    assert site["attn.hook_pattern"].join_heads(by_head).equal(pattern)
    if "attn.hook_result" in site:
        (result,) = cached(model, x, "attn.hook_result")
        each = site["attn.hook_result"].split_heads(result)
        assert each.shape == (2, tokens, heads, 24)
        assert close(each.sum(2) + bias_of(model), added)


def bias_of(model):
    """Return the output projection's bias as it reaches the residual stream."""
    site = model.site(f"blocks.{LAST}.attn.hook_result")
    owner = model.module.get_submodule(site.weight.rpartition(".")[0])
    scale = 1.0 if site.scale is None else model.module.get_parameter(site.scale)
    return owner.bias * scale if owner.bias is not None else torch.zeros(())


UNPOSITIONED = {"hf ViT", "hf ViT, eager", "hf DINOv2", "hf CLIP", "timm ViT", "torchvision ViT", "open_clip", "monai ViT, 3-D"}  # fmt: skip


@pytest.mark.parametrize("family", sorted(UNPOSITIONED))
def test_queries_and_keys_give_the_pattern_where_nothing_stands_between(family):
    model = model_of(family)
    q, k, pattern = cached(model, pixels(model), "attn.hook_q", "attn.hook_k", "attn.hook_pattern")
    site = model.site(f"blocks.{LAST}.attn.hook_q")
    q, k = site.split_heads(q), site.split_heads(k)
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / q.shape[-1] ** 0.5
    assert close(scores.softmax(-1), model.site(f"blocks.{LAST}.attn.hook_pattern").split_heads(pattern))


@families
def test_capturing_changes_no_bit_of_the_output_and_leaves_nothing_behind(family):
    model, x = model_of(family), pixels(model_of(family))
    before = run(model, x)
    with torch.no_grad():
        acts = run_with_cache(model, x, names_of(family), logits=True)
    assert acts["logits"][:, 0].equal(before)
    assert run(model, x).equal(before)
    assert not any("forward" in module.__dict__ for module in model.module.modules())


@families
def test_an_identity_changes_no_bit_but_for_the_patterns_explicit_product(family):
    model, x = model_of(family), pixels(model_of(family))
    before = run(model, x)
    for name in names_of(family):
        with intervene(model, {name: lambda acts: acts}):
            after = run(model, x)
        if name.endswith(("hook_pattern", "q", "k", "v", "z")) and needs_rebuilding(model, name):
            assert close(after, before), name
        else:
            assert after.equal(before), name
    assert run(model, x).equal(before)


def needs_rebuilding(model, name):
    """Whether an edit there replaces a fused kernel: the pattern's, or all of ``nn.MultiheadAttention``'s."""
    attention = model.module.get_submodule(model.site(name).module)
    return name.endswith("pattern") or isinstance(attention, nn.MultiheadAttention)


@families
def test_one_head_is_silenced_alike_at_its_pattern_its_output_its_result_and_in_the_weights(family):
    model, x, head = build(family), pixels(model_of(family)), 1
    stem = f"blocks.{LAST}.attn"
    plain = run(model, x)
    outputs = {}
    for name in ("hook_pattern", "hook_z", "hook_result"):
        if f"{stem}.{name}" in model.sites:
            with intervene(model, {f"{stem}.{name}[{head}]": ablate()}):
                outputs[name] = run(model, x)
            units = model.site(f"{stem}.{name}").head_units([head])
            with intervene(model, {f"{stem}.{name}": ablate(units=units)}):
                assert run(model, x).equal(outputs[name])
    assert not close(outputs["hook_z"], plain, 1e-3)
    assert close(outputs["hook_pattern"], outputs["hook_z"])
    if family not in WITHOUT_RESULT:
        assert close(outputs["hook_result"], outputs["hook_z"])
        site = model.site(f"{stem}.hook_result")
        weight = model.module.get_parameter(site.weight)
        weight.data[:, model.site(f"{stem}.hook_z").head_units([head])] = 0  # independent of any hook
        assert close(run(model, x), outputs["hook_z"])


@families
def test_a_patched_pattern_is_what_the_values_are_averaged_with(family):
    model, x = model_of(family), pixels(model_of(family))
    stem = f"blocks.{LAST}.attn"
    tokens = model.site(f"{stem}.hook_z").tokens
    uniform = torch.full((1, 1, 1), 1 / tokens)
    with intervene(model, {f"{stem}.hook_pattern": patch(uniform)}):
        v, z = cached(model, x, "attn.hook_v", "attn.hook_z")
    assert close(z, v.mean(1, keepdim=True).expand_as(z))


@pytest.mark.parametrize("family", ["timm ViT", "torchvision ViT", "hf BEiT"])
def test_a_failure_inside_leaves_the_model_as_it_was(family):
    model, x = model_of(family), pixels(model_of(family))
    before = run(model, x)

    def fails(_acts):
        raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"), intervene(model, dict.fromkeys(names_of(family), fails)):
        run(model, x)
    assert run(model, x).equal(before)
    assert not any("forward" in module.__dict__ for module in model.module.modules())


@pytest.mark.parametrize("family", ["timm ViT", "torchvision ViT", "hf DINOv2", "monai ViT, 3-D"])
def test_gradients_reach_the_image_through_every_site_and_equal_the_models_own(family):
    model = model_of(family)
    x = pixels(model).requires_grad_()
    (expected,) = torch.autograd.grad(model.logits(x).sum(), x)
    for name in names_of(family):
        with intervene(model, {name: lambda acts: acts}):
            (found,) = torch.autograd.grad(model.logits(x).sum(), x)
        assert close(found, expected, 1e-4), name
        acts = run_with_cache(model, x, [name])[name]
        assert torch.autograd.grad(acts.square().sum(), x)[0].abs().max() > 0


def test_a_head_changed_and_captured_in_one_run_is_seen_changed():
    model, x = model_of("timm ViT"), pixels(model_of("timm ViT"))
    stem = f"blocks.{LAST}.attn"
    with intervene(model, {f"{stem}.hook_z[0]": ablate()}):
        z, result = cached(model, x, "attn.hook_z", "attn.hook_result")
    assert not z[..., :8].any()
    assert z[..., 8:].any()
    assert not result[..., :24].any()
    assert result[..., 24:].any()
    both = {f"{stem}.hook_result[1]": ablate(), f"{stem}.hook_z[0]": ablate()}
    with intervene(model, both):
        together = run(model, x)
    with intervene(model, {f"{stem}.hook_z": ablate(units=range(16))}):
        assert close(together, run(model, x))


def test_one_head_is_captured_by_its_name():
    model, x = model_of("hf DINOv3"), pixels(model_of("hf DINOv3"))
    z, one, pattern, q = cached(model, x, "attn.hook_z", "attn.hook_z[2]", "attn.hook_pattern[2]", "attn.hook_q[2]")
    assert one.equal(z[..., 16:])
    assert q.shape == one.shape
    assert pattern.shape == (2, 21, 21)
    with pytest.raises(SiteError, match=r"has no head 3: it has 3, counted from 0"):
        model.site(f"blocks.{LAST}.attn.hook_z[3]")
    with pytest.raises(SiteError, match="is not divided into heads"):
        model.site(f"blocks.{LAST}.hook_resid_post[0]")


def test_tokens_that_are_no_patches_are_told_apart():
    expected = {
        "hf ViT": 1, "hf DeiT, distilled": 2, "hf DINOv2, registers": 5, "hf DINOv3": 5, "hf SigLIP": 0,
        "timm DINOv2, registers": 5, "timm DeiT, distilled": 2, "torchvision ViT": 1, "open_clip": 1, "monai ViT, 3-D": 1,
    }  # fmt: skip
    for family, prefix in expected.items():
        model = model_of(family)
        for name in names_of(family):
            site = model.site(name)
            assert (site.prefix_tokens, site.tokens) == (prefix, prefix + site.grid.cells)
            sizes = zip(site.grid.shape, model.contract.size, strict=True)
            assert all(cells * 8 == pixels for cells, pixels in sizes)


def fused_off(model, x, family):
    """Return the last block's pattern as the library itself gives it."""
    block = next(iter([m for n, m in model.module.named_modules() if n.endswith(f".{LAST}") or n == f"blocks.{LAST}"]))
    if family.startswith("hf"):
        model.module.set_attn_implementation("eager")
        with torch.no_grad():
            return model.module(x, output_attentions=True).attentions[LAST]
    seen = []
    if family.startswith("timm"):
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_hook(lambda m, args, out: seen.append(out))
    elif family.startswith("monai"):
        block.attn.save_attn = True
        block.attn.use_flash_attention = False
    with torch.no_grad():
        model.run(x)
    return seen[0] if seen else block.attn.att_mat


@pytest.mark.parametrize(
    "family",
    ["hf ViT", "hf DeiT, distilled", "hf DINOv2, registers", "hf DINOv3", "hf CLIP", "hf SigLIP", "hf BEiT", "timm ViT",
     "timm DINOv2, registers", "timm EVA", "timm BEiT", "timm DINOv3", "monai ViT", "monai ViT, 3-D"],
)  # fmt: skip
def test_the_pattern_is_the_librarys_own(family):
    model, x = build(family), pixels(model_of(family))
    (ours,) = cached(model, x, "attn.hook_pattern")
    site = model.site(f"blocks.{LAST}.attn.hook_pattern")
    assert close(site.split_heads(ours), fused_off(model, x, family))


@pytest.mark.parametrize("family", ["torchvision ViT", "open_clip"])
def test_the_pattern_is_what_pytorchs_attention_returns_when_asked_for_its_weights(family):
    model, x = model_of(family), pixels(model_of(family))
    site = model.site(f"blocks.{LAST}.attn.hook_pattern")
    given = []
    attention = model.module.get_submodule(site.module)
    handle = attention.register_forward_pre_hook(lambda m, args, kw: given.append((args, kw)), with_kwargs=True)
    (ours,) = cached(model, x, "attn.hook_pattern")
    handle.remove()
    h = given[0][0][0] if given[0][0] else given[0][1]["query"]
    with torch.no_grad():
        _, weights = attention(h, h, h, need_weights=True, average_attn_weights=False)
    assert close(site.split_heads(ours), weights)


def test_transformerlens_bridge_has_the_same_heads(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from transformer_lens.model_bridge import TransformerBridge

    model = model_of("hf ViT, eager")
    wrapped = build("hf ViT, eager").module
    wrapped.config.architectures = ["ViTForImageClassification"]
    bridge = TransformerBridge.boot_transformers("any", hf_model=wrapped)
    x = pixels(model)
    names = [n for n in model.sites if "hook_" in n and not n.endswith("hook_result") and n != "hook_pooled"]
    with torch.no_grad():
        _, cache = bridge.run_with_cache(x)
        ours = run_with_cache(model, x, names)
    compared = set()
    for name in names:
        # the bridge's hook_normalized holds what is not yet scaled and shifted, unlike HookedTransformer's and ours
        other = "ln_final.hook_out" if name == "ln_final.hook_normalized" else name
        if other not in cache:
            continue
        site, theirs = model.site(name), cache[other]
        mine = site.split_heads(ours[name]) if theirs.dim() == 4 else ours[name]
        assert close(mine, theirs), name
        compared.add(name)
    wanted = [f"blocks.{i}.{n}" for i in range(DEPTH) for n in (*INSIDE[:5], *BLOCK, "mlp.hook_pre")]
    assert {*wanted, "ln_final.hook_normalized"} <= compared


def test_channels_that_attend_to_channels_have_no_pattern_of_tokens():
    from timm.models.xcit import Xcit

    from mechinterp.models.discovery import discover_sites
    from mechinterp.models.vision_model import InputContract

    module = Xcit(
        img_size=32, patch_size=8, embed_dim=12, depth=2, num_heads=2, num_classes=2, cls_attn_layers=1
    ).eval()
    sites = discover_sites(module, InputContract(32, 32))
    assert not any("hook_pattern" in name or "hook_result" in name or "hook_q" in name for name in sites)
    assert not any(site.heads for site in sites.values())


@pytest.mark.parametrize("family", ["timm ViT", "torchvision ViT", "monai ViT"])
def test_a_tail_from_a_site_inside_attention_is_exact_or_runs_the_whole_model(family):
    from mechinterp.tails import Tail

    model, x = model_of(family), pixels(model_of(family))
    for name in [*names_of(family), f"blocks.{LAST}.attn.hook_z[1]"]:
        (acts,) = cached(model, x, name.removeprefix(f"blocks.{LAST}."))
        tail = Tail(model, name, x)
        with intervene(model, {name: patch(acts * 0.5)}):
            expected = run(model, x)
        with torch.no_grad():
            assert close(tail.logits(acts * 0.5, x), expected), name
    assert not any("forward" in module.__dict__ for module in model.module.modules())


def test_a_store_keeps_patterns_and_single_heads(tmp_path):
    from mechinterp.capturing import capture
    from mechinterp.images.image_set import ImageSet

    model = model_of("timm ViT, qk norm")
    random = torch.rand(3, 30, 50, generator=torch.Generator().manual_seed(0)).numpy()
    images = ImageSet(ids=("a", "b", "c"), read=lambda i: random[i])
    names = [f"blocks.{LAST}.attn.hook_pattern", f"blocks.{LAST}.attn.hook_z[1]"]
    store = capture(model, images, names, out=tmp_path / "store")
    with torch.no_grad():
        expected = run_with_cache(model, model.prepare([images[i] for i in range(3)]), names)
    assert set(store.sites) == set(names)
    for name in names:
        assert store.manifest.sites[name] == model.site(name)
        assert close(store.rows(name).reshape(expected[name].shape), expected[name])


def test_attention_in_windows_has_no_sites_of_heads():
    import timm

    from mechinterp.models.discovery import discover_sites
    from mechinterp.models.vision_model import InputContract

    module = timm.create_model(
        "swin_tiny_patch4_window7_224", img_size=56, embed_dim=12, depths=(2, 2), num_heads=(2, 2)
    )
    sites = discover_sites(module.eval(), InputContract(56, 56))
    assert not any("hook_pattern" in name or "hook_z" in name for name in sites)
