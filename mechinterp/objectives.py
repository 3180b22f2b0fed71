"""What an intervention is measured by: one number per image, from the logits.

Classes may be given by name before any model is at hand; :meth:`Objective.resolve` turns names into outputs of a model.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from jaxtyping import Float
from torch import Tensor

from mechinterp.errors import ConfigError

if TYPE_CHECKING:
    from mechinterp.models.vision_model import VisionModel

Kind = Literal["logit", "logit difference", "probability"]


@dataclass(frozen=True)
class Objective:
    """One number per image.

    Parameters
    ----------
    kind
        What is computed.
    classes
        The class, or target and reference class: names until :meth:`resolve`, then outputs of the model.
    class_names
        How pages call the classes; filled in by :meth:`resolve`.
    activation
        What turns logits into probabilities.

    Examples
    --------
    >>> import torch
    >>> logit_difference(0, 2)(torch.tensor([[3.0, 1.0, -1.0]]))
    tensor([4.])

    """

    kind: Kind
    classes: tuple[str | int, ...]
    class_names: tuple[str, ...] = ()
    activation: Literal["softmax", "sigmoid"] = "softmax"

    def resolve(self, model: VisionModel) -> Objective:
        """Return the same objective with the model's outputs in place of class names.

        Raises
        ------
        ConfigError
            If the model has no such class; the nearest names are proposed.

        """
        outputs: list[int] = []
        for c in self.classes:
            index = model.class_index(c) if isinstance(c, str) else c
            if not 0 <= index < len(model.class_names):
                raise ConfigError(f"'{model.spec}' has outputs 0 to {len(model.class_names) - 1}, not {index}")
            outputs.append(index)
        shown = tuple(model.class_names[i] for i in outputs)
        return replace(self, classes=tuple(outputs), class_names=shown, activation=model.activation)

    @property
    def name(self) -> str:
        """How pages call it."""
        shown = self.class_names or tuple(str(c) for c in self.classes)
        if self.kind == "logit difference":
            return f"logit {shown[0]} − logit {shown[1]}"
        return f"{self.kind} of {shown[0]}"

    def __call__(self, logits: Float[Tensor, "*batch output"]) -> Float[Tensor, " *batch"]:
        """Return the objective of some logits.

        Raises
        ------
        ConfigError
            If classes are still names.

        """
        outputs = [self._output(c) for c in self.classes]
        match self.kind:
            case "logit":
                return logits[..., outputs[0]]
            case "logit difference":
                return logits[..., outputs[0]] - logits[..., outputs[1]]
            case "probability":
                shares = logits.softmax(-1) if self.activation == "softmax" else logits.sigmoid()
                return shares[..., outputs[0]]

    def _output(self, c: str | int) -> int:
        if isinstance(c, str):
            raise ConfigError(
                f"'{self.name}' names a class: call .resolve(model) first, so that '{c}' becomes an output"
            )
        return c


def logit(of: str | int) -> Objective:
    """Return the logit of a class, given by name or output."""
    return Objective("logit", (of,))


def logit_difference(target: str | int, reference: str | int) -> Objective:
    """Return the logit of `target` minus that of `reference`: what decides between the two.

    Raises
    ------
    ConfigError
        If both are the same class.

    """
    if target == reference:
        raise ConfigError(f"the logit difference of '{target}' to itself is always 0: name two classes")
    return Objective("logit difference", (target, reference))


def probability(of: str | int) -> Objective:
    """Return the probability of a class, by the model's own softmax or sigmoid. It saturates: measure effects on logits."""
    return Objective("probability", (of,))
