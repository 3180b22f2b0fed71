"""Files with the names and shapes of published medical encoders load by the specs that docs/medical-checkpoints.md gives.

Names and shapes are written out by hand from the publications. The default tests cut the depth; the slow ones do not.
"""

import argparse
import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mechinterp.errors import WeightsError
from mechinterp.models import load_model

DOCS = (Path(__file__).parents[3] / "docs" / "medical-checkpoints.md").read_text()
SPECS = re.findall(r"mechinterp sites '(timm:[^']+)'", DOCS)
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def spec_of(start, depth=None, nth=0):
    """Return the documented spec that starts this way, with another depth."""
    spec = [s for s in SPECS if s.startswith(start)][nth]
    if depth is None:
        return spec
    spec = re.sub(r"depth=\d+&", "", spec)
    return f"{spec}&depth={depth}"


def vit_layout(
    width, depth, patch, hidden, *, tokens, gated=False, layer_scale=False, registers=0, norm="norm", head=None
):
    """Return names and shapes of a ViT's tensors, as timm and the MAE code write them."""
    shapes = {
        "cls_token": (1, 1, width),
        "pos_embed": (1, tokens, width),
        "patch_embed.proj.weight": (width, 3, patch, patch),
        "patch_embed.proj.bias": (width,),
    }
    if registers:
        shapes["reg_token"] = (1, registers, width)
    linear = {
        "attn.qkv": (3 * width, width),
        "attn.proj": (width, width),
        "mlp.fc1": (hidden, width),
        "mlp.fc2": (width, hidden // 2 if gated else hidden),
    }
    for i in range(depth):
        block = f"blocks.{i}."
        shapes |= {f"{block}{n}.{p}": (width,) for n in ("norm1", "norm2") for p in ("weight", "bias")}
        shapes |= {f"{block}{n}.weight": s for n, s in linear.items()} | {
            f"{block}{n}.bias": s[:1] for n, s in linear.items()
        }
        if layer_scale:
            shapes |= {f"{block}ls{j}.gamma": (width,) for j in (1, 2)}
    shapes |= {f"{norm}.{p}": (width,) for p in ("weight", "bias")}
    if head:
        shapes |= {"head.weight": (head, width), "head.bias": (head,)}
    return shapes


def filled(shapes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) * 0.02 for name, shape in shapes.items()}


LAYOUTS = {
    "RETFound": lambda depth: vit_layout(1024, depth, 16, 4096, tokens=197, norm="fc_norm", head=5),
    "UNI": lambda depth: vit_layout(1024, depth, 16, 4096, tokens=197, layer_scale=True),
    "UNI 2": lambda depth: vit_layout(1536, depth, 14, 8192, tokens=256, layer_scale=True, gated=True, registers=8),
    "Virchow": lambda depth: vit_layout(1280, depth, 14, 6832, tokens=257, layer_scale=True, gated=True),
}
RECIPES = {
    "RETFound": lambda depth=None: spec_of("timm:vit_large_patch16_224.mae?global_pool=avg", depth),
    "UNI": lambda depth=None: spec_of("timm:vit_large_patch16_224?", depth),
    "UNI 2": lambda depth=None: spec_of("timm:vit_giant", depth),
    "Virchow": lambda depth=None: spec_of("timm:vit_huge", depth),
}
DEPTHS = {"RETFound": 24, "UNI": 24, "UNI 2": 24, "Virchow": 32}


def test_a_fine_tuned_retfound_loads_with_its_classes_and_its_normalisation(tmp_path):
    state = filled(LAYOUTS["RETFound"](1))
    torch.save(
        {"model": state, "epoch": 49, "args": argparse.Namespace(nb_classes=5), "optimizer": {"lr": 1e-3}},
        tmp_path / "checkpoint-best.pth",
    )
    model = load_model(RECIPES["RETFound"](1), tmp_path / "checkpoint-best.pth")
    assert (model.trained, len(model.class_names), model.notes) == (True, 5, ())
    assert (model.contract.mean, model.contract.std) == IMAGENET
    assert all(model.module.state_dict()[name].equal(tensor) for name, tensor in state.items())
    # as its own code pools: patches without CLS, averaged, then normalised
    x = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        tokens = model.module.forward_features(x)
        pooled = torch.nn.functional.layer_norm(
            tokens[:, 1:].mean(1), (1024,), state["fc_norm.weight"], state["fc_norm.bias"], eps=1e-6
        )
        assert torch.allclose(model.logits(x), pooled @ state["head.weight"].T + state["head.bias"], atol=1e-5)


def test_the_decoder_of_a_pre_trained_retfound_is_left_out_and_said(tmp_path):
    state = filled(vit_layout(1024, 1, 16, 4096, tokens=197))
    decoder = {"mask_token": (1, 1, 512), "decoder_pos_embed": (1, 197, 512), "decoder_embed.weight": (512, 1024)}
    decoder |= {
        "decoder_blocks.0.attn.qkv.weight": (1536, 512),
        "decoder_norm.bias": (512,),
        "decoder_pred.bias": (768,),
    }
    torch.save({"model": state | filled(decoder)}, tmp_path / "RETFound_mae_natureCFP.pth")
    model = load_model(
        spec_of("timm:vit_large_patch16_224.mae?global_pool=token", 1), tmp_path / "RETFound_mae_natureCFP.pth"
    )
    assert model.notes[0].startswith(
        "6 tensors in RETFound_mae_natureCFP.pth are no part of the model and were left out (mask_token"
    )
    assert model.logits(torch.rand(1, 3, 224, 224)).shape == (1, 1024)


def test_without_its_options_a_checkpoint_is_refused_with_the_options_its_names_tell_of(tmp_path):
    torch.save(filled(LAYOUTS["UNI"](1)), tmp_path / "uni.bin")
    with pytest.raises(
        WeightsError, match=r"2 unexpected \(blocks\.0\.ls1\.gamma.*its names tell of \?init_values=1e-5$"
    ):
        load_model("timm:vit_large_patch16_224?depth=1&num_classes=0", tmp_path / "uni.bin")
    torch.save(filled(LAYOUTS["RETFound"](1)), tmp_path / "retfound.pth")
    with pytest.raises(WeightsError, match=r"2 missing \(norm\.weight, norm\.bias\), 2 unexpected.*\?global_pool=avg"):
        load_model("timm:vit_large_patch16_224?depth=1", tmp_path / "retfound.pth")
    torch.save(filled(vit_layout(192, 1, 16, 768, tokens=197, registers=4)), tmp_path / "registers.bin")
    with pytest.raises(WeightsError, match=r"\?reg_tokens=4"):
        load_model("timm:vit_tiny_patch16_224?depth=1", tmp_path / "registers.bin")


@pytest.mark.parametrize("name", ["UNI", "Virchow"])
def test_a_histology_encoder_loads_from_its_file(name, tmp_path):
    state = filled(LAYOUTS[name](1))
    torch.save(state, tmp_path / "pytorch_model.bin")
    model = load_model(RECIPES[name](1), tmp_path / "pytorch_model.bin")
    assert model.trained
    assert (model.contract.mean, model.contract.std) == IMAGENET
    assert all(model.module.state_dict()[key].equal(tensor) for key, tensor in state.items())
    site = model.site("blocks.0.hook_resid_post")
    patches = {"UNI": 14, "Virchow": 16}[name]
    assert (site.prefix_tokens, site.grid.shape) == (1, (patches, patches))
    returned = {"UNI": (1, 1024), "Virchow": (1, 257, 1280)}[name]
    assert model.run(torch.rand(1, 3, 224, 224)).shape == returned


def test_virchows_folder_needs_its_layers_named(tmp_path):
    arguments = {
        "img_size": 224, "init_values": 1e-5, "num_classes": 0, "mlp_ratio": 5.3375, "global_pool": "",
        "dynamic_img_size": True, "depth": 1, "reg_tokens": 4,
    }  # fmt: skip
    config = {
        "architecture": "vit_huge_patch14_224", "model_args": arguments, "num_classes": 0, "num_features": 1280,
        "pretrained_cfg": {"input_size": [3, 224, 224], "mean": IMAGENET[0], "std": IMAGENET[1], "num_classes": 0},
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    layout = vit_layout(1280, 1, 14, 6832, tokens=261, layer_scale=True, gated=True, registers=4)
    layout["pos_embed"] = (1, 261, 1280)
    save_file(filled(layout), tmp_path / "model.safetensors")
    model = load_model(f"timm:{tmp_path}?mlp_layer=SwiGLUPacked&act_layer=SiLU")
    assert model.site("blocks.0.hook_resid_post").prefix_tokens == 5
    assert model.contract.mean == IMAGENET[0]


def rad_dino(folder, layers):
    """Write a folder as microsoft/rad-dino publishes it."""
    from transformers import Dinov2Config, Dinov2Model

    config = Dinov2Config(
        hidden_size=768, num_hidden_layers=layers, num_attention_heads=12, image_size=518, patch_size=14
    )
    torch.manual_seed(0)
    module = Dinov2Model(config).eval()
    module.save_pretrained(folder)
    processor = {
        "crop_size": {"height": 518, "width": 518}, "do_center_crop": True, "do_normalize": True, "do_rescale": True,
        "do_resize": True, "image_mean": [0.5307] * 3, "image_std": [0.2583] * 3, "rescale_factor": 1 / 255,
        "image_processor_type": "BitImageProcessor", "resample": 3, "size": {"shortest_edge": 518},
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return module


def check_rad_dino(folder, layers):
    module = rad_dino(folder, layers)
    model = load_model(f"hf:{folder}")
    assert (model.trained, model.contract.size, model.contract.mean, model.contract.std) == (
        True,
        (518, 518),
        (0.5307,) * 3,
        (0.2583,) * 3,
    )
    site = model.site(f"blocks.{layers - 1}.hook_resid_post")
    assert (site.prefix_tokens, site.grid.shape, site.width) == (1, (37, 37), 768)
    assert "has no classification head: what it returns are features, not logits" in model.notes
    x = torch.rand(1, 3, 518, 518)
    with torch.no_grad():
        assert model.run(x).equal(module(x).last_hidden_state)


def test_rad_dino_loads_from_its_folder(tmp_path):
    check_rad_dino(tmp_path, layers=1)


@pytest.mark.slow
def test_rad_dino_loads_at_its_full_depth(tmp_path):
    check_rad_dino(tmp_path, layers=12)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(RECIPES))
def test_the_documented_spec_builds_the_published_tensors_at_full_depth(name):
    model = load_model(RECIPES[name](), "random", class_names=list("abcde") if name == "RETFound" else None)
    built = {key: tuple(tensor.shape) for key, tensor in model.module.state_dict().items()}
    assert built == LAYOUTS[name](DEPTHS[name])
    assert f"blocks.{DEPTHS[name] - 1}.hook_resid_post" in model.sites
