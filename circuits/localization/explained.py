"""What is explained: a model's metric as a function of its input, and what an absent pixel looks like."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.localization.config import MapConfig
from circuits.metrics import Metric
from circuits.running import slices
from mechinterp.errors import SiteError
from mechinterp.models.vision_model import VisionModel
from mechinterp.sites import Site
from mechinterp.token_grid import TokenGrid


@dataclass(frozen=True, eq=False)
class Explained:
    """A model, a metric, and how maps of it are made.

    Parameters
    ----------
    model, metric, config
        What is explained, and the settings.
    mean
        The mean input, for ``reference="mean"``.

    """

    model: VisionModel
    metric: Metric
    config: MapConfig
    mean: Float[Tensor, "channel height width"] | None = field(default=None)

    def value(
        self, x: Float[Tensor, "row channel height width"], numbers: Int[Tensor, " row"]
    ) -> Float[Tensor, " row"]:
        """Return the metric of every row; gradients flow if they are enabled."""
        return self.metric.at(self.model.logits(x), numbers.to(x.device))

    def values(
        self, x: Float[Tensor, "row channel height width"], numbers: Int[Tensor, " row"]
    ) -> Float[Tensor, " row"]:
        """Return the metric of every row, detached, a bounded number of rows at a time."""
        with torch.no_grad():
            return torch.cat([self.value(x[s], numbers[s]) for s in slices(len(x), self.config.rows)])

    def absent(self, x: Float[Tensor, "image channel height width"]) -> Float[Tensor, "image channel height width"]:
        """Return what stands in for the pixels of some images: themselves blurred, the mean image, or black."""
        match self.config.reference:
            case "blur":
                return blurred(x, self.config.blur_share * x.shape[2])
            case "mean":
                mean = x.mean(0) if self.mean is None else self.mean.to(x)
                return mean.expand_as(x)
            case "black":
                return self.bounds(x)[0].expand_as(x)

    def bounds(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the smallest and the largest value that an input pixel can have, (channel, 1, 1)."""
        contract = self.model.contract
        channels = x.shape[1]

        def per_channel(values: tuple[float, ...]) -> Tensor:
            return (
                torch.tensor(values).to(x).expand(channels)[:, None, None]
                if len(values) == 1
                else torch.tensor(values).to(x)[:, None, None]
            )

        mean, std = per_channel(contract.mean), per_channel(contract.std)
        low, high = contract.value_range
        return (low - mean) / std, (high - mean) / std

    def site(self) -> tuple[Site, TokenGrid]:
        """Return the site of token-level maps and its grid.

        The configured one, or the deepest site that lies on a grid and whose patch tokens the answer is computed from: a
        CNN's last stage, the input of a ViT's last block (a later patch token never reaches a CLS token).

        Raises
        ------
        SiteError
            If there is none, or the configured one has no place in the image.

        """
        name = self.config.site or default_site(self.model)
        site = self.model.site(name)
        if site.grid is None or len(site.grid.shape) != 2:
            raise SiteError(
                f"site '{name}' has no grid over the image: take another (mechinterp sites {self.model.spec})"
            )
        return site, site.grid


def default_site(model: VisionModel) -> str:
    """Return the deepest site with a grid over the image whose tokens the answer depends on.

    Raises
    ------
    SiteError
        If the model has neither stages nor blocks.

    """
    blocks = [n for n in model.sites if n.startswith("blocks.") and n.endswith(".hook_resid_pre")]
    if blocks:
        return max(blocks, key=lambda n: int(n.split(".")[1]))
    stages = [n for n in model.sites if n.startswith("stages.") and n.removeprefix("stages.").isdigit()]
    if stages:
        return max(stages, key=lambda n: int(n.removeprefix("stages.")))
    raise SiteError(f"'{model.spec}' has neither stages nor blocks: name a site (mechinterp sites {model.spec})")


def blurred(
    x: Float[Tensor, "image channel height width"], sigma: float
) -> Float[Tensor, "image channel height width"]:
    """Return images blurred by a Gaussian of this standard deviation in pixels, continued at the border by its pixels."""
    reach = max(1, round(3 * sigma))
    at = torch.arange(-reach, reach + 1, dtype=x.dtype, device=x.device)
    kernel = torch.exp(-0.5 * (at / sigma) ** 2)
    kernel = (kernel / kernel.sum()).expand(x.shape[1], 1, -1)
    padded = torch.nn.functional.pad(x, (reach,) * 4, mode="replicate")
    down = torch.nn.functional.conv2d(padded, kernel[..., None], groups=x.shape[1])
    return torch.nn.functional.conv2d(down, kernel[:, :, None, :], groups=x.shape[1])
