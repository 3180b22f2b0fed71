"""A network small enough to train while you read: is a fundus photograph referable? The notebooks load it from this file."""

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from mechinterp.phantoms.phantom_set import PhantomSet

LESIONS = ("haemorrhages", "exudates")
MEAN, STD = 0.5, 0.25
CELL_PX, CELL_MM2 = 4, 0.25  # a cell of the last stage, at 0.125 mm per pixel


class LesionNet(nn.Module):
    """Three stages, a map of the two kinds of lesion, and a linear answer from their areas in mm²."""

    def __init__(self, widths: tuple[int, int, int] = (16, 32, 48)) -> None:
        super().__init__()
        stages, channels = [], 3
        for width, stride in zip(widths, (2, 2, 1), strict=True):
            convolution = nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=False)
            stages.append(nn.Sequential(convolution, nn.BatchNorm2d(width), nn.ReLU()))
            channels = width
        self.stages = nn.Sequential(*stages)
        self.lesions = nn.Conv2d(channels, len(LESIONS), 1)
        self.head = nn.Linear(len(LESIONS), 2)
        nn.init.constant_(self.lesions.bias, -4.0)  # most cells hold no lesion

    def lesion_logits(self, x: torch.Tensor) -> torch.Tensor:
        """Return (batch, 2, 24, 24): log-odds of the share of each cell that each kind of lesion covers."""
        return self.lesions(self.stages(x))

    def areas_mm2(self, x: torch.Tensor) -> torch.Tensor:
        """Return (batch, 2): the area of each kind of lesion, summed over the map."""
        return CELL_MM2 * self.lesion_logits(x).sigmoid().sum((2, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits of "not referable" and "referable" for (batch, 3, 96, 96) pixels."""
        return self.head(self.areas_mm2(x))


def build() -> nn.Module:
    """Return the network without its weights: what ``mi.load_model("py:lesion_net.py:build")`` calls."""
    return LesionNet()


build.input_size = (96, 96)
build.mean, build.std = (MEAN,), (STD,)
build.class_names = ("not referable", "referable")


def train(phantoms: PhantomSet, to: Path, *, epochs: int = 20, seed: int = 0) -> Path:
    """Train on the patients of split ``train`` and write the weights; a few seconds on one core.

    The stages learn from the masks where the lesions are, which takes far fewer images than learning from labels; the head then
    learns the answer from the areas.
    """
    torch.manual_seed(seed)
    chosen = torch.from_numpy(phantoms.where("train"))
    pixels, coverage = phantoms.rendered(LESIONS)
    x = ((torch.from_numpy(pixels).permute(0, 3, 1, 2) - MEAN) / STD)[chosen]
    share = nn.functional.avg_pool2d(torch.from_numpy(coverage), CELL_PX)[chosen]
    y = torch.tensor([build.class_names.index(phantoms.labels[i]) for i in chosen])

    model = LesionNet().train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-2, total_steps=epochs * -(-len(y) // 16))
    for _ in range(epochs):
        for batch in torch.randperm(len(y)).split(16):
            quarter = int(torch.randint(4, ()))
            turned, truth = (torch.rot90(t[batch], quarter, (2, 3)) for t in (x, share))
            loss = nn.functional.binary_cross_entropy_with_logits(model.lesion_logits(turned), truth)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()

    model.eval()
    with torch.no_grad():
        areas = model.areas_mm2(x)
    optimiser = torch.optim.LBFGS(model.head.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(model.head(areas), y) + 1e-3 * model.head.weight.square().sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    save_file(model.state_dict(), to)
    return to
