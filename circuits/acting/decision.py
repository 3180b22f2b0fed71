"""One class against all others: the log-odds that are acted upon, and what they are worth on images whose truth is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from circuits.metrics import PerImage
from mechinterp.errors import ConfigError, ImagesError, ShapeError
from mechinterp.images.image_set import ImageSet
from mechinterp.images.labels import words_of
from mechinterp.models.vision_model import VisionModel

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True)
class Decision:
    """Whether an image shows the target class, in log-odds.

    Parameters
    ----------
    output
        The model's output that stands for the target.
    name
        Its class name.
    activation
        The model's: with ``sigmoid`` the output's logit is the log-odds; with ``softmax`` the logit minus the
        log-sum-exp of all others, for two classes their difference.

    """

    output: int
    name: str
    activation: Literal["softmax", "sigmoid"] = "softmax"

    @classmethod
    def of(cls, model: VisionModel, target: str | int) -> Decision:
        """Return the decision for a class given by name or output.

        Raises
        ------
        ConfigError
            If the model has no such class.

        """
        output = model.class_index(target) if isinstance(target, str) else target
        if not 0 <= output < len(model.class_names):
            raise ConfigError(f"'{model.spec}' has outputs 0 to {len(model.class_names) - 1}, not {output}")
        return cls(output, model.class_names[output], model.activation)

    def log_odds(self, logits: Float[Tensor, "*batch output"]) -> Float[Tensor, " *batch"]:
        """Return the log-odds of the target."""
        own = logits[..., self.output]
        if self.activation == "sigmoid" or logits.shape[-1] == 1:
            return own
        others = torch.cat([logits[..., : self.output], logits[..., self.output + 1 :]], dim=-1)
        return own - others.logsumexp(-1)

    def for_the_truth(self, labels: Bool[NDArray[np.bool_], " image"]) -> PerImage:
        """Return the metric that is the log-odds of what is true: of the target where it is there, against it elsewhere."""
        sign = torch.from_numpy(np.where(labels, 1.0, -1.0))
        return PerImage(lambda z, s: self.log_odds(z) * s.to(z), sign, f"log-odds of the truth ({self.name} or not)")


def true_labels(
    images: ImageSet | Tensor, decision: Decision, labels: Sequence[Any] | NDArray[Any] | None
) -> Bool[NDArray[np.bool_], " image"]:
    """Return whether each image truly shows the target.

    Parameters
    ----------
    images
        A set of images, whose labels are class names, or prepared ones.
    decision
        The target.
    labels
        Class names, or true and false; the set's own by default. Of a model whose outputs are findings of their own, several
        names may stand between bars, ``mass|edema``.

    Raises
    ------
    ImagesError
        If nobody said, or not of every image, or all say the same.
    ConfigError
        If they are numbers other than 0 and 1.
    ShapeError
        If there is not one for each image.

    """
    known: Iterable[Any] | None = labels
    if known is None and isinstance(images, ImageSet):
        known = images.labels
    if known is None:
        raise ImagesError(f"the images have no labels: give labels=…, whether each truly shows '{decision.name}'")
    found = np.asarray(known)
    if found.shape != (len(images),):
        raise ShapeError(f"labels have shape {found.shape} for {len(images)} images: give one each")
    if unlabelled := sum(label is None for label in found.tolist()):
        raise ImagesError(
            f"{unlabelled} of {len(found)} images have no label: leave them out, since nobody knows whether they show '{decision.name}'"
        )
    if found.dtype.kind in "iuf" and not np.isin(found, (0, 1)).all():
        raise ConfigError(f"labels are numbers besides 0 and 1: say of each image whether it shows '{decision.name}'")
    several = decision.activation == "sigmoid"
    truth: NDArray[np.bool_] = (
        found.astype(bool)
        if found.dtype.kind in "biuf"
        else np.array([decision.name in words_of(str(label), several=several) for label in found.tolist()], dtype=bool)
    )
    if truth.all() or not truth.any():
        raise ImagesError(
            f"all {len(truth)} images are labelled {'' if truth.all() else 'not '}'{decision.name}': give images of both kinds"
        )
    return truth


def patients_of(images: ImageSet | Tensor, groups: Sequence[Any] | NDArray[Any] | None) -> NDArray[Any]:
    """Return the patient of each image: as given, as the set says, or each image a patient of its own.

    Raises
    ------
    ShapeError
        If there is not one for each image.

    """
    known = groups
    if known is None and isinstance(images, ImageSet):
        known = images.groups
    if known is None:
        return np.arange(len(images))
    found = np.asarray(known)
    if found.shape != (len(images),):
        raise ShapeError(f"groups have shape {found.shape} for {len(images)} images: give one patient each")
    return found
