"""The training loop of the mammogram CNN: crops around findings first, then whole images.

A finding fills a hundredth of a mammogram. In a crop it fills a tenth, and crops take a third of the time: the network
learns there what makes a finding suspicious, and then only has to learn where to look.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from mechinterp.progress import Progress
from mechinterp.reference.radiograph_fitting import RadiographData
from mechinterp.reference.radiograph_networks import PATCH_PX, mammogram_cnn
from mechinterp.reference.recipes import Recipe

FOUND_WEIGHT = 20.0
"""A cell that holds a finding counts as much as so many that hold none: findings fill few cells."""
CROP_CELLS = 12
"""Side of a crop, in cells of 8 pixels."""


class SupervisedMammogram(nn.Module):
    """The CNN with a linear readout of the findings at every cell, which is thrown away after training; takes any size."""

    def __init__(self, findings: int) -> None:
        super().__init__()
        self.network = mammogram_cnn()
        self.readout = nn.Conv2d(64, findings, 1)

    def forward(self, x: Float[Tensor, "batch 3 h w"]) -> tuple[Tensor, Float[Tensor, "batch finding row column"]]:
        """Return the logits of the image and those of every cell of 8 × 8 pixels."""
        maps = self.network.forward_features(x)  # type: ignore[operator]  # of any nn.Module, torch says Tensor | Module
        return self.network.forward_head(maps[-1]), self.readout(maps[2])  # type: ignore[operator]


def multiplies_bfloat16() -> bool:
    """Return whether this machine's processor multiplies bfloat16 itself: training then takes less than half the time."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def fit(recipe: Recipe, crop_epochs: int, data: RadiographData, seed: int, progress: Progress) -> nn.Module:
    """Train the network from scratch; the same arguments give the same bits on the same machine and versions.

    Parameters
    ----------
    recipe
        Schedule and losses; its epochs are passes over whole images.
    crop_epochs
        Passes over one crop of each image, before those.
    data
        The images.
    seed
        Of initial weights, order of the images, mirrors and crops.
    progress
        Told of every step.

    Returns
    -------
    nn.Module
        The network in evaluation mode, without the cells' readout.

    """
    before = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_num_threads(recipe.threads)
        try:
            return _fitted(recipe, crop_epochs, data, torch.Generator().manual_seed(seed), progress)
        finally:
            torch.set_num_threads(before)


def _fitted(
    recipe: Recipe, crop_epochs: int, data: RadiographData, random: torch.Generator, progress: Progress
) -> nn.Module:
    model = SupervisedMammogram(data.lesions_mm2.shape[1])
    model.train()
    weights = list(model.parameters())
    optimiser = torch.optim.AdamW(
        [
            {"params": [p for p in weights if p.dim() > 1], "weight_decay": recipe.weight_decay},
            {"params": [p for p in weights if p.dim() <= 1], "weight_decay": 0.0},
        ],
        lr=recipe.learning_rate,
        fused=True,
    )
    train = data.where("train")
    size = min(recipe.batch_size, len(train))
    batches = [
        (batch, epoch < crop_epochs)
        for epoch in range(crop_epochs + recipe.epochs)
        for batch in train[torch.randperm(len(train), generator=random)].split(size)  # type: ignore[no-untyped-call]
        if len(batch) == size
    ]
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, recipe.learning_rate, total_steps=len(batches), pct_start=0.15
    )
    faster, weight = multiplies_bfloat16(), torch.tensor(FOUND_WEIGHT)
    for images, cropped in progress.track(batches, "training the cnn", total=len(batches)):
        x, asked = data.inputs(images), data.lesions_mm2[images]
        if cropped:
            x, asked = crops(x, asked, random)
        across, down = torch.rand(2, generator=random).tolist()
        # what lies where is learned by texture, so a mirrored image is one image more
        axes = [axis for axis, drawn in ((3, across), (2, down)) if drawn < 0.5]
        with torch.autocast("cpu", torch.bfloat16, enabled=faster):
            logits, cells = model(x.flip(axes))
        found = functional.binary_cross_entropy_with_logits(cells.float(), asked.flip(axes), pos_weight=weight)
        loss = functional.cross_entropy(logits.float(), data.referable[images].long()) + recipe.token_loss * found
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        schedule.step()
    return model.network.eval()


def crops(
    x: Float[Tensor, "image 3 height width"], asked: Float[Tensor, "image finding row column"], random: torch.Generator
) -> tuple[Float[Tensor, "image 3 side side"], Float[Tensor, "image finding cells cells"]]:
    """Return one crop of each image, and of what its cells are asked: around a finding, or around tissue where there is none.

    Parameters
    ----------
    x
        Prepared images.
    asked
        What each cell holds.
    random
        Decides on which of the cells with a finding, and where in the crop it lies.

    """
    rows, columns = asked.shape[2:]
    held = asked.sum(1).flatten(1)
    # air is black, and dense tissue, in which nothing is to be found, is bright
    light = functional.avg_pool2d(x[:, 0], PATCH_PX).flatten(1)
    light = light - light.amin(1, keepdim=True) + 1e-6
    chance = torch.where(held.sum(1, keepdim=True) > 0, held, light)
    at = torch.multinomial(chance, 1, generator=random)[:, 0]
    # the cell lies in the crop but not at its edge, where its surroundings would be cut off
    inside = torch.randint(1, CROP_CELLS - 1, (2, len(x)), generator=random)
    top = (at // columns - inside[0]).clamp(0, rows - CROP_CELLS).tolist()
    left = (at % columns - inside[1]).clamp(0, columns - CROP_CELLS).tolist()
    side = CROP_CELLS * PATCH_PX
    return (
        torch.stack([
            image[:, PATCH_PX * r : PATCH_PX * r + side, PATCH_PX * c : PATCH_PX * c + side]
            for image, r, c in zip(x, top, left, strict=True)
        ]),
        torch.stack([
            cells[:, r : r + CROP_CELLS, c : c + CROP_CELLS] for cells, r, c in zip(asked, top, left, strict=True)
        ]),
    )  # fmt: skip
