"""Settings of the brain-MRI study: fixed when it starts, and part of its results."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from mechinterp.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class BrainMRIConfig:
    """What the study does; every field is a flag of ``mechinterp study brain-mri``."""

    model: Annotated[
        str | None, "timm:NAME, hf:NAME_OR_DIR, onnx:FILE or py:FILE.py:FUNCTION; default: the published classifier"
    ] = None
    weights: Annotated[str | None, "safetensors file or state dict; `random` asks for an untrained model"] = None
    site: Annotated[str | None, "where to look; default: the last convolution, or a block three quarters deep"] = None
    target: Annotated[str | None, "class asked about; default: meningioma, or what the model answers most"] = None
    reference: Annotated[str | None, "class to compare with; default: notumor, or what it answers second most"] = None
    fit: Annotated[
        Literal["stretch", "pad", "crop"], "how slices become the input; stretch is the published classifier's own way"
    ] = "stretch"
    threshold: Annotated[float, "probability above which a slice counts as called the target"] = 0.9
    step_mm: Annotated[float, "distance of the slices [mm]"] = 2.0
    k: Annotated[int, "features active per cell"] = 32
    expansion: Annotated[int, "features per channel; 86 slices give 19,350 correlated cells: keep it at 4 or below"] = 2
    epochs: Annotated[
        int, "passes over the training slices; held-out variance peaks early, more revive silent features"
    ] = 10
    n_controls: Annotated[int, "random sets beside every set of features"] = 200
    seed: Annotated[int, "decides every random choice"] = 0
    quick: Annotated[bool, "a coarser version in about a third of the time: fewer epochs, sizes and preparations"] = (
        False
    )

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:
            raise ConfigError(f"threshold is {self.threshold}: it must lie between 0 and 1")
        if self.expansion < 1:
            raise ConfigError(f"expansion is {self.expansion}: it must be at least 1")
