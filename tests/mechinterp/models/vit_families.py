"""Small ViTs of every family, random and seeded, non-square where the family allows it; no source's loader is needed."""

from __future__ import annotations

import torch
from torch import nn

from mechinterp.models.discovery import discover_sites
from mechinterp.models.vision_model import InputContract, VisionModel

HEADS, WIDTH, DEPTH, PATCH = 3, 24, 2, 8
SIZE = (24, 40)  # 3 × 5 patches
SQUARE = (32, 32)
VOLUME = (16, 24, 32)


def transformers_model(name, config, size=SQUARE, **options):
    import transformers

    settings = {
        "image_size": size[0], "patch_size": PATCH, "hidden_size": WIDTH, "num_hidden_layers": DEPTH,
        "num_attention_heads": HEADS, "intermediate_size": 2 * WIDTH,
    }  # fmt: skip
    return getattr(transformers, name)(getattr(transformers, config)(**(settings | options))), size


def timm_model(name, size=SIZE, **options):
    import timm

    settings = {"img_size": size, "patch_size": PATCH, "embed_dim": WIDTH, "depth": DEPTH, "num_heads": HEADS}
    return timm.create_model(name, **(settings | {"num_classes": 4} | options)), size


def torchvision_model():
    from torchvision.models import VisionTransformer

    return VisionTransformer(*SQUARE[:1], PATCH, DEPTH, 4, WIDTH, 2 * WIDTH, num_classes=4), SQUARE


def open_clip_model(**options):
    from open_clip.transformer import VisionTransformer

    return VisionTransformer(SIZE, PATCH, WIDTH, DEPTH, HEADS, 2.0, output_dim=16, **options), SIZE


def monai_model(size, **options):
    from monai.networks.nets import ViT

    settings = {"classification": True, "num_classes": 4, "spatial_dims": len(size)}
    return ViT(3, size, (PATCH,) * len(size), WIDTH, 2 * WIDTH, DEPTH, HEADS, **(settings | options)), size


def monai_with_separate_projections():
    from monai.networks.blocks.selfattention import SABlock

    module, size = monai_model(VOLUME)
    for block in module.blocks:
        block.attn = SABlock(WIDTH, HEADS, use_combined_linear=False, use_flash_attention=True)
    return module, size


FAMILIES = {
    "hf ViT": lambda: transformers_model("ViTForImageClassification", "ViTConfig"),
    "hf ViT, eager": lambda: transformers_model(
        "ViTForImageClassification", "ViTConfig", attn_implementation="eager"
    ),
    "hf DeiT, distilled": lambda: transformers_model("DeiTForImageClassificationWithTeacher", "DeiTConfig"),
    "hf DINOv2": lambda: transformers_model("Dinov2ForImageClassification", "Dinov2Config", layerscale_value=0.5),
    "hf DINOv2, SwiGLU": lambda: transformers_model("Dinov2Model", "Dinov2Config", use_swiglu_ffn=True),
    "hf DINOv2, registers": lambda: transformers_model(
        "Dinov2WithRegistersForImageClassification", "Dinov2WithRegistersConfig"
    ),
    "hf DINOv3": lambda: transformers_model("DINOv3ViTModel", "DINOv3ViTConfig", num_register_tokens=4),
    "hf DINOv3, gated": lambda: transformers_model(
        "DINOv3ViTModel", "DINOv3ViTConfig", num_register_tokens=4, use_gated_mlp=True
    ),
    "hf CLIP": lambda: transformers_model("CLIPVisionModel", "CLIPVisionConfig"),
    "hf SigLIP": lambda: transformers_model("SiglipVisionModel", "SiglipVisionConfig"),
    "hf BEiT": lambda: transformers_model(
        "BeitForImageClassification", "BeitConfig", use_relative_position_bias=True, layer_scale_init_value=0.5
    ),
    "timm ViT": lambda: timm_model("vit_tiny_patch16_224"),
    "timm ViT, qk norm": lambda: timm_model("vit_tiny_patch16_224", qk_norm=True, init_values=0.5),
    "timm ViT, norm before the projection": lambda: timm_model(
        "vit_tiny_patch16_224", scale_attn_norm=True, norm_layer=nn.LayerNorm
    ),
    "timm DINOv2, registers": lambda: timm_model("vit_small_patch14_reg4_dinov2"),
    "timm DeiT, distilled": lambda: timm_model("deit_tiny_distilled_patch16_224"),
    "timm BEiT": lambda: timm_model("beit_base_patch16_224"),
    "timm EVA": lambda: timm_model("eva02_tiny_patch14_224"),
    "timm DINOv3": lambda: timm_model("vit_small_patch16_dinov3"),
    "timm SigLIP": lambda: timm_model("vit_base_patch16_siglip_224"),
    "torchvision ViT": torchvision_model,
    "open_clip": open_clip_model,
    "open_clip, layer scale": lambda: open_clip_model(ls_init_value=0.5),
    "monai ViT": lambda: monai_model(SIZE),
    "monai ViT, 3-D": lambda: monai_model(VOLUME),
    "monai ViT, 3-D, separate and fused": monai_with_separate_projections,
}  # fmt: skip


def build(family, seed=0):
    """Return a model of a family with weights large enough that every block matters."""
    torch.manual_seed(seed)
    module, size = FAMILIES[family]()
    module = module.eval()
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        if parameter.dim() > 1:
            parameter.data.normal_(std=0.25, generator=generator)
        else:
            parameter.data.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    contract = InputContract(size[-2], size[-1], depth=size[0] if len(size) == 3 else None)
    sites = discover_sites(module, contract)
    return VisionModel(
        module=module, spec=f"py:{family}", contract=contract, class_names=(), output="logits", sites=sites
    )


def pixels(model, n=2, seed=0):
    """Return random images."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, model.contract.channels, *model.contract.size, generator=generator)
