"""Build a ViT that computes a plan: patch detectors, heads that gather patches into CLS, gates as MLP neurons.

The module is timm's own ``VisionTransformer`` with ReLU for GELU and without normalisation, so that its logit has a closed
form; attention, residual stream and names of sites are those of every timm ViT.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from circuits.planted.dictionary import spread_directions
from circuits.planted.model import PlantedModel, wrapped
from circuits.planted.pictures import patterns
from circuits.planted.plan import CircuitPlan
from mechinterp.errors import ConfigError

HEADS = 4


@dataclass(frozen=True)
class Stream:
    """Where things stand in the residual stream.

    Parameters
    ----------
    names
        Inputs, then gates in order of layers: what is written for CLS to read.
    inputs
        How many patterns patches show, in the first dimensions.
    directions
        Along which direction behind them each name is written.

    """

    names: tuple[str, ...]
    inputs: int
    directions: Float[Tensor, "name width"]

    @property
    def width(self) -> int:
        """Width of the stream: a multiple of the number of heads, with room for the patterns in each head's share."""
        # the last head is left free for a pattern that it seeks
        needed = max(self.inputs + int(self.directions.shape[1]), int(np.ceil(self.inputs * HEADS / (HEADS - 1))))
        return HEADS * int(np.ceil(needed / HEADS))

    def reading(self, weights: dict[str, float]) -> Float[Tensor, " width"]:
        """Return the weights over the stream that read some names."""
        row = torch.zeros(self.width, dtype=torch.float64)
        for name, weight in weights.items():
            row[self.inputs : self.inputs + self.directions.shape[1]] += (
                weight * self.directions[self.names.index(name)]
            )
        return row

    def writing(self, name: str) -> Float[Tensor, " width"]:
        """Return the direction along which a name is written."""
        return self.reading({name: 1.0})


def planted_vit(
    plan: CircuitPlan,
    *,
    cell_px: int = 6,
    cells: int = 4,
    superposition: float = 1.0,
    seek: Mapping[str, float] | None = None,
    seed: int = 0,
) -> PlantedModel:
    """Return a ViT that computes a plan, one block a layer of gates.

    In the first block each head attends to all patches alike and gathers its share of the patterns for CLS: its value is the
    sum of their amplitudes. Gates are neurons of the MLPs and read what any earlier block has written.

    Parameters
    ----------
    plan
        What it computes; gates may read any earlier layer.
    cell_px, cells
        Size of a patch, and patches along each side.
    superposition
        Names per dimension of the residual stream behind the patterns.
    seek
        Patterns that the last head looks for by its keys, with the sharpness of its attention: the patch that shows one is
        gathered into CLS. At most one, since a head has one pattern of attention.
    seed
        Of the directions they are written along.

    Raises
    ------
    ConfigError
        If more than one pattern is sought, or one that no image shows.

    """
    seek = dict(seek or {})
    if len(seek) > 1 or not seek.keys() <= set(plan.inputs):
        raise ConfigError(f"a head seeks {', '.join(seek)}: give one of the patterns {', '.join(plan.inputs)}")
    shapes = patterns(len(plan.inputs), cell_px)
    names = plan.inputs + tuple(g.name for g in plan.gates)
    width = int(np.ceil(len(names) / max(superposition, 1.0)))
    directions = (
        torch.eye(len(names), dtype=torch.float64) if superposition <= 1 else spread_directions(len(names), width, seed)
    )
    stream = Stream(names, len(plan.inputs), directions)
    module = _module(plan, stream, cell_px, cells).double().eval()
    module.requires_grad_(False)
    with torch.no_grad():
        units = _detect_and_gather(module, stream, shapes, cells, seek)
        for layer in range(1, plan.depth + 1):
            _plant_gates(module, plan, stream, layer)
        module.head.weight.zero_()
        module.head.bias.zero_()
        module.head.weight[1] = stream.reading(dict(plan.readout))
        module.head.bias[1] = plan.bias
    model = wrapped(module, "vit", cells, cell_px)
    places: dict[str, tuple[tuple[str, int], ...]] = {
        name: (("hook_embed", i), ("blocks.0.attn.hook_z", units[i])) for i, name in enumerate(plan.inputs)
    }
    for layer in range(1, plan.depth + 1):
        site = f"blocks.{layer - 1}.mlp.hook_post"
        places |= {name: ((site, j),) for j, name in enumerate(plan.layer(layer))}
    sites = ("hook_embed", "blocks.0.attn.hook_z", *(f"blocks.{i}.mlp.hook_post" for i in range(plan.depth)))
    gram = directions @ directions.T
    crosstalk = {
        name: {other: float(gram[a, b]) for b, other in enumerate(names) if b != a} for a, name in enumerate(names)
    }
    known = CircuitPlan(plan.inputs, plan.gates, plan.readout, plan.bias, crosstalk if superposition > 1 else {})
    return PlantedModel(model, known, shapes, cells, sites, places, seeking=seek)


def _module(plan: CircuitPlan, stream: Stream, cell_px: int, cells: int) -> Any:
    from timm.models.vision_transformer import VisionTransformer

    hidden = max(len(plan.layer(i)) for i in range(1, plan.depth + 1))
    return VisionTransformer(
        img_size=cells * cell_px,
        patch_size=cell_px,
        in_chans=1,
        num_classes=2,
        embed_dim=stream.width,
        depth=plan.depth,
        num_heads=HEADS,
        mlp_ratio=hidden / stream.width,
        norm_layer=nn.Identity,
        act_layer=nn.ReLU,
    )


def _detect_and_gather(
    module: Any, stream: Stream, shapes: np.ndarray, cells: int, seek: Mapping[str, float]
) -> list[int]:
    """Let patches write their patterns' amplitudes, and the first block's heads gather them; return the heads' units."""
    for parameter in module.parameters():
        parameter.zero_()
    module.patch_embed.proj.weight[: stream.inputs] = torch.from_numpy(shapes)[:, None]
    block, width = module.blocks[0].attn, stream.width
    size = width // HEADS
    last = width - size
    units: list[int] = []
    for i in range(stream.inputs):
        sharpness = seek.get(stream.names[i])
        unit = last if sharpness is not None else i
        units.append(unit)
        if sharpness is None:
            # queries and keys stay 0, so attention is a mean over all tokens: times their number it is a sum
            block.qkv.weight[2 * width + unit, i] = cells * cells + 1
        else:
            block.qkv.bias[last] = sharpness * size**0.5
            block.qkv.weight[width + last, i] = 1.0
            block.qkv.weight[2 * width + unit, i] = 1.0
        block.proj.weight[:, unit] = stream.writing(stream.names[i])
    return units


def _plant_gates(module: Any, plan: CircuitPlan, stream: Stream, layer: int) -> None:
    mlp = module.blocks[layer - 1].mlp
    for j, gate in enumerate(g for g in plan.gates if g.layer == layer):
        mlp.fc1.weight[j] = stream.reading(dict(gate.weights))
        mlp.fc1.bias[j] = gate.bias
        mlp.fc2.weight[:, j] = stream.writing(gate.name)
