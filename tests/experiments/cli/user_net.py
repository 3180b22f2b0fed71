"""A user's own network, as a researcher would bring it."""

from __future__ import annotations

import torch
from torch import nn


class Net(nn.Module):
    """Three convolutions, a mean, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(inplace=True))
        self.body = nn.Sequential(
            nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU(inplace=True), nn.Conv2d(16, 24, 3, 2, 1), nn.ReLU()
        )
        self.head = nn.Linear(24, 2)
        with torch.no_grad():
            self.head.weight.mul_(20)

    def forward(self, x):
        return self.head(self.body(self.stem(x)).mean((2, 3)))


def build():
    """Return the network."""
    return Net()


build.input_size = (48, 48)
build.mean, build.std = (0.5, 0.4, 0.3), (0.25, 0.25, 0.25)
build.class_names = ("healthy", "<script>alert(1)</script>")


def build_undecided():
    """Return the network with a bias at which it answers about half of small fundus phantoms either way."""
    net = Net()
    with torch.no_grad():
        net.head.bias[1] += 1.588
    return net


build_undecided.input_size = build.input_size
build_undecided.mean, build_undecided.std = build.mean, build.std
build_undecided.class_names = build.class_names
