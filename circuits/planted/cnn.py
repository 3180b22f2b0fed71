"""Build a CNN that computes a plan: detectors on a map, a sum over cells, gates as 1 × 1 convolutions."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from circuits.planted.dictionary import KnownDictionary, spread_directions
from circuits.planted.model import PlantedModel, wrapped
from circuits.planted.pictures import patterns
from circuits.planted.plan import CircuitPlan
from mechinterp.errors import ConfigError
from mechinterp.feature_encoder import FeatureEncoder


class SumOverCells(nn.Module):
    """Add up a map's cells; the result keeps a cell, so that gates are convolutions."""

    def forward(self, x: Float[Tensor, "batch channel row column"]) -> Float[Tensor, "batch channel 1 1"]:
        """Return the sum."""
        return x.sum((2, 3), keepdim=True)


class PlantedCNN(nn.Module):
    """Detectors, a sum over cells, layers of gates, a linear head.

    Parameters
    ----------
    detect
        From the image to a map with one value per pattern and cell.
    gates
        One module a layer.
    head
        From the last layer to the logits.

    """

    def __init__(self, detect: nn.Module, gates: list[nn.Module], head: nn.Linear) -> None:
        super().__init__()
        self.detect = detect
        self.pool = SumOverCells()
        self.gates = nn.ModuleList(gates)
        self.head = head

    def forward(self, x: Float[Tensor, "batch 1 height width"]) -> Float[Tensor, "batch 2"]:
        """Return the logits."""
        x = self.pool(self.detect(x))
        for gate in self.gates:
            x = gate(x)
        logits: Tensor = self.head(x.flatten(1))
        return logits


def planted_cnn(
    plan: CircuitPlan, *, cell_px: int = 6, cells: int = 4, superposition: float = 1.0, seed: int = 0
) -> PlantedModel:
    """Return a CNN that computes a plan whose gates read the layer just before them.

    Parameters
    ----------
    plan
        What it computes.
    cell_px, cells
        Size of a cell, and cells along each side.
    superposition
        Features per neuron in every layer. Above 1, a layer's features share its neurons along the directions of a known
        dictionary, and what is read of one contains a little of the others: the plan returned says how much.
    seed
        Of the dictionary.

    Raises
    ------
    ConfigError
        If a gate reads past the layer before it: a CNN without skips cannot.

    """
    _check_adjacent(plan)
    shapes = patterns(len(plan.inputs), cell_px)
    layers = [plan.layer(i) for i in range(plan.depth + 1)]
    sites = ("detect", *(f"gates.{i}" for i in range(plan.depth)))
    directions = [_directions(len(names), superposition, seed + i) for i, names in enumerate(layers)]
    gates = {gate.name: gate for gate in plan.gates}
    modules: list[nn.Module] = []
    for i, names in enumerate(layers):
        if i == 0:
            read, bias = torch.from_numpy(shapes)[:, None], torch.zeros(len(names))
        else:
            weights = torch.tensor(
                [[gates[n].weights.get(s, 0.0) for s in layers[i - 1]] for n in names], dtype=torch.float64
            )
            read = _kernel(weights @ directions[i - 1])
            bias = torch.tensor([gates[n].bias for n in names], dtype=torch.float64)
        modules.append(_layer(read, bias, directions[i] if superposition > 1 else None, cell_px if i == 0 else 1))
    readout = torch.tensor([[plan.readout.get(s, 0.0) for s in layers[-1]]], dtype=torch.float64) @ directions[-1]
    module = PlantedCNN(modules[0], modules[1:], _head(readout, plan.bias)).double().eval()
    model = wrapped(module, "cnn", cells, cell_px)
    places = {n: ((site, j),) for site, names in zip(sites, layers, strict=True) for j, n in enumerate(names)}
    dictionaries: dict[str, FeatureEncoder] = {}
    crosstalk: dict[str, dict[str, float]] = {}
    if superposition > 1:
        for site, names, d in zip(sites, layers, directions, strict=True):
            gram = d @ d.T
            dictionaries[site] = KnownDictionary(site, d, 0.0)
            for a, name in enumerate(names):
                crosstalk[name] = {other: float(gram[a, b]) for b, other in enumerate(names) if b != a}
    known = CircuitPlan(plan.inputs, plan.gates, plan.readout, plan.bias, crosstalk)
    return PlantedModel(model, known, shapes, cells, sites, places, dictionaries)


def _check_adjacent(plan: CircuitPlan) -> None:
    home = {name: i for i in range(plan.depth + 1) for name in plan.layer(i)}
    readers = [(g.name, g.layer, g.weights) for g in plan.gates] + [("the logit", plan.depth + 1, plan.readout)]
    for name, layer, weights in readers:
        for source in weights:
            if home[source] != layer - 1:
                raise ConfigError(
                    f"{name} of layer {layer} reads '{source}' of layer {home[source]}: "
                    "a CNN without skips needs a carry gate in between"
                )


def _directions(n: int, superposition: float, seed: int) -> Float[Tensor, "feature width"]:
    if superposition <= 1:
        return torch.eye(n, dtype=torch.float64)
    return spread_directions(n, max(2, int(np.ceil(n / superposition))), seed)


def _kernel(weights: Float[Tensor, "to from"]) -> Float[Tensor, "to from 1 1"]:
    return weights[:, :, None, None]


def _layer(read: Tensor, bias: Tensor, directions: Tensor | None, stride: int) -> nn.Module:
    conv = nn.Conv2d(read.shape[1], read.shape[0], read.shape[2], stride=stride)
    _set(conv, read, bias)
    if directions is None:
        return nn.Sequential(conv, nn.ReLU())
    write = nn.Conv2d(directions.shape[0], directions.shape[1], 1)
    _set(write, _kernel(directions.T), torch.zeros(directions.shape[1]))
    return nn.Sequential(conv, nn.ReLU(), write)


def _head(readout: Float[Tensor, "1 width"], bias: float) -> nn.Linear:
    head = nn.Linear(readout.shape[1], 2)
    _set(head, torch.cat([torch.zeros_like(readout), readout]), torch.tensor([0.0, bias], dtype=torch.float64))
    return head


def _set(module: nn.Conv2d | nn.Linear, weight: Tensor, bias: Tensor) -> None:
    module.weight = nn.Parameter(weight.double().contiguous(), requires_grad=False)
    module.bias = nn.Parameter(bias.double(), requires_grad=False)
