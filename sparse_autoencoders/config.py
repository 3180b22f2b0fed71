"""What an SAE is trained with; the command line takes its flags and help from here."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Annotated, Literal, get_args

from mechinterp.errors import ConfigError, nearest

Architecture = Literal[
    "topk", "batchtopk", "matryoshka", "jumprelu", "gated", "standard", "matching-pursuit", "archetypal"
]
Schedule = Literal["constant", "cosine"]
Initialisation = Literal["auto", "neurons", "data", "random"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSAEConfig:
    """How sparse autoencoders are trained. The defaults suit stores of ten thousand to a million tokens."""

    arch: Annotated[Architecture, "what makes the codes sparse; standard is ReLU with an L1 penalty"] = "topk"
    k: Annotated[
        int,
        "features active in a token; on average for batchtopk and matryoshka, rounds of matching-pursuit, aimed at by jumprelu, "
        "unused by gated and standard",
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
    schedule: Annotated[Schedule, "what the learning rate does in between"] = "constant"
    anneal_k: Annotated[float, "how many times k the training starts with; it falls to k by half of the steps"] = 1.0
    prefixes: Annotated[
        tuple[float, ...], "shares of the dictionary that each reconstruct alone (matryoshka), ascending to 1"
    ] = (0.0625, 0.125, 0.25, 0.5, 1.0)
    balance: Annotated[
        float, "weight of a prefix's loss, as a multiple of the next wider one's; 1: all count the same (matryoshka)"
    ] = 0.5
    clip: Annotated[float | None, "largest norm of a step's gradient; unlimited if left out"] = None
    ema: Annotated[
        float, "weight of the past in an average over the steps that is saved in place of the last; 0: none"
    ] = 0.0
    patience: Annotated[
        int, "epochs without a better explained variance of held-out groups after which training stops; 0: never"
    ] = 0
    checkpoint_minutes: Annotated[float, "minutes between checkpoints, which a later run goes on from"] = 5.0
    init: Annotated[
        Initialisation,
        "where decoder and (tied) encoder start: the site's own units and their opposites, training tokens, at random; "
        "auto takes the units where most activations are zero and the start explains anything, else training tokens",
    ] = "auto"
    aux: Annotated[
        float, "weight of the loss that revives dead features (archetypal; topk, batchtopk, matryoshka where wake is 0)"
    ] = 1.0
    dead_after: Annotated[float, "epochs of silence after which a feature counts as dead in training"] = 0.25
    restarts: Annotated[
        int,
        "times that silent features start anew at the worst reconstructed tokens: after the first, second, … epoch "
        "(where wake does not act)",
    ] = 4
    wake: Annotated[
        float,
        "epochs of silence after which a feature gets a new place at alike tokens that leave something over (topk, batchtopk, matryoshka); "
        "0: never, and aux and restarts act instead",
    ] = 0.1
    sparsity: Annotated[float, "weight of the L1 penalty (standard, gated) or of the distance to k (jumprelu)"] = 1.0
    archetypes: Annotated[
        int,
        "centroids of the training tokens that decoder directions are mixtures of (archetypal); at most the tokens drawn",
    ] = 512
    relaxation: Annotated[
        float, "how far a direction may leave the archetypes' hull, as a share of their mean norm (archetypal)"
    ] = 0.3
    skip: Annotated[bool, "give a transcoder a linear path of its own beside the features"] = False
    device: Annotated[str, "where to train: cpu, cuda, cuda:1, …"] = "cpu"

    def __post_init__(self) -> None:
        for setting in fields(self):
            value = getattr(self, setting.name)
            if isinstance(value, float) and not math.isfinite(value):
                raise ConfigError(f"{setting.name} is {value}: it must be a finite number")
        if self.arch not in get_args(Architecture):
            raise ConfigError(f"unknown architecture '{self.arch}': {nearest(self.arch, get_args(Architecture))}")
        if self.schedule not in get_args(Schedule):
            raise ConfigError(f"unknown schedule '{self.schedule}': {nearest(self.schedule, get_args(Schedule))}")
        if self.init not in get_args(Initialisation):
            raise ConfigError(f"unknown initialisation '{self.init}': {nearest(self.init, get_args(Initialisation))}")
        for name in ("k", "epochs", "batch_size", "archetypes"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}: it must be at least 1")
        if self.steps is not None and self.steps < 1:
            raise ConfigError(f"steps is {self.steps}: it must be at least 1")
        for name in ("expansion", "lr", "dead_after", "anneal_k", "balance", "checkpoint_minutes"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} is {getattr(self, name)}: it must be above 0")
        if self.clip is not None and not self.clip > 0:
            raise ConfigError(f"clip is {self.clip}: it must be above 0, or left out")
        if not 0 <= self.ema < 1:
            raise ConfigError(f"ema is {self.ema}: it must be at least 0 and below 1")
        if list(self.prefixes) != sorted(set(self.prefixes)) or not self.prefixes or self.prefixes[-1] != 1:
            raise ConfigError(
                f"prefixes are {', '.join(map(str, self.prefixes))}: each larger than the last, the last 1"
            )
        if self.prefixes[0] <= 0:
            raise ConfigError(f"the first prefix is {self.prefixes[0]}: it must be above 0")
        for name in ("aux", "restarts", "wake", "sparsity", "patience", "relaxation"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}: it must not be negative")
        if self.warm_up < 0 or self.decay < 0 or self.warm_up + self.decay > 1:
            raise ConfigError(f"warm_up {self.warm_up} and decay {self.decay}: neither below 0, and at most 1 together")
        if not self.seeds:
            raise ConfigError("no seed given: name at least one")
        if len(set(self.seeds)) != len(self.seeds) or min(self.seeds) < 0 or max(self.seeds) >= 1 << 63:
            raise ConfigError(
                f"seeds are {', '.join(map(str, self.seeds))}: each once, none negative, none above 2^63 - 1"
            )

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
