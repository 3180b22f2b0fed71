"""What effects are measured on: one number per image, from a batch of logits and which images they belong to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechinterp.errors import ConfigError, ShapeError
from mechinterp.models.vision_model import VisionModel
from mechinterp.objectives import Objective


@runtime_checkable
class Metric(Protocol):
    """One number per row of logits; gradients flow through it."""

    @property
    def name(self) -> str:
        """How pages call it."""
        ...

    def at(self, logits: Float[Tensor, "row output"], images: Int[Tensor, " row"]) -> Float[Tensor, " row"]:
        """Return the metric of each row, which belongs to the image of that number."""
        ...


@dataclass(frozen=True)
class OfLogits:
    """A metric that needs the logits alone: an objective, or the user's own function.

    Parameters
    ----------
    function
        From logits (row, output) to one number per row.
    name
        How pages call it.

    """

    function: Callable[[Tensor], Tensor]
    name: str

    def at(self, logits: Float[Tensor, "row output"], images: Int[Tensor, " row"]) -> Float[Tensor, " row"]:
        """Return the function's values.

        Raises
        ------
        ShapeError
            If the function does not return one number per row.

        """
        found = self.function(logits)
        if found.shape != logits.shape[:1]:
            raise ShapeError(
                f"metric '{self.name}' returned shape {tuple(found.shape)} for {len(logits)} rows of logits: "
                "return one number per row"
            )
        return found


@dataclass(frozen=True, eq=False)
class PerImage:
    """A metric that also needs something of each image: its label, its mask, its measured value.

    Parameters
    ----------
    function
        From logits (row, output) and the images' values (row, …) to one number per row.
    values
        One per image, in the order in which the images are given.
    name
        How pages call it.

    """

    function: Callable[[Tensor, Tensor], Tensor]
    values: Tensor
    name: str

    def at(self, logits: Float[Tensor, "row output"], images: Int[Tensor, " row"]) -> Float[Tensor, " row"]:
        """Return the function's values.

        Raises
        ------
        ShapeError
            If there are fewer values than images, or the function does not return one number per row.

        """
        if int(images.max()) >= len(self.values):
            raise ShapeError(
                f"metric '{self.name}' knows {len(self.values)} images but is asked for number {int(images.max())}: "
                "give one value per image"
            )
        return OfLogits(lambda z: self.function(z, self.values.to(z.device)[images.to(z.device)]), self.name).at(
            logits, images
        )


Measurable: TypeAlias = Metric | Objective | Callable[[Tensor], Tensor]


def as_metric(metric: Measurable, model: VisionModel) -> Metric:
    """Return what was given as a metric: an objective with class names resolved, or a function of logits.

    Raises
    ------
    ConfigError
        If it is none of these, or an objective names a class that the model does not have.

    """
    if isinstance(metric, Objective):
        resolved = metric.resolve(model)
        return OfLogits(resolved, resolved.name)
    if isinstance(metric, Metric):
        return metric
    if callable(metric):
        return OfLogits(metric, getattr(metric, "__name__", "the user's function"))
    raise ConfigError(
        f"a metric cannot be made of a {type(metric).__name__}: give logit(…), logit_difference(…), loss(labels), "
        "or a function from logits to one number per row"
    )


def loss(labels: Sequence[int] | Tensor) -> PerImage:
    """Return the cross-entropy of the true class.

    Parameters
    ----------
    labels
        The true output of each image.

    """
    return PerImage(
        lambda z, y: torch.nn.functional.cross_entropy(z, y, reduction="none"), torch.as_tensor(labels), "loss"
    )


def regression(output: int = 0, unit: str = "") -> OfLogits:
    """Return one output of a regression model as it is."""
    return OfLogits(lambda z: z[:, output], f"output {output}" + (f" [{unit}]" if unit else ""))
