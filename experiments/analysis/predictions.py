"""What the model answers, and which images the question is about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from mechinterp.errors import ConfigError
from mechinterp.images.image_set import ImageSet
from mechinterp.images.preparation import Preparation
from mechinterp.models.vision_model import VisionModel
from mechinterp.progress import SILENT, Progress


def predict(
    model: VisionModel,
    images: ImageSet,
    preparation: Preparation,
    *,
    batch: int = 16,
    progress: Progress = SILENT,
    label: str = "predictions",
) -> Float[NDArray[np.float32], "image class"]:
    """Return the logits of all images."""
    rows = []
    with torch.inference_mode():
        starts = range(0, len(images), batch)
        for first in progress.track(starts, label, total=len(starts)):
            positions = range(first, min(first + batch, len(images)))
            rows.append(model.logits(model.prepare([images[i] for i in positions], preparation)).float().cpu())
    logits: NDArray[np.float32] = torch.cat(rows).numpy()
    return logits


def answered(
    logits: Float[Tensor, "image class"],
    activation: Literal["softmax", "sigmoid"],
    about: Sequence[int] | None = None,
) -> Bool[Tensor, "image class"]:
    """Say of every class whether it is the answer on an image: the likeliest; of findings each that is above a half.

    Parameters
    ----------
    logits
        Of the model.
    activation
        The model's: with ``sigmoid`` outputs are findings of their own, and a single one is answered or not.
    about
        Which findings are asked about, all by default; of classes that exclude one another the answer is always one of all.

    """
    if activation == "sigmoid":
        return (logits if about is None else logits[:, list(about)]) > 0
    return torch.nn.functional.one_hot(logits.argmax(1), logits.shape[1]).bool()


@dataclass(frozen=True)
class Band:
    """A run of neighbouring images that the model calls the target class."""

    name: str
    images: Int[NDArray[np.int64], " image"]


@dataclass(frozen=True)
class Question:
    """Which class is asked about, against which, and for which images.

    Parameters
    ----------
    target, reference
        Class names. The target is what the model answers wrongly or surprisingly, the reference what it answers elsewhere.
    threshold
        An image is positive when the target's probability is above it.
    positive
        Positive images, in order.
    reference_images
        Images whose most probable class is the reference.
    bands
        The positive images in two separate runs, or none where there are no two.
    note
        Why there are no bands, or how they were cut.

    """

    target: str
    reference: str
    threshold: float
    positive: Int[NDArray[np.int64], " image"]
    reference_images: Int[NDArray[np.int64], " image"]
    bands: tuple[Band, ...]
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the question as plain JSON."""
        return {
            "class": self.target,
            "reference": self.reference,
            "threshold": self.threshold,
            "positive": self.positive.tolist(),
            "reference_images": self.reference_images.tolist(),
            "bands": [{"name": b.name, "images": b.images.tolist()} for b in self.bands],
            "note": self.note,
        }


def ask(
    probabilities: Float[NDArray[np.float32], "image class"],
    class_names: Sequence[str],
    positions: Float[NDArray[np.float64], " image"] | None,
    *,
    target: str | None = None,
    reference: str | None = None,
    threshold: float = 0.9,
    least: int = 3,
    several: bool = False,
) -> Question:
    """Find the positive images and their two bands.

    Parameters
    ----------
    probabilities
        Of every class, per image.
    class_names
        Names of the classes.
    positions
        Place of every image along a volume; ``None`` where images have no order, and then there are no bands.
    target, reference
        Class names; the two classes answered most often by default. Of findings the one found most often, against its absence.
    threshold
        Above which an image is positive.
    least
        Fewest images of a band.
    several
        Whether the outputs are findings that do not exclude one another: none is what the model answers *instead*.

    """
    if len(class_names) == 1:
        return _of_one_output(probabilities[:, 0], class_names[0], positions, target, threshold, least)
    if several and reference is None and target in {None, *class_names}:
        often = np.lexsort((-probabilities.mean(0), -(probabilities > 0.5).sum(0)))[0]
        asked = int(often) if target is None else class_names.index(target)
        return _of_one_output(probabilities[:, asked], class_names[asked], positions, target, threshold, least)
    likeliest = probabilities.argmax(1)
    by_count = [int(c) for c in np.argsort(-np.bincount(likeliest, minlength=len(class_names)), kind="stable")]
    target = target or class_names[by_count[0]]
    if target not in class_names:
        raise ConfigError(f"the model has no class '{target}': it has {', '.join(class_names[:8])}")
    reference = reference or next(class_names[c] for c in by_count if class_names[c] != target)
    t, r = class_names.index(target), class_names.index(reference)
    positive = np.flatnonzero(probabilities[:, t] > threshold)
    reference_images = np.flatnonzero(likeliest == r)
    bands, note = _bands(positive, positions, least)
    return Question(target, reference, threshold, positive, reference_images, bands, note)


def _of_one_output(
    probability: Float[NDArray[np.float32], " image"],
    name: str,
    positions: Float[NDArray[np.float64], " image"] | None,
    target: str | None,
    threshold: float,
    least: int,
) -> Question:
    """Ask about one output that stands for itself, against its absence."""
    if target not in {None, name}:
        raise ConfigError(f"the model has no class '{target}': it has {name}")
    positive = np.flatnonzero(probability > threshold)
    bands, note = _bands(positive, positions, least)
    return Question(name, f"not {name}", threshold, positive, np.flatnonzero(probability < 0.5), bands, note)


def _bands(
    positive: NDArray[np.int64], positions: NDArray[np.float64] | None, least: int
) -> tuple[tuple[Band, ...], str]:
    """Cut the positive images at the widest gap between neighbours, measured along the volume."""
    if positions is None:
        return (), "the images have no order along which positive ones could form bands"
    if len(positive) < 2 * least:
        return (), f"only {len(positive)} positive images: two bands of at least {least} are needed"
    along = positive[np.argsort(positions[positive], kind="stable")]
    gaps = np.diff(positions[along])
    inner = np.arange(least - 1, len(along) - least)  # a cut after one of these leaves enough on both sides
    cut = int(inner[np.argmax(gaps[inner])])
    step = float(np.median(np.diff(np.sort(positions))))
    lower, upper = along[: cut + 1], along[cut + 1 :]
    note = f"the two bands lie {gaps[cut]:.0f} mm apart"
    if gaps[cut] < 3 * step:
        note += ": they touch, so slices of one are not independent of the other's"
    return (Band("lower", np.sort(lower)), Band("upper", np.sort(upper))), note


def positions(images: ImageSet) -> Float[NDArray[np.float64], " image"] | None:
    """Return the place of every image along its volume; images of several patients have no such order."""
    if images.units_are_patients or "slice_position" not in images.attributes.names:
        return None
    return images.attributes.column("slice_position")
