"""What every source of models is asked for, and what it hands back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Literal

import torch
from safetensors import SafetensorError
from torch import nn

from mechinterp.errors import ConfigError, ModelError
from mechinterp.models.options import Option
from mechinterp.models.vision_model import InputContract
from mechinterp.models.weights import first_line

# what libraries raise when a model cannot be built with what it was given
BUILD_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    OSError,
    RuntimeError,
    SafetensorError,
    TypeError,
    UnpicklingError,
    ValueError,
)


@dataclass(frozen=True)
class Request:
    """What a user asked of a source.

    Parameters
    ----------
    spec
        The whole spec, for messages.
    name
        What stands after the source's prefix, without options.
    weights
        ``None``, ``"random"``, or a file.
    download
        Whether the network may be used.
    classes
        Number of classes the user named, or ``None``.
    input_size
        (height, width), or (depth, height, width) of a volume, that the user asked for, or ``None``.
    seed
        Of random weights.
    options
        Keyword arguments to build the model with, from the spec.

    """

    spec: str
    name: str
    weights: str | Path | None = None
    download: bool = False
    classes: int | None = None
    input_size: tuple[int, ...] | None = None
    seed: int = 0
    options: Mapping[str, Option] = field(default_factory=dict)

    @property
    def random(self) -> bool:
        """Whether random weights were asked for."""
        return self.weights == "random"

    @property
    def weights_file(self) -> Path | None:
        """The weights file the user named, if any."""
        return None if self.weights is None or self.random else Path(self.weights)

    @property
    def height_and_width(self) -> tuple[int, int] | None:
        """The size asked for, for a source of models of images.

        Raises
        ------
        ConfigError
            If a volume's size was asked for.

        """
        if self.input_size is None:
            return None
        if len(self.input_size) != 2:
            raise ConfigError(f"'{self.spec}' takes images: give its input size as HEIGHT,WIDTH")
        return self.input_size[0], self.input_size[1]

    @contextmanager
    def building(self) -> Iterator[None]:
        """Seed the random weights made inside this context, and say in one line why a model cannot be built.

        Raises
        ------
        ModelError
            If the library raises one of `BUILD_ERRORS`.

        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            try:
                yield
            except BUILD_ERRORS as error:
                raise ModelError(f"'{self.spec}' cannot be built: {first_line(error)}") from None


@dataclass(frozen=True)
class Loaded:
    """What a source hands back; the rest is found by running the module once.

    Parameters
    ----------
    module
        The user's module.
    contract
        What it wants to be fed.
    class_names
        Names of its outputs, or ``None`` when the source knows none.
    trained
        False when the weights are random.
    weights
        Where they came from, in words.
    licence
        Licence of the weights where it is known.
    stages
        Dotted paths of the stages, where the source describes them.
    notes
        What a reader should know.
    activation
        What turns its logits into probabilities, where the source knows and the module does not show it: ``sigmoid`` for
        several findings in one image.

    """

    module: nn.Module
    contract: InputContract
    class_names: tuple[str, ...] | None = None
    trained: bool = True
    weights: str = "embedded"
    licence: str | None = None
    stages: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    activation: Literal["softmax", "sigmoid"] | None = None
