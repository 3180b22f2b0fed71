"""Does a map depend on what the model learned? It must change when weights, or the labels learned from, are made random.

Of Adebayo et al. [1]_: weights are made random layer by layer from the answer down to the pixels (cascade), and each layer alone
(independent). A map that stays alike shows the image, not the model. Values within each weight tensor are shuffled, so that
their size stays and what was learned goes; the model itself is not touched, a copy is.

References
----------
.. [1] Adebayo et al. Sanity checks for saliency maps. NeurIPS 2018 (arXiv 1810.03292).

"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from circuits.localization.estimates import Estimate, estimate
from circuits.localization.maps import RelevanceMaps
from circuits.localization.shown_images import ShownImages
from mechinterp.errors import ShapeError
from mechinterp.models.vision_model import VisionModel
from mechinterp.statistics import average_ranks

MakeMaps = Callable[[VisionModel, ShownImages], RelevanceMaps]


@dataclass(frozen=True)
class Stage:
    """How alike maps are when some layers are random.

    Parameters
    ----------
    layer
        The layer that was made random last (cascade) or alone (independent).
    alike
        Rank correlation with the trained model's maps, as the maps are read.
    alike_in_size
        The same of absolute values, which often stays where the sign does not.

    """

    layer: str
    alike: Estimate
    alike_in_size: Estimate

    def to_json(self) -> dict[str, Any]:
        """Return the stage as plain JSON."""
        return {
            "layer": self.layer, "alike": self.alike.to_json(), "alike_in_size": self.alike_in_size.to_json()
        }  # fmt: skip


@dataclass(frozen=True)
class Randomisation:
    """Result of the check.

    Parameters
    ----------
    cascade
        From the answer down; the last stage is wholly random.
    independent
        Each layer alone.
    limit
        Rank correlation from which on maps are alike.

    """

    cascade: tuple[Stage, ...]
    independent: tuple[Stage, ...]
    limit: float

    @property
    def unchanged(self) -> bool:
        """Whether the maps of the wholly random model are like the trained one's."""
        return maps_unchanged(self.cascade[-1].alike, self.limit)

    def to_json(self) -> dict[str, Any]:
        """Return the result as plain JSON."""
        return {
            "cascade": [s.to_json() for s in self.cascade],
            "independent": [s.to_json() for s in self.independent],
            "limit": self.limit,
            "unchanged": self.unchanged,
        }


def maps_unchanged(alike: Estimate, limit: float) -> bool:
    """Return whether maps count as unchanged: their likeness, at the interval's upper end if there is one, reaches a limit."""
    if alike.value is None:
        return False
    ends = alike.interval.ends
    return (alike.value if ends is None else ends[1]) >= limit


def randomise(
    model: VisionModel,
    make: MakeMaps,
    shown: ShownImages,
    maps: RelevanceMaps,
    *,
    stages: int = 6,
    limit: float = 0.5,
    independent: bool = True,
    boot: int = 1000,
    seed: int = 0,
) -> Randomisation:
    """Make a model's weights random, in a copy, and say how alike the maps stay.

    Parameters
    ----------
    model
        The trained model.
    make
        Makes maps with a model.
    shown, maps
        Some images, and the trained model's maps of them.
    stages
        At most so many stages of the cascade (and layers alone), spread evenly; the last is always wholly random.
    limit
        Rank correlation from which on maps are alike.
    independent
        Whether to make each layer random alone, too.
    boot, seed
        Of the intervals; the seed also decides the shuffles.

    """
    groups = layers_of(model, shown.x[:1])
    shown_stages = sorted({round(s) for s in np.linspace(0, len(groups) - 1, min(stages, len(groups)))})

    def stage(names: Sequence[str], layer: str) -> Stage:
        found = make(with_random_layers(model, names, seed), shown)
        return likeness(maps, found, layer, boot=boot, seed=seed)

    ordered = list(groups)
    cascade = []
    for k in shown_stages:
        names = [name for layer in ordered[: k + 1] for name in groups[layer]]
        cascade.append(stage(names, ordered[k]))
    alone = [stage(groups[ordered[k]], ordered[k]) for k in shown_stages] if independent else []
    return Randomisation(tuple(cascade), tuple(alone), limit)


def likeness(a: RelevanceMaps, b: RelevanceMaps, layer: str, *, boot: int = 1000, seed: int = 0) -> Stage:
    """Return how alike two sets of maps of the same images are."""
    if a.values.shape != b.values.shape:
        raise ShapeError(
            f"maps of shapes {a.values.shape} and {b.values.shape} cannot be compared: give the same images"
        )
    return Stage(
        layer,
        estimate(rank_correlation(a.values, b.values), a.shown, boot=boot, seed=seed),
        estimate(rank_correlation(np.abs(a.values), np.abs(b.values)), a.shown, boot=boot, seed=seed),
    )


def rank_correlation(
    a: Float[NDArray[np.floating], "image row column"], b: Float[NDArray[np.floating], "image row column"]
) -> Float[NDArray[np.float64], " image"]:
    """Return Spearman's correlation of two maps over the pixels of each image; 0 where a map is constant: it says nothing."""
    ranks = [average_ranks(m.reshape(len(m), -1)) for m in (a, b)]
    centred = [r - r.mean(1, keepdims=True) for r in ranks]
    norms = np.sqrt(np.square(centred[0]).sum(1) * np.square(centred[1]).sum(1))
    products = (centred[0] * centred[1]).sum(1)
    found: NDArray[np.float64] = np.divide(products, norms, out=np.zeros(len(a)), where=norms > 0)
    return found


def layers_of(model: VisionModel, x: Tensor) -> dict[str, list[str]]:
    """Return the names of a model's weights by layer, from the answer down to the pixels.

    A layer is a numbered part (``stages.2``, ``blocks.0``) or a top-level module; weights that stand by themselves, such as a
    CLS token, are made random with the first layer.
    """
    order: list[str] = []

    def note(name: str) -> Callable[..., None]:
        def visit(*_: Any) -> None:
            if name in order:
                order.remove(name)
            order.append(name)

        return visit

    owners = {name: module for name, module in model.module.named_modules() if name and _own_state(module)}
    handles = [module.register_forward_hook(note(_layer(name))) for name, module in owners.items()]
    try:
        with torch.no_grad():
            model.run(x)
    finally:
        for handle in handles:
            handle.remove()
    groups: dict[str, list[str]] = {layer: [] for layer in reversed(order)}
    first = order[0] if order else ""
    for name in model.module.state_dict():
        owner = name.rpartition(".")[0]
        layer = _layer(owner) if owner in owners else first
        groups.setdefault(layer if layer in groups else first, []).append(name)
    return groups


def with_random_layers(model: VisionModel, names: Sequence[str], seed: int = 0) -> VisionModel:
    """Return a copy of a model in which the values of some weights are shuffled, each tensor in itself.

    Parameters
    ----------
    model
        Left as it is.
    names
        Names in its module's state.
    seed
        Of the shuffles.

    """
    module: nn.Module = copy.deepcopy(model.module)
    state = module.state_dict()
    drawn = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name in names:
            values = state[name]
            if values.is_floating_point() and values.numel() > 1:
                order = torch.randperm(values.numel(), generator=drawn).to(values.device)
                values.copy_(values.flatten()[order].reshape(values.shape))
    return replace(model, module=module, trained=False, weights="random", _hash=None)


def _own_state(module: nn.Module) -> bool:
    own: Iterator[Any] = iter([*module.parameters(recurse=False), *module.buffers(recurse=False)])
    return next(own, None) is not None


def _layer(name: str) -> str:
    """Return a module's layer: its path up to the first number, or its first part."""
    parts = name.split(".")
    numbered = next((k for k, part in enumerate(parts) if part.isdigit()), None)
    return parts[0] if numbered is None else ".".join(parts[: numbered + 1])
