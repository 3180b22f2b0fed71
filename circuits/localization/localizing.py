"""``localize``: where in the image a model's answer comes from, by whichever method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from circuits.localization.config import MapConfig
from circuits.localization.explained import Explained
from circuits.localization.map_methods import METHODS, MapMethod
from circuits.localization.maps import RelevanceMaps
from circuits.localization.shown_images import ShownImages, show_images
from circuits.metrics import Measurable, as_metric
from circuits.running import slices
from mechinterp.errors import ConfigError, SiteError, nearest
from mechinterp.images.image_set import ImageSet
from mechinterp.images.preparation import Preparation
from mechinterp.models.vision_model import VisionModel
from mechinterp.progress import SILENT, Progress


def localize(
    model: VisionModel,
    images: ImageSet | Tensor | ShownImages,
    metric: Measurable,
    method: str = "integrated-gradients",
    *,
    config: MapConfig | None = None,
    preparation: Preparation | None = None,
    groups: Sequence[Any] | NDArray[Any] | None = None,
    batch: int = 16,
    progress: Progress = SILENT,
) -> RelevanceMaps:
    """Make a map of relevance for every image.

    Parameters
    ----------
    model
        The model; its weights are not touched, and no hook is left, after errors too.
    images
        A set, so that maps know their place in the image and in mm; or prepared images.
    metric
        What is explained: an objective, or any function from logits to one number per row.
    method
        One of :data:`circuits.localization.map_methods.METHODS`: ``integrated-gradients``, ``grad-cam``, ``occlusion``,
        ``lrp``, ``rollout``, ``gradient``, and the baselines ``edges``, ``centre``, ``random``.
    config
        How; see :class:`MapConfig`.
    preparation, groups
        As :func:`show_images` takes them.
    batch
        Images at once.
    progress
        Told of every batch.

    Returns
    -------
    RelevanceMaps
        In input pixels; :meth:`RelevanceMaps.on_image` and :meth:`RelevanceMaps.peak_mm` lead back to the image.

    Raises
    ------
    ConfigError
        If there is no such method, or a class that the metric names.
    SiteError
        If the method needs attention and the model has none, or the site has no place.
    ImagesError, ShapeError
        If there is no image, or they are volumes.

    Examples
    --------
    >>> maps = localize(model, images, logit("tumour"), "lrp")  # doctest: +SKIP
    >>> maps.figure(0).show()  # doctest: +SKIP

    """
    if method not in METHODS:
        raise ConfigError(f"there is no method '{method}': {nearest(method, METHODS)}")
    if batch < 1:
        raise ConfigError(f"batch is {batch}: it must be at least 1")
    chosen = METHODS[method]
    if not chosen.fits(model):
        raise SiteError(f"'{model.spec}' has no attention pattern, which {method} follows: take another method")
    settings = config or MapConfig()
    shown = show_images(model, images, preparation=preparation, groups=groups)
    mean = shown.x.mean(0) if settings.reference == "mean" else None
    explained = Explained(model, as_metric(metric, model), settings, mean)
    found = np.empty((len(shown), *shown.x.shape[2:]), dtype=np.float32)
    parts = list(slices(len(shown), batch))
    for part in progress.track(parts, f"maps by {method}", len(parts)):
        found[part] = maps_of(explained, chosen, shown.x[part], shown.numbers[part])
    return RelevanceMaps(found, method, explained.metric.name, shown, _note(explained, method))


def maps_of(
    explained: Explained,
    method: MapMethod,
    x: Float[Tensor, "image channel height width"],
    numbers: Int[Tensor, " image"],
) -> Float[NDArray[np.float32], "image row column"]:
    """Return the maps of one batch of prepared images."""
    found: NDArray[np.float32] = method.make(explained, x.detach(), numbers).detach().float().cpu().numpy()
    return found


def _note(explained: Explained, method: str) -> str:
    """Return what of the settings is part of the claim."""
    config = explained.config
    match method:
        case "integrated-gradients":
            return f"{config.steps} steps from {config.reference}"
        case "occlusion":
            return f"squares of {config.window_share:.0%} give way to {config.reference}"
        case "grad-cam" | "rollout":
            return f"at {explained.site()[0].name}"
        case "lrp":
            rules = {f.name: getattr(config.rules, f.name) for f in fields(config.rules)}
            return ", ".join(f"{name} {value}" for name, value in rules.items())
    return METHODS[method].what if METHODS[method].baseline else ""
