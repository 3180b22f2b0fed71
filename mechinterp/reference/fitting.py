"""The training loop of the reference models: deterministic, on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.stats import rankdata
from torch import Tensor, nn
from torch.nn import functional

from mechinterp.progress import Progress
from mechinterp.reference.networks import ReferenceCNN, reference_cnn, reference_vit
from mechinterp.reference.recipes import Kind, Recipe
from mechinterp.reference.training_data import FULL_CELL_MM2, LESIONS, TrainingData

ARCHITECTURES: dict[Kind, Callable[[], nn.Module]] = {"cnn": reference_cnn, "vit": reference_vit}
CLEAREST_LOG = 1.2
LESION_WEIGHT = 4.0


class Supervised(nn.Module):
    """A network with a linear readout of the lesions at every cell, which is thrown away after training.

    A ViT that only hears of the image's label finds no small lesion in minutes; asked at every patch, it does, and the
    CLS token then learns to gather what the patches know.
    """

    def __init__(self, kind: Kind) -> None:
        super().__init__()
        self.kind = kind
        self.network = ARCHITECTURES[kind]()
        width = 96 if kind == "vit" else 64
        self.readout = nn.Linear(width, len(LESIONS))

    def forward(self, x: Float[Tensor, "batch 3 h w"]) -> tuple[Tensor, Float[Tensor, "batch lesion row column"]]:
        """Return the logits of the image and those of every cell of 8 × 8 pixels."""
        if isinstance(self.network, ReferenceCNN):
            maps = self.network.forward_features(x)
            logits, cells = self.network.forward_head(maps[-1]), maps[2].flatten(2).transpose(1, 2)
        else:
            tokens = self.network.forward_features(x)  # type: ignore[operator]
            logits = self.network.forward_head(tokens)  # type: ignore[operator]
            cells = tokens[:, self.network.num_prefix_tokens :]
        side = round(cells.shape[1] ** 0.5)
        return logits, self.readout(cells).transpose(1, 2).reshape(len(x), len(LESIONS), side, side)


def fit(kind: Kind, recipe: Recipe, data: TrainingData, seed: int, progress: Progress) -> nn.Module:
    """Train one network from scratch; the same arguments give the same bits on the same machine and versions.

    Returns
    -------
    nn.Module
        The network in evaluation mode, without the cells' readout.

    """
    with _deterministic(seed, recipe.threads):
        model = Supervised(kind)
        decay = [p for p in model.parameters() if p.dim() > 1]
        rest = [p for p in model.parameters() if p.dim() <= 1]
        optimiser = torch.optim.AdamW(
            [{"params": decay, "weight_decay": recipe.weight_decay}, {"params": rest, "weight_decay": 0.0}],
            lr=recipe.learning_rate,
        )
        order = torch.Generator().manual_seed(seed)
        epochs = [_batches(recipe, data, epoch, order) for epoch in range(recipe.epochs)]
        steps = sum(len(e) for e in epochs)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimiser, recipe.learning_rate, total_steps=steps, pct_start=0.15
        )
        model.train()
        for images in progress.track((b for e in epochs for b in e), f"training the {kind}", total=steps):
            optimiser.zero_grad(set_to_none=True)
            _loss(model, recipe, data, images, order).backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
        return model.network.eval()


def scores(network: nn.Module, data: TrainingData, images: Int[Tensor, " image"]) -> Float[Tensor, " image"]:
    """Return the logit difference referable - not referable of some images."""
    with torch.no_grad():
        logits = torch.cat([network(data.inputs(batch)) for batch in _chunks(images, 128)])
    difference: Tensor = logits[:, 1] - logits[:, 0]
    return difference


def auroc(scored: Float[Tensor, " image"], positive: Tensor) -> float:
    """Return the area under the ROC curve, ties counted half, by the rank sum."""
    labels = positive.numpy().astype(bool)
    n_positive, n_negative = int(labels.sum()), int((~labels).sum())
    if not n_positive or not n_negative:
        return float("nan")
    ranks = rankdata(scored.double().numpy())
    return float((ranks[labels].sum() - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative))


def _batches(recipe: Recipe, data: TrainingData, epoch: int, order: torch.Generator) -> list[Tensor]:
    """Return one epoch's batches; in the first epochs without the images whose lesions are near the threshold."""
    train = data.where("train")
    if epoch < recipe.curriculum_epochs:
        least = CLEAREST_LOG * (1 - epoch / recipe.curriculum_epochs)
        train = train[data.clearness[train] >= least]
    shuffled = train[torch.randperm(len(train), generator=order)]
    whole = max(len(shuffled) // recipe.batch_size, 1)
    return _chunks(shuffled[: whole * recipe.batch_size], recipe.batch_size)


def _chunks(images: Tensor, size: int) -> list[Tensor]:
    return [images[i : i + size] for i in range(0, len(images), size)]


def _loss(model: Supervised, recipe: Recipe, data: TrainingData, images: Tensor, order: torch.Generator) -> Tensor:
    x, wanted = data.inputs(images), (data.lesions_mm2[images] / FULL_CELL_MM2).clamp(0, 1)
    across, down = torch.rand(2, generator=order).tolist()
    # a mirrored eye is an eye
    axes = [axis for axis, drawn in ((3, across), (2, down)) if drawn < 0.5]
    logits, cells = model(x.flip(axes))
    loss = functional.cross_entropy(logits, data.referable[images].long())
    if recipe.token_loss > 0:
        weight = torch.tensor(LESION_WEIGHT)
        cell_loss = functional.binary_cross_entropy_with_logits(cells, wanted.flip(axes), pos_weight=weight)
        loss = loss + recipe.token_loss * cell_loss
    return loss


@contextmanager
def _deterministic(seed: int, threads: int) -> Iterator[None]:
    """Seed PyTorch and pin its threads, and put both back."""
    before = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def count_parameters(network: nn.Module) -> int:
    """Return the number of a network's weights."""
    return int(np.sum([p.numel() for p in network.parameters()]))
