"""The names of a ViT's places, against hooks written by hand, against arithmetic, against TransformerLens."""

import pytest
import torch
from torch import nn

from mechinterp.capturing import run_with_cache
from mechinterp.models import load_model
from mechinterp.models.discovery import discover_sites
from mechinterp.models.vision_model import InputContract

NAMES = [
    "hook_resid_pre",
    "hook_attn_out",
    "hook_resid_mid",
    "mlp.hook_pre",
    "mlp.hook_post",
    "hook_mlp_out",
    "hook_resid_post",
    "attn.hook_z",
]
SMALL = {"img_size": (32, 48), "patch_size": 16, "embed_dim": 24, "depth": 2, "num_heads": 2}
CONTRACT = InputContract(32, 48, 3, mean=(0.0,) * 3, std=(1.0,) * 3)


def timm_vit(**options):
    from timm.models.vision_transformer import VisionTransformer

    torch.manual_seed(0)
    return VisionTransformer(**(SMALL | {"num_classes": 3} | options)).eval()


@pytest.mark.parametrize(
    ("options", "prefix"),
    [
        ({}, 1),
        ({"reg_tokens": 4}, 5),
        ({"class_token": False, "global_pool": "avg"}, 0),
        ({"init_values": 0.5}, 1),
        ({"no_embed_class": True, "reg_tokens": 2, "pre_norm": True}, 3),
        ({"dynamic_img_size": True}, 1),
        ({"qk_norm": True, "fc_norm": True, "global_pool": "avg"}, 1),
    ],
)
def test_a_timm_vits_places_are_named_with_their_prefix_and_grid(options, prefix):
    module = timm_vit(**options)
    sites = discover_sites(module, CONTRACT)
    assert module.num_prefix_tokens == prefix
    for name in NAMES:
        for block in range(2):
            site = sites[f"blocks.{block}.{name}"]
            assert (site.prefix_tokens, site.tokens) == (prefix, prefix + 6)
            assert (site.grid.rows, site.grid.columns, site.grid.stride, site.grid.extent) == (2, 3, (16, 16), (16, 16))
            assert site.width == (96 if name.startswith("mlp") else 24)
    assert ("ln_final.hook_normalized" in sites) is not options.get("fc_norm", options.get("global_pool") == "avg")
    assert not any(name.startswith("stages") for name in sites)


def model_of(module):
    from mechinterp.models.vision_model import VisionModel

    sites = discover_sites(module, CONTRACT)
    return VisionModel(module=module, spec="py:t", contract=CONTRACT, class_names=(), output="logits", sites=sites)


@pytest.mark.parametrize("options", [{}, {"init_values": 0.5, "reg_tokens": 1}])
def test_the_residual_stream_adds_up(options):
    module = timm_vit(**options)
    with torch.no_grad():
        acts = run_with_cache(model_of(module), torch.rand(2, 3, 32, 48), [f"blocks.1.{n}" for n in NAMES])
        a = {n: acts[f"blocks.1.{n}"] for n in NAMES}
        assert torch.allclose(a["hook_resid_pre"] + a["hook_attn_out"], a["hook_resid_mid"], atol=1e-5)
        assert torch.allclose(a["hook_resid_mid"] + a["hook_mlp_out"], a["hook_resid_post"], atol=1e-5)
        block = module.blocks[1]
        assert torch.allclose(block.ls1(block.attn.proj(a["attn.hook_z"])), a["hook_attn_out"], atol=1e-5)
        assert torch.allclose(block.ls2(block.mlp.fc2(a["mlp.hook_post"])), a["hook_mlp_out"], atol=1e-5)
        assert torch.allclose(block.mlp.act(a["mlp.hook_pre"]), a["mlp.hook_post"], atol=1e-6)


def test_the_embedding_is_what_enters_the_first_block():
    module = timm_vit()
    x = torch.rand(1, 3, 32, 48)
    with torch.no_grad():
        acts = run_with_cache(model_of(module), x, ["hook_embed", "ln_final.hook_normalized"])
        assert acts["hook_embed"].equal(module._pos_embed(module.patch_embed(x)))
        assert torch.allclose(acts["ln_final.hook_normalized"], module.forward_features(x), atol=1e-6)


def test_a_parallel_block_keeps_only_the_names_that_hold():
    from timm.models.vision_transformer import ParallelScalingBlock

    sites = discover_sites(timm_vit(block_fn=ParallelScalingBlock), CONTRACT)
    assert {"blocks.0.hook_resid_pre", "blocks.0.hook_resid_post"} <= sites.keys()
    assert "blocks.0.hook_attn_out" not in sites
    assert "blocks.0.hook_resid_mid" not in sites


def test_a_block_normalised_after_the_branch_is_not_misread():
    from timm.models.vision_transformer import ResPostBlock

    module = timm_vit(block_fn=ResPostBlock)
    sites = discover_sites(module, CONTRACT)
    # norm2 stands after the perceptron there: its input is no residual stream
    assert "blocks.0.hook_resid_mid" not in sites


def test_the_wide_half_of_a_gated_unit_is_no_pre_activation():
    from timm.layers import GluMlp

    sites = discover_sites(timm_vit(mlp_layer=GluMlp), CONTRACT)
    assert sites["blocks.0.mlp.hook_post"].width == 48
    assert "blocks.0.mlp.hook_pre" not in sites


@pytest.fixture
def hf_model(tmp_path):
    from transformers import ViTConfig

    small = {"num_attention_heads": 2, "intermediate_size": 32, "image_size": 24, "patch_size": 8}
    ViTConfig(hidden_size=16, num_hidden_layers=2, **small, num_labels=3).save_pretrained(tmp_path)
    return load_model(f"hf:{tmp_path}", "random")


def test_transformerlens_has_the_same_names_shapes_and_values(hf_model):
    import os

    assert os.environ["HF_HUB_OFFLINE"] == "1"
    from transformer_lens.model_bridge import TransformerBridge

    bridge = TransformerBridge.boot_transformers("any", hf_model=hf_model.module)
    x = torch.rand(2, 3, 24, 24)
    # the sites of heads, the pattern among them, are compared with the bridge's in test_attention_sites.py
    ours = [
        n for n in hf_model.sites if "hook_" in n and n.partition("attn.")[2] in {"", "hook_z"} and n != "hook_pooled"
    ]
    assert len(ours) == 2 * len(NAMES) + 2
    with torch.no_grad():
        _, cache = bridge.run_with_cache(x)
        acts = run_with_cache(hf_model, x, ours)
    for name in ours:
        theirs = cache[name].flatten(2)  # heads are an axis of their own there
        assert acts[name].shape == theirs.shape
        assert (acts[name] - theirs).abs().max() <= 1e-5 * theirs.abs().max()


@pytest.mark.parametrize(
    ("config", "prefix"),
    [
        ("DeiTConfig", 2),
        ("Dinov2Config", 1),
        ("Dinov2WithRegistersConfig", 5),
        ("ViTMSNConfig", 1),
        ("BeitConfig", 1),  # scaled outside of any module, before one that runs twice
    ],
)
def test_transformers_families_are_read_by_the_same_table(tmp_path, config, prefix):
    import transformers

    small = {"num_attention_heads": 2, "intermediate_size": 32, "image_size": 24, "patch_size": 8}
    getattr(transformers, config)(hidden_size=16, num_hidden_layers=2, **small).save_pretrained(tmp_path)
    model = load_model(f"hf:{tmp_path}", "random")
    assert all(f"blocks.1.{name}" in model.sites for name in NAMES)
    site = model.site("blocks.1.hook_resid_post")
    assert (site.prefix_tokens, site.grid.cells) == (prefix, 9)


def test_torchvisions_blocks_are_found_too():
    from torchvision.models import VisionTransformer

    module = VisionTransformer(
        image_size=32, patch_size=16, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32
    ).eval()
    sites = discover_sites(module, InputContract(32, 32, 3, mean=(0.0,) * 3, std=(1.0,) * 3))
    for name in ("hook_resid_pre", "hook_resid_mid", "hook_attn_out", "hook_mlp_out", "hook_resid_post"):
        assert sites[f"blocks.1.{name}"].prefix_tokens == 1
    assert sites["ln_final.hook_normalized"].module == "encoder.ln"


def test_two_stacks_of_blocks_are_not_numbered_as_one():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Conv2d(3, 24, 16, 16)
            self.first, self.second = (nn.Sequential(*timm_vit().blocks) for _ in range(2))

        def forward(self, x):
            return self.second(self.first(self.embed(x).flatten(2).transpose(1, 2))).mean(1)

    sites = discover_sites(Two().eval(), CONTRACT)
    assert "first.0" in sites
    assert not any("hook_" in name for name in sites)
