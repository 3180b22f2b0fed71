"""A model whose shortcut is known by construction: three channels (lesion, mark, nothing), read by a linear head."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from mechinterp.models.discovery import discover_sites
from mechinterp.models.vision_model import InputContract, VisionModel

LESION, MARK, NOTHING = 0, 1, 2


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stage = nn.Conv2d(3, 3, 1)
        self.head = nn.Linear(3, 2)

    def forward(self, x):
        return self.head(self.stage(x).relu().mean((2, 3)))


def shortcut_model():
    """Log-odds of ``ill``: 3 × lesion + 4 × mark - 3.5."""
    net = Net().eval()
    with torch.no_grad():
        net.stage.weight.copy_(torch.eye(3)[:, :, None, None])
        net.stage.bias.zero_()
        net.head.weight.copy_(torch.tensor([[0.0, 0.0, 0.0], [3.0, 4.0, 0.0]]))
        net.head.bias.copy_(torch.tensor([0.0, -3.5]))
    contract = InputContract(4, 4, 3, mean=(0.0,) * 3, std=(1.0,) * 3)
    return VisionModel(net, "tests:shortcut", contract, ("well", "ill"), "logits", discover_sites(net, contract))


def pictures(labels, marks, seed=0):
    """Images whose lesion channel is about 1 in the ill, whose mark channel is 1 where marked."""
    random = np.random.default_rng(seed)
    level = np.stack([labels + random.normal(0, 0.3, len(labels)), marks, random.normal(1, 0.3, len(labels))], axis=1)
    x = np.tile(np.maximum(level, 0)[:, :, None, None], (1, 1, 4, 4)) + random.random((len(labels), 3, 4, 4)) * 0.02
    return torch.from_numpy(x).float()


def paired(n, seed=0):
    """Every patient without and with the mark: pictures, labels, marks, patients."""
    labels = np.tile(np.arange(n) % 2 == 1, 2)
    marks = np.repeat([False, True], n)
    once = pictures(labels[:n], np.zeros(n), seed)
    x = torch.cat([once, once.clone()])
    x[n:, MARK] += 1.0
    return x, labels, marks, np.tile(np.arange(n), 2)
