"""A user's own small ViT: nine patches, two heads, three blocks."""

from __future__ import annotations

import torch


def build():
    """Return the network."""
    from timm.models.vision_transformer import VisionTransformer

    torch.manual_seed(1)
    net = VisionTransformer(img_size=48, patch_size=16, num_classes=2, embed_dim=16, depth=3, num_heads=2, mlp_ratio=2)
    with torch.no_grad():
        for weight in net.parameters():
            weight.add_(0.05 * torch.randn_like(weight))
    return net


build.input_size = (48, 48)
build.mean, build.std = (0.5, 0.4, 0.3), (0.25, 0.25, 0.25)
build.class_names = ("healthy", "ill")
