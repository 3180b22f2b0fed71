"""Settings of maps and of their table: what the command line's flags are made from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from circuits.localization.lrp_rules import AttentionRule, LrpRules
from mechinterp.errors import ConfigError

Reference = Literal["blur", "mean", "black"]
Level = Literal["pixel", "token", "region"]
LEVELS: tuple[Level, ...] = ("pixel", "token", "region")
REFERENCES: tuple[Reference, ...] = ("blur", "mean", "black")


@dataclass(frozen=True, kw_only=True)
class MapConfig:
    """How maps are made.

    Raises
    ------
    ConfigError
        If a number cannot be meant.

    """

    site: Annotated[
        str | None, "where grad-cam looks and how large a token is; the deepest site with a grid by default"
    ] = None
    reference: Annotated[Reference, "what stands for an absent pixel: blur, mean (of the images) or black"] = "blur"
    blur_share: Annotated[float, "standard deviation of the blur, as a share of the input's height"] = 0.1
    steps: Annotated[int, "points on the way of integrated gradients"] = 24
    tile_mm: Annotated[
        float | None, "side of the square tiles that deletion and insertion take away [mm]; single pixels by default"
    ] = None
    window_share: Annotated[float, "side of an occluding square, as a share of the input's height"] = 0.125
    conv_gamma: Annotated[float, "lrp: gamma of convolutions; 0 is the epsilon rule"] = 0.25
    linear_gamma: Annotated[float, "lrp: gamma of linear layers; 0 is the epsilon rule"] = 0.05
    attention: Annotated[AttentionRule, "lrp: attnlrp, or constant (the pattern is one)"] = "attnlrp"
    rows: Annotated[int, "inputs that are run at once: what bounds the memory"] = 64
    seed: Annotated[int, "of every draw"] = 0

    def __post_init__(self) -> None:
        if self.reference not in REFERENCES:
            raise ConfigError(f"reference is '{self.reference}': it must be {', '.join(REFERENCES)}")
        for name in ("blur_share", "window_share"):
            if not 0 < getattr(self, name) <= 1:
                raise ConfigError(f"{name} is {getattr(self, name):g}: it must be above 0 and at most 1")
        if self.tile_mm is not None and not self.tile_mm > 0:
            raise ConfigError(f"tile_mm is {self.tile_mm:g}: it must be above 0")
        for name in ("steps", "rows"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}: it must be at least 1")
        _ = self.rules  # refuses a gamma that cannot be meant

    @property
    def rules(self) -> LrpRules:
        """The rules of relevance propagation."""
        return LrpRules(conv_gamma=self.conv_gamma, linear_gamma=self.linear_gamma, attention=self.attention)


@dataclass(frozen=True, kw_only=True)
class LocalizationConfig(MapConfig):
    """How maps are made, scored and tested.

    Raises
    ------
    ConfigError
        If a number cannot be meant.

    """

    most_images: Annotated[
        int, "at most so many images with a lesion of each set; every patient's first ones first"
    ] = 60
    faithful_images: Annotated[int, "images that pixels are deleted from and inserted into; 0 leaves it out"] = 40
    random_images: Annotated[int, "images of the randomisation checks; 0 leaves them out"] = 16
    stages: Annotated[int, "at most so many stages of the cascade"] = 6
    alike: Annotated[float, "rank correlation from which on two maps are alike"] = 0.5
    boot: Annotated[int, "resamples of patients"] = 1000

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in (
            ("most_images", 1),
            ("faithful_images", 0),
            ("random_images", 0),
            ("stages", 1),
            ("boot", 100),
        ):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} is {getattr(self, name)}: it must be at least {least}")
        if not 0 < self.alike <= 1:
            raise ConfigError(f"alike is {self.alike:g}: it must be above 0 and at most 1")
