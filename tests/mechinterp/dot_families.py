"""Small models of every family, made so that a dot on a black image leaves a trace in everything that can see it."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace

import torch
from torch import nn

from mechinterp.models.discovery import discover_sites
from mechinterp.models.vision_model import InputContract, VisionModel


@dataclass(frozen=True)
class Watched:
    """A site and what is claimed of it.

    ``patch``: a cell sees its tile and nothing else. ``exact``: it sees its box, and all of it away from the image's edges.
    ``within``: it sees no more than its box, and its own tile for sure.
    """

    name: str
    claim: str


def dotted(module):
    """Let nothing cancel, die or hide: positive weights, no bias, so that black stays exactly zero and a dot never does."""
    torch.manual_seed(0)
    for part in module.modules():
        for name, parameter in part.named_parameters(recurse=False):
            if "bias" in name:
                parameter.data.zero_()
            elif isinstance(part, (nn.Conv2d, nn.Conv3d)):
                # random, so that a norm over channels does not see equal values; of sum one, so that nothing explodes
                parameter.data.uniform_(0.5, 1.5)
                parameter.data /= parameter.data[0].numel()
            elif parameter.dim() > 1:
                parameter.data.normal_(std=0.3)
            else:
                parameter.data.uniform_(0.5, 1.5)
    return module.eval()


def timm_vit(**options):
    from timm.models.vision_transformer import VisionTransformer

    settings = {"patch_size": 8, "embed_dim": 12, "depth": 1, "num_heads": 2, "num_classes": 2}
    return VisionTransformer(**(settings | options))


def overlapping_vit(size):
    from timm.models.xcit import Xcit

    return Xcit(img_size=size, patch_size=8, embed_dim=12, depth=1, num_heads=2, num_classes=2, cls_attn_layers=1)


class ConvolutionalStem(nn.Module):
    """Early convolutions (Xiao et al., 2021) in the interface of timm's patch embeddings."""

    def __init__(self, img_size, patch_size, in_chans, embed_dim, **_options):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(in_chans, 8, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(8, embed_dim, 3, 2, 1),
        )
        self.num_patches = img_size[0] // 8 * (img_size[1] // 8)
        self.patch_size = (8, 8)

    def forward(self, x):
        return self.layers(x).flatten(2).transpose(1, 2)


def hf_vit(size):
    from transformers import ViTConfig, ViTModel

    config = ViTConfig(
        image_size=size, patch_size=8, hidden_size=12, num_hidden_layers=1, num_attention_heads=2, intermediate_size=12
    )
    return ViTModel(config)


def swin(size, **options):
    from timm.models.swin_transformer import SwinTransformer

    settings = {
        "patch_size": 2,
        "embed_dim": 8,
        "depths": (2, 2),
        "num_heads": (2, 2),
        "window_size": 4,
        "num_classes": 2,
    }
    return SwinTransformer(img_size=size, **(settings | options))


def torchvision_swin():
    from torchvision.models import SwinTransformer

    return SwinTransformer([2, 2], 8, [2, 2], [2, 2], [4, 4], num_classes=2)


def resnet():
    from timm.models.resnet import BasicBlock, ResNet

    return ResNet(BasicBlock, (1, 1, 1, 1), channels=(8, 12, 12, 12), stem_width=8, num_classes=2)


def convnext():
    from timm.models.convnext import ConvNeXt

    return ConvNeXt(depths=(1, 1, 1, 1), dims=(8, 12, 12, 12), num_classes=2)


def densenet():
    from timm.models.densenet import DenseNet

    return DenseNet(growth_rate=4, block_config=(2, 2, 2), bn_size=2, num_classes=2)


def monai_vit(size):
    from monai.networks.nets import ViT

    return ViT(1, size, (8,) * len(size), 12, 12, 1, 2, classification=True, num_classes=2, spatial_dims=len(size))


def monai_densenet():
    from monai.networks.nets import DenseNet

    return DenseNet(3, 1, 2, init_features=8, growth_rate=4, block_config=(1, 1, 1), bn_size=2)


def monai_resnet():
    from monai.networks.nets.resnet import ResNet, ResNetBlock

    return ResNet(ResNetBlock, [1, 1, 1, 1], [8, 8, 8, 8], spatial_dims=3, n_input_channels=1, num_classes=2)


PATCH = [Watched("hook_embed", "patch")]
WIDE, TALL, VOLUME = (32, 48), (56, 40), (16, 32, 24)
STAGES = [Watched(f"stages.{i}", "exact") for i in range(4)]

FAMILIES = {
    "ViT": (lambda: timm_vit(img_size=WIDE), WIDE, [*PATCH, Watched("patch_embed.proj", "patch")]),
    "ViT with registers": (lambda: timm_vit(img_size=TALL, reg_tokens=4), TALL, PATCH),
    "ViT of wide patches": (lambda: timm_vit(img_size=WIDE, patch_size=(16, 4)), WIDE, PATCH),
    "ViT of one row of patches": (lambda: timm_vit(img_size=(8, 40)), (8, 40), PATCH),
    "ViT of transformers": (lambda: hf_vit(WIDE), WIDE, PATCH),
    "ViT with a convolutional stem": (
        lambda: timm_vit(img_size=TALL, embed_layer=ConvolutionalStem), TALL, [Watched("hook_embed", "exact")]
    ),
    "XCiT": (lambda: overlapping_vit(WIDE), WIDE, [Watched("patch_embed.proj", "exact")]),
    "Swin": (
        lambda: swin(WIDE), WIDE,
        [Watched("patch_embed", "patch"), Watched("layers.0.blocks.0", "within"), Watched("layers.0.blocks.1", "within"),
         Watched("layers.1.downsample", "within"), Watched("stages.1", "within")],
    ),
    "Swin, size no multiple of the window": (
        lambda: swin((36, 52)), (36, 52), [Watched("layers.0.blocks.1", "within"), Watched("stages.1", "within")]
    ),
    "Swin of torchvision": (
        torchvision_swin, TALL,
        [Watched("features.0", "patch"), Watched("features.1.0", "within"), Watched("features.2", "within")],
    ),
    "ResNet": (resnet, (64, 96), STAGES),
    "ConvNeXt": (convnext, (64, 96), STAGES[:3]),
    "DenseNet": (densenet, (72, 56), STAGES[:3]),
    "ViT of volumes": (lambda: monai_vit(VOLUME), VOLUME, PATCH),
    "DenseNet of volumes": (monai_densenet, (24, 40, 32), STAGES[:3]),
    "ResNet of volumes": (monai_resnet, (24, 32, 32), STAGES[:3]),
}  # fmt: skip


@functools.cache
def family(name):
    """Return a model of a family and its watched sites."""
    build, size, watched = FAMILIES[name]
    torch.manual_seed(0)
    module = dotted(build())
    channels = next(m for m in module.modules() if isinstance(m, (nn.Conv2d, nn.Conv3d))).in_channels
    # black is zero; a dot that a large image dilutes shall still be far from what rounds to zero
    contract = InputContract(
        *size[-2:], channels=channels, mean=(0.0,) * channels, std=(1e-3,) * channels, depth=size[0] if len(size) == 3 else None
    )  # fmt: skip
    model = VisionModel(
        module=module, spec=f"py:{name}", contract=contract, class_names=(), output="logits",
        sites=discover_sites(module, contract),
    )  # fmt: skip
    return model, watched


def with_policy(model, resize, crop_fraction):
    """Return the model with a processor of another policy."""
    return replace(model, contract=replace(model.contract, resize=resize, crop_fraction=crop_fraction))
