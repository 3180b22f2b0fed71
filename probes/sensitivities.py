"""How the model's output changes along a direction of a site: gradients at the site, batch by batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from mechinterp.errors import ShapeError
from mechinterp.images.image_set import ImageSet
from mechinterp.images.preparation import Preparation
from mechinterp.interventions import intervene
from mechinterp.models.vision_model import VisionModel
from mechinterp.objectives import Objective
from mechinterp.progress import SILENT, Progress

Form = Literal["pooled", "flat"]
"""``pooled``: one vector for all tokens of an image; ``flat``: all tokens side by side."""


def activation_gradients(
    model: VisionModel, site: str, x: Float[Tensor, "batch channel height width"], objective: Objective
) -> Float[Tensor, "batch token width"]:
    """Return the gradient of an objective with respect to a site's tokens, for each image of a batch.

    Parameters
    ----------
    model
        The model; neither its weights nor their gradients are touched.
    site
        Name of the site.
    x
        Prepared images.
    objective
        One number per image from the logits.

    Raises
    ------
    SiteError, ConfigError
        If there is no such site or class.

    """
    resolved = objective.resolve(model)
    kept: list[Tensor] = []

    def leaf(acts: Tensor) -> Tensor:
        kept.append(acts.detach().requires_grad_())
        return kept[-1]

    with torch.enable_grad(), intervene(model, {site: leaf}):
        value = resolved(model.logits(x)).sum()
    (gradient,) = torch.autograd.grad(value, kept)
    return gradient.detach()


def gradients_of_images(
    model: VisionModel,
    site: str,
    images: ImageSet,
    objective: Objective,
    *,
    form: Form = "pooled",
    chosen: Sequence[int] | NDArray[np.int64] | None = None,
    preparation: Preparation | None = None,
    batch_size: int = 32,
    progress: Progress = SILENT,
) -> Float[NDArray[np.float64], "image width"]:
    """Return the gradients of many images in the form in which concept vectors are fitted.

    Parameters
    ----------
    model, site, objective
        As for :func:`activation_gradients`.
    images, chosen, preparation
        Which images, and how they become the model's input.
    form
        ``pooled`` adds up the gradients of all tokens: the change when a direction is added to every one of them, for
        vectors fitted on mean-pooled activations. ``flat`` keeps every token.
    batch_size
        Images in one pass; memory does not grow with their number.
    progress
        Counts batches.

    """
    positions = list(range(len(images))) if chosen is None else [int(i) for i in chosen]
    starts = range(0, len(positions), batch_size)
    parts = []
    for start in progress.track(starts, f"gradients at {site}", total=len(starts)):
        batch = [images[i] for i in positions[start : start + batch_size]]
        parts.append(
            in_form(activation_gradients(model, site, model.prepare(batch, preparation), objective), form, add=True)
        )
    return np.concatenate(parts)


def in_form(
    acts: Float[Tensor, "image token width"], form: Form, *, add: bool = False
) -> Float[NDArray[Any], "image n"]:
    """Return activations (or with `add` gradients) as one row per image: pooled over tokens, or side by side."""
    pooled = acts.sum(1) if add else acts.mean(1)
    rows = acts.flatten(1) if form == "flat" else pooled
    found: NDArray[np.float64] = rows.double().cpu().numpy()
    return found


def sensitivities(
    gradients: Float[NDArray[Any], "image width"], direction: Float[NDArray[Any], " width"]
) -> Float[NDArray[np.float64], " image"]:
    """Return the directional derivative of each image's objective along a direction.

    Raises
    ------
    ShapeError
        If the direction is not as wide as the gradients.

    """
    if np.shape(direction) != np.shape(gradients)[1:]:
        raise ShapeError(
            f"a direction of shape {np.shape(direction)} and gradients of shape {np.shape(gradients)}: fit the vector on "
            "activations in the form of the gradients (pooled or flat)"
        )
    found: NDArray[np.float64] = np.asarray(gradients, dtype=np.float64) @ np.asarray(direction, dtype=np.float64)
    return found
