"""What every source of models is asked for, and what it hands back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from mechinterp.models.vision_model import InputContract


@dataclass(frozen=True)
class Request:
    """What a user asked of a source.

    Parameters
    ----------
    spec
        The whole spec, for messages.
    name
        What stands after the source's prefix.
    weights
        ``None``, ``"random"``, or a file.
    download
        Whether the network may be used.
    classes
        Number of classes the user named, or ``None``.
    input_size
        (height, width) the user asked for, or ``None``.
    seed
        Of random weights.

    """

    spec: str
    name: str
    weights: str | Path | None = None
    download: bool = False
    classes: int | None = None
    input_size: tuple[int, int] | None = None
    seed: int = 0

    @property
    def random(self) -> bool:
        """Whether random weights were asked for."""
        return self.weights == "random"

    @property
    def weights_file(self) -> Path | None:
        """The weights file the user named, if any."""
        return None if self.weights is None or self.random else Path(self.weights)


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

    """

    module: nn.Module
    contract: InputContract
    class_names: tuple[str, ...] | None = None
    trained: bool = True
    weights: str = "embedded"
    licence: str | None = None
    stages: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
