"""What effects are measured on: one number per image, from a batch of logits and which images they belong to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
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


@dataclass(frozen=True, eq=False)
class Loss:
    """The loss of the truth, by what turns the model's logits into probabilities.

    Parameters
    ----------
    labels
        Per image, the true output; for a single output, or outputs that are findings of their own, 0 and 1, one for each.
    activation
        The model's; filled in by :meth:`resolve`. Until then several labels of an image, or a single output, mean a sigmoid.

    """

    labels: Tensor
    activation: Literal["softmax", "sigmoid"] | None = None

    @property
    def name(self) -> str:
        """How pages call it."""
        return "loss"

    def resolve(self, model: VisionModel) -> Loss:
        """Return the loss by the model's own softmax or sigmoid.

        Raises
        ------
        ConfigError
            If the labels cannot be the truth of such a model.

        """
        outputs, labels = len(model.class_names), self.labels
        if model.activation == "sigmoid" or outputs == 1:
            fit = labels.shape[1:] == (outputs,) or (labels.dim() == 1 and outputs == 1)
            if not fit or not torch.isin(labels.to(torch.float64), torch.tensor([0.0, 1.0]).to(labels.device)).all():
                each = (
                    "whether it shows it" if outputs == 1 else f"a row of {outputs}, since each is a finding of its own"
                )
                raise ConfigError(
                    f"labels of shape {tuple(labels.shape)} are no truth for '{model.spec}', of {outputs} output"
                    f"{'' if outputs == 1 else 's'} with a sigmoid: give 0 or 1 for each image, {each}"
                )
            return replace(self, activation="sigmoid")
        if labels.dim() != 1 or labels.is_floating_point() or ((labels < 0) | (labels >= outputs)).any():
            raise ConfigError(
                f"labels of shape {tuple(labels.shape)} are no truth for '{model.spec}', which answers one of its outputs: "
                f"give each image's, 0 to {outputs - 1}"
            )
        return replace(self, activation="softmax")

    def at(self, logits: Float[Tensor, "row output"], images: Int[Tensor, " row"]) -> Float[Tensor, " row"]:
        """Return the cross-entropy of the true class, or the binary ones of all outputs, summed.

        Raises
        ------
        ShapeError
            If there are fewer labels than images.

        """
        return PerImage(self._of, self.labels, self.name).at(logits, images)

    def _of(self, logits: Tensor, labels: Tensor) -> Tensor:
        # the softmax of a single output is 1 whatever it says
        if self.activation == "sigmoid" or labels.dim() > 1 or logits.shape[1] == 1:
            binary = torch.nn.functional.binary_cross_entropy_with_logits
            return binary(logits, labels.to(logits).reshape(logits.shape), reduction="none").sum(1)
        return torch.nn.functional.cross_entropy(logits, labels.long(), reduction="none")


Measurable: TypeAlias = Metric | Objective | Callable[[Tensor], Tensor]


def as_metric(metric: Measurable, model: VisionModel) -> Metric:
    """Return what was given as a metric: an objective with class names resolved, or a function of logits.

    Raises
    ------
    ConfigError
        If it is none of these, an objective names a class that the model does not have, or a loss's labels are no truth for it.

    """
    if isinstance(metric, Objective):
        resolved = metric.resolve(model)
        return OfLogits(resolved, resolved.name)
    if isinstance(metric, Loss):
        return metric.resolve(model)
    if isinstance(metric, Metric):
        return metric
    if callable(metric):
        return OfLogits(metric, getattr(metric, "__name__", "the user's function"))
    raise ConfigError(
        f"a metric cannot be made of a {type(metric).__name__}: give logit(…), logit_difference(…), loss(labels), "
        "or a function from logits to one number per row"
    )


def loss(labels: Sequence[Any] | NDArray[Any] | Tensor) -> Loss:
    """Return the loss of the truth: cross-entropy of the true class, or binary where outputs are findings of their own.

    Parameters
    ----------
    labels
        The true output of each image. For a model of a single output 0 or 1, whether the image shows it; for one whose
        outputs do not exclude one another (a sigmoid each) a row of 0 and 1 per image, whose losses are summed.

    Examples
    --------
    >>> logits, images = torch.zeros(2, 1), torch.arange(2)
    >>> loss([1, 0]).at(logits, images)
    tensor([0.6931, 0.6931])

    """
    return Loss(torch.as_tensor(labels))


def regression(output: int = 0, unit: str = "") -> OfLogits:
    """Return one output of a regression model as it is."""
    return OfLogits(lambda z: z[:, output], f"output {output}" + (f" [{unit}]" if unit else ""))
