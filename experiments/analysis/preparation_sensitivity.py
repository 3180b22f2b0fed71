"""Does the answer depend on how images are prepared? Count it again under changes that leave the anatomy as it is."""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments.analysis.predictions import Question, predict
from mechinterp.images.image_set import ImageSet
from mechinterp.images.perturbations import standard_perturbations
from mechinterp.images.preparation import Fit, Preparation
from mechinterp.models.vision_model import VisionModel
from mechinterp.progress import SILENT, Progress


def preparation_sensitivity(
    model: VisionModel,
    images: ImageSet,
    question: Question,
    preparation: Preparation,
    probabilities: Any,
    *,
    every: int = 3,
    progress: Progress = SILENT,
) -> list[dict[str, Any]]:
    """Count positive images under each change, on every n-th image.

    Parameters
    ----------
    model, images, preparation
        As the study uses them.
    question
        Which class, and above which probability an image is positive.
    probabilities
        Of the unchanged images (image, class).
    every
        Use every n-th image only: each change costs a forward pass per image.
    progress
        Sees one bar.

    Returns
    -------
    list of dict
        First the unchanged images, then each change: ``name``, ``n_positive``, ``n_images``, ``same_answer`` (share of
        images whose most probable class stays), ``mean_probability`` of the target, ``text``.

    """
    chosen = np.arange(0, len(images), every)
    some, target = images.subset(chosen), model.class_index(question.target)
    unchanged = np.asarray(probabilities)[chosen]
    variants = [(p.name, p.of(some), preparation) for p in standard_perturbations()]
    other: Fit = "pad" if preparation.fit == "stretch" else "stretch"
    variants.append((f"fit: {other}", some, Preparation(other)))
    rows = [_row("as in this study", unchanged, unchanged, target, question.threshold)]
    for name, changed, how in progress.track(variants, "other preparations", total=len(variants)):
        logits = predict(model, changed, how)
        rows.append(_row(name, _probabilities(model, logits), unchanged, target, question.threshold))
    return rows


def _probabilities(model: VisionModel, logits: Any) -> Any:
    import torch

    return model.probabilities(torch.from_numpy(logits)).numpy()


def _row(name: str, probabilities: Any, unchanged: Any, target: int, threshold: float) -> dict[str, Any]:
    positive = int((probabilities[:, target] > threshold).sum())
    same = float((probabilities.argmax(1) == unchanged.argmax(1)).mean())
    return {
        "name": name,
        "n_positive": positive,
        "n_images": len(probabilities),
        "same_answer": same,
        "mean_probability": float(probabilities[:, target].mean()),
        "text": f"{positive} of {len(probabilities)} above {threshold:g}; the answer stays on {same:.0%}",
    }
