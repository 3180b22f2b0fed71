"""The training loop of the radiographs' reference models: every cell is asked what lies there, and what kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from mechinterp.progress import Progress
from mechinterp.reference import radiograph_networks as networks
from mechinterp.reference.recipes import Kind, Recipe
from mechinterp.reference.training_data import TrainingData

ARCHITECTURES: dict[tuple[str, Kind], Callable[[], nn.Module]] = {
    ("chest", "cnn"): networks.chest_cnn,
    ("chest", "vit"): networks.chest_vit,
    ("mammogram", "cnn"): networks.mammogram_cnn,
    ("mammogram", "vit"): networks.mammogram_vit,
}
# findings fill few cells: a found one counts as much as several empty ones
FOUND_WEIGHT = 5.0


@dataclass(frozen=True)
class RadiographData(TrainingData):
    """Rendered radiographs; ``lesions_mm2`` holds what each cell is asked for, 0 to 1, not an area."""

    def inputs(self, images: Int[Tensor, " batch"]) -> Float[Tensor, "batch 3 height width"]:
        """Return some images as the networks want them."""
        return (self.pixels[images].float() / 255 - networks.GREY_MEAN) / networks.GREY_STD


class SupervisedRadiograph(nn.Module):
    """A network with a linear readout of the findings at every cell, which is thrown away after training."""

    def __init__(self, phantom: str, kind: Kind, asked: int) -> None:
        super().__init__()
        self.network = ARCHITECTURES[phantom, kind]()
        self.readout = nn.Linear(96 if kind == "vit" else 64, asked)
        height, width = networks.SIZES_PX[phantom]
        self.grid = height // networks.PATCH_PX, width // networks.PATCH_PX

    def forward(self, x: Float[Tensor, "batch 3 h w"]) -> tuple[Tensor, Float[Tensor, "batch finding row column"]]:
        """Return the logits of the image and those of every cell of 8 × 8 pixels."""
        if isinstance(self.network, networks.RadiographCNN):
            maps = self.network.forward_features(x)
            logits, cells = self.network.forward_head(maps[-1]), maps[2].flatten(2).transpose(1, 2)
        else:
            tokens = self.network.forward_features(x)  # type: ignore[operator]  # of any nn.Module, torch says Tensor | Module
            logits = self.network.forward_head(tokens)  # type: ignore[operator]
            cells = tokens[:, self.network.num_prefix_tokens :]
        return logits, self.readout(cells).transpose(1, 2).unflatten(2, self.grid)


def fit(phantom: str, kind: Kind, recipe: Recipe, data: RadiographData, seed: int, progress: Progress) -> nn.Module:
    """Train one network from scratch; the same arguments give the same bits on the same machine and versions.

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
            return _fitted(phantom, kind, recipe, data, torch.Generator().manual_seed(seed), progress)
        finally:
            torch.set_num_threads(before)


def _fitted(
    phantom: str, kind: Kind, recipe: Recipe, data: RadiographData, order: torch.Generator, progress: Progress
) -> nn.Module:
    model = SupervisedRadiograph(phantom, kind, data.lesions_mm2.shape[1])
    weights = list(model.parameters())
    optimiser = torch.optim.AdamW(
        [
            {"params": [p for p in weights if p.dim() > 1], "weight_decay": recipe.weight_decay},
            {"params": [p for p in weights if p.dim() <= 1], "weight_decay": 0.0},
        ],
        lr=recipe.learning_rate,
    )
    train = data.where("train")
    size = min(recipe.batch_size, len(train))
    batches = [
        batch
        for _ in range(recipe.epochs)
        for batch in train[torch.randperm(len(train), generator=order)].split(size)  # type: ignore[no-untyped-call]
        if len(batch) == size
    ]
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, recipe.learning_rate, total_steps=len(batches), pct_start=0.15
    )
    model.train()
    for images in progress.track(batches, f"training the {kind}", total=len(batches)):
        across, down = torch.rand(2, generator=order).tolist()
        # what lies where is learned by texture, so a mirrored image is one image more
        axes = [axis for axis, drawn in ((3, across), (2, down)) if drawn < 0.5 and phantom == "mammogram"]
        logits, cells = model(data.inputs(images).flip(axes))
        asked = functional.binary_cross_entropy_with_logits(
            cells, data.lesions_mm2[images].flip(axes), pos_weight=torch.tensor(FOUND_WEIGHT)
        )
        loss = functional.cross_entropy(logits, data.referable[images].long()) + recipe.token_loss * asked
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    return model.network.eval()
