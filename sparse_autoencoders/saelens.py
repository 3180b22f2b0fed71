"""What is asked of SAELens: its trainer, its architectures. Importing this module takes six seconds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from sae_lens.config import SAETrainerConfig
from sae_lens.saes.jumprelu_sae import JumpReLUTrainingSAE, JumpReLUTrainingSAEConfig
from sae_lens.saes.sae import TrainingSAE
from sae_lens.saes.standard_sae import StandardTrainingSAE, StandardTrainingSAEConfig
from sae_lens.saes.topk_sae import TopKTrainingSAEConfig
from sae_lens.training.sae_trainer import SAETrainer
from torch import Tensor

from sparse_autoencoders.architectures.topk import SparseStepBatchTopK, SparseStepTopK
from sparse_autoencoders.config import TrainSAEConfig
from sparse_autoencoders.initialisation import Start


def make_trainer(
    begin: Start,
    config: TrainSAEConfig,
    batches: Iterator[Tensor],
    batch_size: int,
    steps: int,
    dead_window: int,
    seed: int,
) -> SAETrainer[Any, Any]:
    """Return SAELens' trainer, ready for its first step.

    Parameters
    ----------
    begin
        Where the weights start.
    config
        How to train.
    batches
        Normalised activations, without end.
    batch_size, steps
        Tokens in a step, and how many steps.
    dead_window
        Steps of silence after which a latent counts as dead. SAELens' default of 1,000 is longer than many whole trainings
        on small sets.
    seed
        Of whatever SAELens draws while it builds the model.

    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        sae = _training_sae(begin, config)
    with torch.no_grad():
        sae.W_enc.data = begin.W_enc.clone().to(config.device)
        sae.W_dec.data = begin.W_dec.clone().to(config.device)
    decay = round(config.decay * steps)
    trainer: SAETrainer[Any, Any] = SAETrainer(
        SAETrainerConfig(
            total_training_samples=steps * batch_size,
            train_batch_size_samples=batch_size,
            lr=config.lr,
            lr_end=config.lr,  # left out, it becomes a tenth of lr, and the decay starts from there
            lr_scheduler_name="constant",
            lr_warm_up_steps=round(config.warm_up * steps),
            lr_decay_steps=decay,
            dead_feature_window=dead_window,
            feature_sampling_window=steps + 1,
            device=config.device,
        ),
        sae,
        batches,
    )
    for group in trainer.optimizer.param_groups:
        group["fused"] = True  # the same update in one pass over the weights instead of six
    return trainer


def _training_sae(begin: Start, config: TrainSAEConfig) -> TrainingSAE[Any]:
    width, d_in = begin.W_dec.shape
    size = {"d_in": d_in, "d_sae": width, "device": config.device, "decoder_init_norm": None}
    if config.arch in {"topk", "batchtopk"}:
        made = SparseStepTopK if config.arch == "topk" else SparseStepBatchTopK
        return made(
            TopKTrainingSAEConfig(
                **size, k=config.k, aux_loss_coefficient=config.aux, rescale_acts_by_decoder_norm=False
            )
        )
    if config.arch == "jumprelu":
        return JumpReLUTrainingSAE(
            JumpReLUTrainingSAEConfig(
                **size,
                jumprelu_sparsity_loss_mode="quadratic",
                target_l0=float(config.k),
                l0_coefficient=config.sparsity,
                jumprelu_ste_to_input=True,
            )
        )
    return StandardTrainingSAE(StandardTrainingSAEConfig(**size, l1_coefficient=config.sparsity))


@torch.no_grad()
def inference_weights(sae: TrainingSAE[Any], config: TrainSAEConfig, mean: Tensor, scale: float) -> dict[str, Any]:
    r"""Return the weights that read raw activations, normalisation and decoder norms folded in.

    With :math:`\tilde x = (x - \mu) / \sigma`, the codes of :math:`x` are :math:`\sigma` times those of :math:`\tilde x`:
    ReLU, TopK and a threshold scaled alike commute with :math:`\sigma`. So the encoder and the decoder stay,
    :math:`b_{enc} \to \sigma b_{enc}`, :math:`b_{dec} \to \sigma b_{dec} + \mu`.
    """
    W_enc, b_enc, W_dec, b_dec = (t.detach().cpu().double() for t in (sae.W_enc, sae.b_enc, sae.W_dec, sae.b_dec))
    norms = W_dec.norm(dim=-1).clamp_min(torch.finfo(torch.float32).tiny)
    # TopK chooses by the pre-activations as they are; its directions have unit norm but for the last step's update
    encoder_norms = torch.ones_like(norms) if config.arch in {"topk", "batchtopk"} else norms
    threshold = sae.threshold.detach().cpu().double() if config.arch == "jumprelu" else None
    weights: dict[str, Any] = {
        "architecture": {"topk": "topk", "standard": "standard"}.get(config.arch, "jumprelu"),
        "W_enc": (W_enc * encoder_norms).float().contiguous(),
        "b_enc": (b_enc * encoder_norms * scale).float(),
        "W_dec": (W_dec / norms.unsqueeze(-1)).float().contiguous(),
        "b_dec": (b_dec * scale + mean.double()).float(),
        "k": config.k if config.arch == "topk" else None,
    }
    if config.arch == "batchtopk":
        weights["threshold"] = torch.zeros(len(norms))  # calibrated afterwards
    elif threshold is not None:
        weights["threshold"] = (threshold.clamp_min(0) * norms * scale).float()
    return weights
