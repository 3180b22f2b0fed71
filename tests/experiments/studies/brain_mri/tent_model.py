"""A model whose answer is known: "meningioma" where a slice's mean brightness lies in a band, which it does twice in a head."""

from __future__ import annotations

import torch
from torch import nn


class Tent(nn.Module):
    """Channel 0 of ``features`` is the brightness of a patch; the head turns its mean into a tent; other channels are unused."""

    def __init__(self, low: float, peak: float, high: float) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.features = nn.Sequential(nn.Conv2d(1, 16, 8, 8), nn.ReLU())
        self.tent = nn.Linear(16, 3)
        self.head = nn.Linear(3, 3)
        with torch.no_grad():
            self.features[0].weight.copy_(torch.randn(16, 1, 8, 8, generator=generator) * 0.1)
            self.features[0].bias.zero_()
            self.features[0].weight[0] = 1 / 64
            self.tent.weight.zero_()
            self.tent.weight[:, 0] = 1.0
            self.tent.bias.copy_(torch.tensor([-low, -peak, -high]))
            self.head.weight.zero_()
            # rises from `low` to 1 at `peak`, falls to 0 at `high`
            up, down = 1 / (peak - low), 1 / (high - peak)
            self.head.weight[0] = 30 * torch.tensor([up, -(up + down), down])
            self.head.bias.copy_(torch.tensor([-8.0, 0.0, -20.0]))

    def forward(self, x):
        pooled = self.features(x).mean((2, 3))
        return self.head(torch.relu(self.tent(pooled)))


def build():
    """Return the model with a band that slices at a third and two thirds of a head fall into."""
    return Tent(0.06, 0.12, 0.22)


build.input_size = (64, 64)
build.mean, build.std = (0.0,), (1.0,)
build.class_names = ("meningioma", "notumor", "other")
