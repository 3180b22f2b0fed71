"""Sparse autoencoders of other toolkits, each stepped by its own code, behind one interface.

``overcomplete`` and ``dictionary-learning`` pin packages that fit no environment together, so they lie in a folder of the
benchmark's own, without their dependencies: ``make bench`` puts them into ``.bench``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

FOLDER = Path(__file__).resolve().parents[1] / ".bench"
# the best of 3e-4, 1e-3, 3e-3, 1e-2 for each at 300 steps of (192, 3072, k 32, batch 4096), by explained variance
LEARNING_RATES = {"ours": 1e-3, "sae_lens": 1e-3, "overcomplete": 1e-3, "dictionary_learning": 1e-3}


@dataclass(frozen=True)
class Task:
    """What all train: sizes, architecture, length."""

    arch: Literal["topk", "batchtopk"]
    d_in: int
    d_sae: int
    k: int
    batch: int
    steps: int
    seed: int = 0

    @property
    def warm_up(self) -> int:
        """Steps in which the learning rate rises."""
        return max(1, self.steps // 20)


@dataclass
class Candidate:
    """One toolkit's autoencoder.

    Parameters
    ----------
    step
        Takes one step on a batch.
    reconstruct
        Reconstructs rows as training does.

    """

    step: Callable[[Tensor], Any]
    reconstruct: Callable[[Tensor], Tensor]


def available() -> list[str]:
    """Return the toolkits that can be compared here."""
    names = ["sae_lens"]
    if FOLDER.is_dir():
        if str(FOLDER) not in sys.path:
            sys.path.append(str(FOLDER))
        names += ["overcomplete", "dictionary_learning"]
    return names


def ours(task: Task, sample: Tensor, lr: float | None = None) -> Candidate:
    """Return this toolkit's."""
    from sparse_autoencoders.config import TrainSAEConfig
    from sparse_autoencoders.initialisation import start
    from sparse_autoencoders.schedules import learning_rate
    from sparse_autoencoders.single_training import make_learner

    config = TrainSAEConfig(
        arch=task.arch,
        k=task.k,
        expansion=task.d_sae / task.d_in,
        lr=lr or LEARNING_RATES["ours"],
        decay=0.0,
        steps=task.steps,
        batch_size=task.batch,
    )
    begin = start("data", sample, task.d_sae, task.k, torch.Generator().manual_seed(task.seed))
    # SAELens' window of silence: no latent counts as dead in so few steps, on either side
    learner = make_learner(begin, config, 1000, task.seed)
    taken = 0

    def step(x: Tensor) -> None:
        nonlocal taken
        learner.step(x, lr=learning_rate(min(taken, task.steps - 1), task.steps, config), k=task.k)
        taken += 1

    return Candidate(step, learner.reconstruct)


def sae_lens(task: Task, sample: Tensor, lr: float | None = None, *, bfloat16: bool = False) -> Candidate:
    """Return SAELens', stepped by its trainer."""
    from sae_lens.config import SAETrainerConfig
    from sae_lens.saes.batchtopk_sae import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig
    from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.training.sae_trainer import SAETrainer

    torch.manual_seed(task.seed)
    size: dict[str, Any] = {"d_in": task.d_in, "d_sae": task.d_sae, "k": task.k, "device": "cpu"}
    sae: Any = (
        # with sparse activations, its default, the auxiliary loss fails in backward on the CPU
        TopKTrainingSAE(TopKTrainingSAEConfig(**size, use_sparse_activations=False))
        if task.arch == "topk"
        else BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(**size))
    )
    rate = lr or LEARNING_RATES["sae_lens"]
    trainer: Any = SAETrainer(
        SAETrainerConfig(
            total_training_samples=task.steps * task.batch,
            train_batch_size_samples=task.batch,
            lr=rate,
            lr_end=rate,
            lr_scheduler_name="constant",
            lr_warm_up_steps=task.warm_up,
            lr_decay_steps=0,
            dead_feature_window=1000,
            feature_sampling_window=10**6,
            device="cpu",
            autocast=bfloat16,
        ),
        sae,
        iter(()),
    )

    def step(x: Tensor) -> None:
        trainer.step(x)
        trainer.n_training_steps += 1

    def reconstruct(x: Tensor) -> Tensor:
        with torch.no_grad():
            found: Tensor = sae.decode(sae.encode_with_hidden_pre(x)[0])
        return found

    return Candidate(step, reconstruct)


def overcomplete(task: Task, sample: Tensor, lr: float | None = None, *, bfloat16: bool = False) -> Candidate:
    """Return overcomplete's, stepped by its ``train_sae``."""
    import matplotlib as mpl
    import matplotlib.cm

    if not hasattr(matplotlib.cm, "get_cmap"):
        # overcomplete asks for what newer releases of matplotlib have under another name
        vars(matplotlib.cm)["get_cmap"] = mpl.colormaps.get_cmap
    from overcomplete.sae import BatchTopKSAE, TopKSAE, train_sae

    torch.manual_seed(task.seed)
    made = TopKSAE if task.arch == "topk" else BatchTopKSAE
    sae = made(task.d_in, task.d_sae, top_k=task.k * (1 if task.arch == "topk" else task.batch))
    optimiser = torch.optim.Adam(sae.parameters(), lr=lr or LEARNING_RATES["overcomplete"])
    rise = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda at: min(1.0, (at + 1) / task.warm_up))

    def squared(x: Tensor, x_hat: Tensor, *_: Tensor) -> Tensor:
        return (x - x_hat).square().mean()

    def step(x: Tensor) -> None:
        with torch.autocast("cpu", torch.bfloat16) if bfloat16 else nullcontext():
            train_sae(sae, [x], squared, optimiser, rise, nb_epochs=1, clip_grad=1.0, monitoring=0)

    def reconstruct(x: Tensor) -> Tensor:
        with torch.no_grad():
            found: Tensor = sae(x)[2]
        return found

    return Candidate(step, reconstruct)


def dictionary_learning(task: Task, sample: Tensor, lr: float | None = None, *, bfloat16: bool = False) -> Candidate:
    """Return dictionary_learning's, stepped by its trainer."""
    from dictionary_learning.trainers.batch_top_k import BatchTopKTrainer
    from dictionary_learning.trainers.top_k import TopKTrainer

    made = TopKTrainer if task.arch == "topk" else BatchTopKTrainer
    trainer = made(
        steps=10**6,
        activation_dim=task.d_in,
        dict_size=task.d_sae,
        k=task.k,
        layer=0,
        lm_name="none",
        lr=lr or LEARNING_RATES["dictionary_learning"],
        warmup_steps=task.warm_up,
        decay_start=None,
        seed=task.seed,
        device="cpu",
    )
    taken = 0

    def step(x: Tensor) -> None:
        nonlocal taken
        with torch.autocast("cpu", torch.bfloat16) if bfloat16 else nullcontext():
            trainer.update(taken, x)
        taken += 1

    def reconstruct(x: Tensor) -> Tensor:
        with torch.no_grad():
            codes = trainer.ae.encode(x) if task.arch == "topk" else trainer.ae.encode(x, use_threshold=False)
            found: Tensor = trainer.ae.decode(codes)
        return found

    return Candidate(step, reconstruct)


PEERS = {"sae_lens": sae_lens, "overcomplete": overcomplete, "dictionary_learning": dictionary_learning}
