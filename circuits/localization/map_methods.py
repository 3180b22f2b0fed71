"""The methods: from a batch of images to a map of what speaks for the metric, in input pixels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.localization.explained import Explained
from circuits.localization.lrp_rules import RelevanceMode
from circuits.localization.maps import cells_to_pixels
from mechinterp.hooks import hook_site
from mechinterp.models.vision_model import VisionModel

Maps = Float[Tensor, "image row column"]
MakeMap = Callable[[Explained, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class MapMethod:
    """One way to make a map.

    Parameters
    ----------
    name
        How it is asked for.
    make
        From what is explained, prepared images and their numbers to maps.
    what
        In words, with the paper.
    baseline
        True for what knows nothing of the model: it stands beside the others.
    needs
        ``attention`` where the model must attend.

    """

    name: str
    make: MakeMap
    what: str
    baseline: bool = False
    needs: str = ""

    def fits(self, model: VisionModel) -> bool:
        """Return whether the method can be used on a model."""
        return self.needs != "attention" or any(n.endswith("hook_pattern") for n in model.sites)


def gradient(explained: Explained, x: Tensor, numbers: Int[Tensor, " image"]) -> Maps:
    """Return the size of the metric's gradient, the largest over channels, by captum's ``Saliency``."""
    from captum.attr import Saliency

    found: Tensor = Saliency(explained.value).attribute(
        x.detach().clone().requires_grad_(), additional_forward_args=(numbers,), abs=True
    )
    return found.detach().amax(1)


def integrated_gradients(explained: Explained, x: Tensor, numbers: Int[Tensor, " image"]) -> Maps:
    """Return integrated gradients from the reference image, summed over channels, by captum."""
    from captum.attr import IntegratedGradients

    found: Tensor = IntegratedGradients(explained.value).attribute(
        x,
        baselines=explained.absent(x),
        additional_forward_args=(numbers,),
        n_steps=explained.config.steps,
        internal_batch_size=max(explained.config.rows, len(x)),
    )
    return found.sum(1)


def occlusion(explained: Explained, x: Tensor, numbers: Int[Tensor, " image"]) -> Maps:
    """Return by how much the metric falls when a square gives way to the reference image, by captum.

    Squares overlap by half; a pixel has the mean over the squares that hold it.
    """
    from captum.attr import Occlusion

    side = max(1, round(explained.config.window_share * x.shape[2]))
    with torch.no_grad():
        found: Tensor = Occlusion(explained.value).attribute(
            x,
            sliding_window_shapes=(x.shape[1], side, side),
            strides=(x.shape[1], max(1, side // 2), max(1, side // 2)),
            baselines=explained.absent(x),
            additional_forward_args=(numbers,),
            perturbations_per_eval=max(1, explained.config.rows // len(x)),
        )
    return found.mean(1)


def grad_cam(explained: Explained, x: Tensor, numbers: Int[Tensor, " image"]) -> Maps:
    """Return Grad-CAM at a site: channels weighted by their mean gradient, the positive part.

    captum's ``LayerGradCam`` takes maps only; this takes tokens too, and equals it on maps.
    """
    site, grid = explained.site()
    seen: list[Tensor] = []

    def keep(raw: Tensor) -> Tensor:
        seen[:] = [site.to_tokens(raw.detach().clone()).requires_grad_()]
        return site.from_tokens(seen[0], raw.detach())

    handle = hook_site(explained.model.module, site, keep)
    try:
        with torch.enable_grad():
            outcome = explained.value(x, numbers)
            (pulled,) = torch.autograd.grad(outcome.sum(), seen)
    finally:
        handle.remove()
    acts, pulled = seen[0].detach()[:, site.prefix_tokens :], pulled[:, site.prefix_tokens :]
    cells = (acts * pulled.mean(1, keepdim=True)).sum(2).relu()
    return painted(cells, grid.shape, lambda c: cells_to_pixels(c, grid, (x.shape[2], x.shape[3])), x)


def lrp(explained: Explained, x: Tensor, numbers: Int[Tensor, " image"]) -> Maps:
    """Return layer-wise relevance of the pixels, summed over channels; see :mod:`circuits.localization.lrp_rules`."""
    pixels = x.detach().clone().requires_grad_()
    mode = RelevanceMode(explained.config.rules, explained.bounds(x))
    with torch.enable_grad():
        with mode:
            outcome = explained.value(pixels, numbers)
        return mode.relevance(outcome, pixels).sum(1)


def attention_rollout(explained: Explained, x: Tensor, numbers: Int[Tensor, " image"]) -> Maps:
    """Return attention rollout from the CLS token, or from the mean over all tokens where there is none.

    It knows nothing of the metric: it is the same whatever class is asked for.
    """
    from circuits.attention import attention_patterns, rollout

    site, grid = explained.site()
    total = rollout(attention_patterns(explained.model, x))
    rows = total[:, 0] if site.prefix_tokens else total.mean(1)
    cells = rows[:, site.prefix_tokens :]
    return painted(cells, grid.shape, lambda c: cells_to_pixels(c, grid, (x.shape[2], x.shape[3])), x)


def edges(explained: Explained, x: Tensor, numbers: Int[Tensor, " image"]) -> Maps:
    """Return how sharply the image changes: Sobel's gradient of the channels' mean. It knows nothing of the model."""
    from scipy.ndimage import sobel

    grey = x.mean(1).cpu().numpy()
    # one by one: over a stack it would smooth across images
    return torch.from_numpy(np.stack([np.hypot(sobel(g, axis=0), sobel(g, axis=1)) for g in grey])).to(x)


def centre(explained: Explained, x: Tensor, numbers: Int[Tensor, " image"]) -> Maps:
    """Return a Gaussian around the input's centre, a quarter of its size wide. It knows neither image nor model."""
    rows, columns = (
        torch.exp(-0.5 * (((torch.arange(n).to(x) + 0.5) / n - 0.5) / 0.25) ** 2) for n in (x.shape[2], x.shape[3])
    )
    return (rows[:, None] * columns).expand(len(x), -1, -1)


def random(explained: Explained, x: Tensor, numbers: Int[Tensor, " image"]) -> Maps:
    """Return uniform noise, drawn anew for each image and the same on every call."""
    drawn = [
        np.random.default_rng((explained.config.seed, int(n))).random((x.shape[2], x.shape[3]))
        for n in numbers.tolist()
    ]
    return torch.from_numpy(np.stack(drawn)).to(x)


def painted(
    cells: Float[Tensor, "image cell"],
    shape: tuple[int, ...],
    to_pixels: Callable[[np.ndarray], np.ndarray],
    like: Tensor,
) -> Maps:
    """Return values of cells as a map in input pixels."""
    grids = cells.detach().cpu().numpy().reshape(len(cells), *shape)
    return torch.from_numpy(to_pixels(grids)).to(like)


METHODS: Mapping[str, MapMethod] = {
    m.name: m
    for m in (
        MapMethod("integrated-gradients", integrated_gradients, "Sundararajan et al. 2017, from a reference image"),
        MapMethod("grad-cam", grad_cam, "Selvaraju et al. 2017, at one site"),
        MapMethod("occlusion", occlusion, "Zeiler & Fergus 2014, squares give way to a reference image"),
        MapMethod("lrp", lrp, "Bach et al. 2015; through attention AttnLRP, Achtibat et al. 2024"),
        MapMethod("rollout", attention_rollout, "Abnar & Zuidema 2020; knows no class", needs="attention"),
        MapMethod("gradient", gradient, "Simonyan et al. 2014, its size"),
        MapMethod("edges", edges, "an edge detector: knows nothing of the model", baseline=True),
        MapMethod("centre", centre, "a centre prior: knows neither image nor model", baseline=True),
        MapMethod("random", random, "uniform noise", baseline=True),
    )
}
BASELINES: tuple[str, ...] = tuple(name for name, m in METHODS.items() if m.baseline)


def methods_for(model: VisionModel) -> tuple[str, ...]:
    """Return the methods that can be used on a model, without the baselines."""
    return tuple(name for name, m in METHODS.items() if not m.baseline and m.fits(model))
