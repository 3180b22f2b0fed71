"""What an SAE is trained with; the command line takes its flags and help from here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from mechinterp.errors import ConfigError, nearest

Architecture = Literal["topk", "batchtopk", "jumprelu", "standard"]
Initialisation = Literal["auto", "neurons", "data", "random"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSAEConfig:
    """How sparse autoencoders are trained. The defaults suit stores of ten thousand to a million tokens."""

    arch: Annotated[Architecture, "what makes the codes sparse; standard is ReLU with an L1 penalty"] = "topk"
    k: Annotated[
        int, "features active in a token; on average for batchtopk, aimed at by jumprelu, unused by standard"
    ] = 32
    expansion: Annotated[float, "features per unit of the site's width"] = 4.0
    seeds: Annotated[tuple[int, ...], "one SAE is trained for each; a seed decides initialisation and data order"] = (
        0,
    )
    epochs: Annotated[int, "passes over the training tokens; `steps` takes precedence"] = 10
    steps: Annotated[int | None, "optimiser steps, instead of epochs"] = None
    batch_size: Annotated[int, "tokens in a step"] = 512
    lr: Annotated[float, "Adam's highest learning rate"] = 1e-3
    warm_up: Annotated[float, "share of the steps in which the learning rate rises from zero"] = 0.05
    decay: Annotated[float, "share of the steps, at the end, in which it falls to zero"] = 0.3
    init: Annotated[
        Initialisation,
        "where decoder and (tied) encoder start: the site's own units and their opposites, training tokens, at random; "
        "auto takes the units where most activations are zero, else training tokens",
    ] = "auto"
    aux: Annotated[float, "weight of the loss that revives dead features (topk, batchtopk)"] = 1.0
    dead_after: Annotated[float, "epochs of silence after which a feature counts as dead in training"] = 0.25
    restarts: Annotated[
        int, "times that silent features start anew at the worst reconstructed tokens: after the first, second, … epoch"
    ] = 4
    sparsity: Annotated[float, "weight of the L1 penalty (standard) or of the distance to k (jumprelu)"] = 1.0
    device: Annotated[str, "where to train: cpu, cuda, cuda:1, …"] = "cpu"

    def __post_init__(self) -> None:
        if self.arch not in get_args(Architecture):
            raise ConfigError(f"unknown architecture '{self.arch}': {nearest(self.arch, get_args(Architecture))}")
        if self.init not in get_args(Initialisation):
            raise ConfigError(f"unknown initialisation '{self.init}': {nearest(self.init, get_args(Initialisation))}")
        for name in ("k", "epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}: it must be at least 1")
        if self.steps is not None and self.steps < 1:
            raise ConfigError(f"steps is {self.steps}: it must be at least 1")
        for name in ("expansion", "lr", "dead_after"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} is {getattr(self, name)}: it must be above 0")
        for name in ("aux", "restarts", "sparsity"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}: it must not be negative")
        if self.warm_up < 0 or self.decay < 0 or self.warm_up + self.decay > 1:
            raise ConfigError(f"warm_up {self.warm_up} and decay {self.decay}: neither below 0, and at most 1 together")
        if not self.seeds:
            raise ConfigError("no seed given: name at least one")
        if len(set(self.seeds)) != len(self.seeds) or min(self.seeds) < 0:
            raise ConfigError(f"seeds are {', '.join(map(str, self.seeds))}: each once, none negative")

    def width(self, d_in: int) -> int:
        """Return the number of features for a site of `d_in` units.

        Raises
        ------
        ConfigError
            If that is fewer than `k`.

        """
        width = round(self.expansion * d_in)
        if self.k > width:
            raise ConfigError(
                f"k is {self.k}, above the {width} features that expansion {self.expansion:g} gives a site {d_in} wide: "
                "take a smaller k or a larger expansion"
            )
        return width
