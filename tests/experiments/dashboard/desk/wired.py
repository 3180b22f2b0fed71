"""A model whose answer to every move is known by hand: a map, its mean, a line; and one with a skip around the site."""

import numpy as np
import torch
from torch import nn

from experiments.dashboard.desk.desk import Desk
from mechinterp.feature_encoder import Directions
from mechinterp.images.arrays import from_arrays
from mechinterp.images.preparation import Preparation
from mechinterp.models.vision_model import InputContract, VisionModel
from mechinterp.sites import Site
from mechinterp.token_grid import TokenGrid

SIDE, CELLS = 8, 16
GRID = TokenGrid(4, 4, (2.0, 2.0), (1.0, 1.0), (2.0, 2.0))
READ = torch.tensor([[1.0, -1.0, 0.0], [0.5, 2.0, 0.0], [0.0, 0.0, 3.0]])
"""Logit = READ @ mean of the map."""


class Wired(nn.Module):
    """Means of 2 x 2 pixels, three channels that are 1, 2 and 3 times as bright, their mean, a line."""

    def __init__(self, skip=False):
        super().__init__()
        self.map = nn.Conv2d(1, 3, 2, 2, bias=False)
        self.act = nn.ReLU()
        self.line = nn.Linear(3, 3, bias=False)
        self.skip = skip
        with torch.no_grad():
            for channel in range(3):
                self.map.weight[channel] = (channel + 1) / 4
            self.line.weight.copy_(READ)

    def forward(self, x):
        hidden = self.act(self.map(x)).mean((2, 3))
        return self.line(hidden) + (x.mean((1, 2, 3))[:, None] if self.skip else 0)


def model(skip=False):
    sites = {"act": Site("act", "act", "output", "map", 3, CELLS, grid=GRID)}
    return VisionModel(
        Wired(skip).eval(), "py:wired", InputContract(SIDE, SIDE, 1), ("low", "mid", "high"), "logits", sites
    )


def pictures(n=4):
    rng = np.random.default_rng(0)
    return from_arrays(rng.uniform(0.1, 0.9, (n, SIDE, SIDE)), intensity_range=(0.0, 1.0))


def encoder():
    """Two orthogonal unit directions, read by projection."""
    return Directions("act", torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.6, 0.8]]), torch.zeros(3))


def desk(skip=False, target="high", reference="low"):
    return Desk(model(skip), pictures(), Preparation(), encoder(), target=target, reference=reference)
