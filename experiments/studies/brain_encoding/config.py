"""Settings of the study of responses to stimuli: fixed when it starts, and part of its results."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from experiments.studies.phantom.config import Architecture
from mechinterp.errors import ConfigError, nearest

Condition = Literal["as-it-is", "random-network", "shuffled-responses", "noise-only", "frozen-random-sae"]
"""What is planted wrong, so that a reader can see the report say so; ``as-it-is`` plants nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BrainEncodingConfig:
    """What the study does; every field is a flag of ``mechinterp study brain-encoding``."""

    data: Annotated[
        str | None,
        "folder of your own stimuli, with metadata.csv, responses.npy and voxels.csv; default: rendered stimuli",
    ] = None
    model: Annotated[
        str | None, "timm:NAME, hf:NAME_OR_DIR, onnx:FILE or py:FILE.py:FUNCTION; default: the reference model"
    ] = None
    weights: Annotated[str | None, "safetensors file or state dict; `random` asks for an untrained model"] = None
    architecture: Annotated[Architecture, "which reference model, where --model names none"] = "cnn"
    condition: Annotated[
        Condition,
        "plant something wrong, and see the report say so: a random network, responses to other stimuli, voxels of noise "
        "alone, or a sparse autoencoder that was never trained",
    ] = "as-it-is"
    extent_deg: Annotated[float | None, "side of --data's images in degrees of visual angle, as they were shown"] = None
    exemplars: Annotated[int, "rendered persons, places and families of gratings, two stimuli of each"] = 800
    subjects: Annotated[int, "simulated subjects"] = 4
    voxels: Annotated[int, "simulated voxels of each subject and region"] = 60
    k: Annotated[int, "features active per cell"] = 8
    expansion: Annotated[int, "features per channel"] = 4
    epochs: Annotated[int, "passes of the autoencoder over the cells of the stimuli to explore on"] = 20
    n_random: Annotated[int, "random rivals beside every result"] = 100
    seed: Annotated[int, "decides every random choice"] = 0
    quick: Annotated[bool, "a coarser version in minutes: fewer voxels, epochs and random controls"] = False

    def __post_init__(self) -> None:
        if self.condition not in get_args(Condition):
            raise ConfigError(f"condition is '{self.condition}': {nearest(self.condition, get_args(Condition))}")
        if self.architecture not in get_args(Architecture):
            raise ConfigError(
                f"architecture is '{self.architecture}': {nearest(self.architecture, get_args(Architecture))}"
            )
        for name, least in (("exemplars", 80), ("subjects", 1), ("voxels", 5), ("n_random", 20)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} is {getattr(self, name)}: the study needs at least {least}")
        for name in ("k", "expansion", "epochs"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}: it must be at least 1")
        if self.extent_deg is not None and not 0 < self.extent_deg <= 180:
            raise ConfigError(f"extent_deg is {self.extent_deg:g}: an image's side lies between 0 and 180 degrees")
        if self.extent_deg is not None and self.data is None:
            raise ConfigError("--extent-deg without --data: the rendered stimuli have an extent of their own")
        if self.weights is not None and self.model is None:
            raise ConfigError("--weights without --model: name the architecture that they belong to")

    @property
    def sizes(self) -> Sizes:
        """How much is looked at."""
        if not self.quick:
            return Sizes(self.exemplars, self.subjects, self.voxels, self.epochs, self.n_random, 1000, 60, 60)
        return Sizes(
            min(self.exemplars, 800), min(self.subjects, 2), min(self.voxels, 30), min(self.epochs, 10),
            min(self.n_random, 40), 500, 30, 60,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much a study looks at.

    Parameters
    ----------
    exemplars, subjects, voxels
        Of what is rendered; voxels per subject and region.
    epochs
        Of the autoencoder.
    n_random
        Random rivals of every result.
    permutations
        Of stimuli, for what is tested over all voxels.
    blanked, changed
        Confirmation stimuli of which parts are blanked, and which are rendered anew with one thing changed.

    """

    exemplars: int
    subjects: int
    voxels: int
    epochs: int
    n_random: int
    permutations: int
    blanked: int
    changed: int
