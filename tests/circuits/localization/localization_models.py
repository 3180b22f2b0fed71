"""What the tests of localization share: small models, and images whose lesions are known."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from mechinterp.images.image_set import ImageSet
from mechinterp.models.discovery import discover_sites
from mechinterp.models.vision_model import InputContract, VisionModel

SIZE = 24


def small_vit(bias=True):
    """An untrained timm ViT in double precision: 9 patches, two heads, three classes."""
    from timm.models.vision_transformer import VisionTransformer

    torch.manual_seed(3)
    module = VisionTransformer(
        img_size=12, patch_size=4, in_chans=1, num_classes=3, embed_dim=8, depth=2, num_heads=2, mlp_ratio=2
    ).eval()
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
            if not bias and (name.endswith("bias") or name in {"pos_embed", "cls_token"}):
                parameter.zero_()
    contract = InputContract(12, 12, 1, mean=(0.0,), std=(1.0,))
    sites = discover_sites(module, contract)
    return VisionModel(module.double(), "tests:vit", contract, ("a", "b", "c"), "logits", sites)


def vit_images(n, seed=0):
    return torch.randn(n, 1, 12, 12, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class SpotCounter(nn.Module):
    """Its second logit is the brightness above 0.5 within two stages of small convolutions: it sees spots and nothing else."""

    def __init__(self):
        super().__init__()
        self.stages = nn.ModuleList(
            [
                nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU()),
                nn.Sequential(nn.Conv2d(2, 2, 4, stride=2, padding=1), nn.ReLU()),
            ]
        )
        self.head = nn.Linear(2, 2)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.zero_()
            self.stages[0][0].weight[0, 0, 1, 1] = 1.0
            self.stages[0][0].bias[0] = -0.5
            self.stages[1][0].weight[0, 0, 1:3, 1:3] = 1.0
            self.head.weight[1, 0] = 10.0

    def forward(self, x):
        for stage in self.stages:
            x = stage(x)
        return self.head(x.mean((2, 3)))


def spot_model():
    module = SpotCounter().eval()
    contract = InputContract(SIZE, SIZE, 1, mean=(0.0,), std=(1.0,))
    return VisionModel(module, "tests:spots", contract, ("none", "spots"), "logits", discover_sites(module, contract))


def spot_images(n=24, seed=0, prefix="p", spacing=(0.5, 0.5)):
    """Dim noise with one bright square of 4 × 4 pixels off the centre, and its mask; two images a patient."""
    drawn = np.random.default_rng(seed)
    arrays, masks = [], []
    for _ in range(n):
        image = 0.3 * drawn.random((SIZE, SIZE), dtype=np.float32)
        row, column = drawn.integers(0, 5), drawn.integers(0, SIZE - 4)
        image[row : row + 4, column : column + 4] = 0.95
        mask = np.zeros((SIZE, SIZE), dtype=bool)
        mask[row : row + 4, column : column + 4] = True
        arrays.append(image)
        masks.append(mask)
    return ImageSet(
        ids=tuple(f"{prefix}{i}" for i in range(n)),
        read=lambda i: arrays[i],
        spacing_mm=(spacing,) * n,
        groups=tuple(f"{prefix}{i // 2}" for i in range(n)),
        read_masks=lambda i: {"spot": masks[i], "nothing": np.zeros_like(masks[i])},
        name="spots",
    )


@contextmanager
def one_thread():
    """Two threads of many workers wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def hooks(module):
    return sum(
        len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) + ("forward" in vars(m))
        for m in module.modules()
    )
