"""The same question to a second head: does it happen there too, and do the features chosen on the first head act there?"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from circuits.ablations import Ablation, Source, draw, mean, resample, zero
from experiments.analysis.exploration import Exploration
from mechinterp.capturing import run_with_cache
from mechinterp.errors import ImagesError
from mechinterp.images.brain_template import ch2_slices
from mechinterp.images.image_set import ImageSet
from mechinterp.images.preparation import Preparation
from mechinterp.progress import SILENT, Progress

NAME = "ch2 (Colin 27, one real head)"


def replicate(
    explored: Exploration,
    experiment: dict[str, Any],
    preparation: Preparation,
    *,
    step_mm: float,
    seed: int,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Ask the second head, with and without its skull.

    Returns
    -------
    dict
        ``present``, and if so ``n_positive``, ``n_images`` (skull-stripped, as the template is), ``with_skull``, and
        ``sets``: per direction and ablation the share of its positive slices that the chosen set turns.

    """
    try:
        stripped, whole = ch2_slices(step_mm=step_mm, stripped=True), ch2_slices(step_mm=step_mm)
    except ImagesError as error:
        return {"name": NAME, "present": False, "text": f"Not run: {error}"}
    acts, logits = _captured(explored, stripped, preparation, "second head", progress)
    _, with_skull = _captured(explored, whole, preparation, "second head, with skull", progress)
    names, question = explored.model.class_names, explored.question
    target, reference = names.index(question.target), names.index(question.reference)
    positive = np.flatnonzero(_probabilities(explored, logits)[:, target] > question.threshold)
    skull = int((_probabilities(explored, with_skull)[:, target] > question.threshold).sum())
    references = np.flatnonzero(logits.argmax(1).numpy() == reference)
    sets: list[dict[str, Any]] = []
    found: dict[str, Any] = {
        "name": NAME,
        "present": True,
        "n_positive": len(positive),
        "n_images": len(stripped),
        "with_skull": {"n_positive": skull, "n_images": len(whole)},
        "positions_mm": stripped.attributes.column("slice_position")[positive],
        "sets": sets,
    }
    said = f"{len(positive)} of {len(stripped)} slices above {question.threshold:g} without skull, {skull} of {len(whole)} with it"
    directions = [d for d in experiment["directions"] if d["kind"] == "sae" and d["ranked_by"] == "reference"]
    if not directions or len(positive) < 2 or len(references) < 2 or not explored.tail.exact:
        return {**found, "text": f"{said}; the chosen sets could not be tried there."}
    for direction in directions:
        for ablation in (zero(), mean(), resample(2)):
            turned = _turned(explored, acts, positive, references, direction["chosen"], ablation, target, seed)
            sets.append({"chosen_on": direction["chosen_on"], "ablation": ablation.name, "flipped": turned})
    parts = [f"{s['flipped']:.0%} under {s['ablation']} (chosen on {s['chosen_on']})" for s in sets]
    size = directions[0]["size"]
    return {
        **found,
        "text": f"{said}. The {size} features chosen on the template turn {', '.join(parts)} of its positive slices (no matched random sets were run here: descriptive only).",
    }


def _captured(
    explored: Exploration, images: ImageSet, preparation: Preparation, label: str, progress: Progress
) -> tuple[torch.Tensor, torch.Tensor]:
    acts, logits = [], []
    starts = range(0, len(images), 16)
    with torch.inference_mode():
        for first in progress.track(starts, label, total=len(starts)):
            batch = [images[i] for i in range(first, min(first + 16, len(images)))]
            seen = run_with_cache(
                explored.model, explored.model.prepare(batch, preparation), [explored.site], logits=True
            )
            acts.append(seen[explored.site].float().cpu())
            logits.append(seen["logits"][:, 0].float().cpu())
    return torch.cat(acts), torch.cat(logits)


def _probabilities(explored: Exploration, logits: torch.Tensor) -> NDArray[np.float32]:
    found: NDArray[np.float32] = explored.model.probabilities(logits).numpy()
    return found


def _turned(
    explored: Exploration,
    acts: torch.Tensor,
    positive: NDArray[np.int64],
    references: NDArray[np.int64],
    features: list[int],
    ablation: Ablation,
    target: int,
    seed: int,
) -> float:
    """Return the share of positive images (and draws) whose answer turns when the set's codes are replaced."""
    source = Source(explored.sae, acts[torch.from_numpy(references)])
    directions = explored.sae.directions[features]
    turned = []
    with torch.inference_mode():
        for i, picks in zip(positive, draw(ablation, len(positive), len(references), seed), strict=True):
            codes = explored.sae.encode(acts[int(i)])
            for replaced in source.replacements(ablation, picks, codes):
                changed = acts[int(i)] + (replaced - codes)[:, features] @ directions
                turned.append(int(explored.tail.logits(changed[None])[0].argmax()) != target)
    return float(np.mean(turned))
