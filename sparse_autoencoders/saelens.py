"""Architectures of SAELens as learners: its classes give the loss, autograd the gradient. Importing this takes six seconds."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float
from sae_lens.saes.gated_sae import GatedTrainingSAE, GatedTrainingSAEConfig
from sae_lens.saes.jumprelu_sae import JumpReLUTrainingSAE, JumpReLUTrainingSAEConfig
from sae_lens.saes.sae import TrainingSAE, TrainStepInput, TrainStepOutput
from sae_lens.saes.standard_sae import StandardTrainingSAE, StandardTrainingSAEConfig
from sae_lens.saes.topk_sae import TopKTrainingSAEConfig
from torch import Tensor

from sparse_autoencoders.architectures.topk import SparseStepBatchTopK, SparseStepMatryoshka, SparseStepTopK
from sparse_autoencoders.config import TrainSAEConfig
from sparse_autoencoders.initialisation import Start
from sparse_autoencoders.learner import LearntWeights, StepResult, copy_into
from sparse_autoencoders.merged import held_beside
from sparse_autoencoders.processes import ALONE, Processes
from sparse_autoencoders.sparse_learner import ARCHITECTURES, prefixes_of
from sparse_autoencoders.waking import bar_of_batch, bar_of_rows, displaced, longest, moments_of_new, places

_TINY = torch.finfo(torch.float32).tiny


class SAELensLearner:
    """A learner of any architecture, on any device; see :class:`~sparse_autoencoders.learner.Learner`.

    Parameters
    ----------
    begin
        Where the weights start.
    config
        How to train.
    dead_after
        Steps of silence after which a feature is dead. SAELens' default of 1,000 is longer than many whole trainings on small
        sets.
    seed
        Of whatever SAELens draws while it builds the model.
    processes
        That share the rows of each step; all of them take it, on equal weights.

    """

    def __init__(
        self, begin: Start, config: TrainSAEConfig, dead_after: int, seed: int, processes: Processes = ALONE
    ) -> None:
        device = processes.device(config.device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.sae = _training_sae(begin, config, device)
        with torch.no_grad():
            self.sae.W_enc.data = begin.W_enc.clone().to(device)
            self.sae.W_dec.data = begin.W_dec.clone().to(device)
        self._processes = processes
        if isinstance(self.sae, SparseStepBatchTopK):
            self.sae.processes = processes
        self.config, self.dead_after = config, dead_after
        self.silent_for = torch.zeros(len(begin.W_dec), dtype=torch.long)
        # the same update in one pass over the weights instead of six
        self._optimiser = torch.optim.Adam(self.sae.parameters(), betas=(0.9, 0.999), fused=True)
        self._steps = 0

    def step(self, x: Float[Tensor, "row d_in"], *, lr: float, k: int) -> StepResult:
        """Take one step; of several processes each gives all rows and looks at its share of them."""
        if self.config.arch in {"topk", "batchtopk", "matryoshka"}:
            self.sae.cfg.k = k
        x = self._processes.share(x)
        for group in self._optimiser.param_groups:
            group["lr"] = lr
        dead = (self.silent_for >= self.dead_after).to(self.sae.device)
        weights = {"l1": self.config.sparsity, "l0": self.config.sparsity}
        output = self.sae.training_forward_pass(
            TrainStepInput(x.to(self.sae.device), weights, dead if bool(dead.any()) else None, self._steps, False)
        )
        self._optimiser.zero_grad(set_to_none=True)
        output.loss.backward()
        self._processes.average(p.grad for p in self.sae.parameters() if p.grad is not None)
        if self.config.clip is not None:
            torch.nn.utils.clip_grad_norm_(self.sae.parameters(), self.config.clip)
        self._optimiser.step()
        self._steps += 1
        active = output.feature_acts.detach() != 0
        self.silent_for += 1
        self.silent_for[self._processes.any(active.any(0)).cpu()] = 0
        error = (output.sae_in - output.sae_out).detach().square().sum(-1).mean()
        seen = torch.stack([output.loss.detach(), error, active.sum(-1).float().mean()])
        self._processes.average([seen])
        return StepResult(*seen.tolist())

    @torch.no_grad()
    def reconstruct(self, x: Float[Tensor, "row d_in"]) -> Float[Tensor, "row d_in"]:
        """Reconstruct rows as training does."""
        reconstruction: Tensor = self._forward(x.to(self.sae.device)).sae_out.cpu()
        return reconstruction

    def _forward(self, x: Tensor) -> TrainStepOutput:
        return self.sae.training_forward_pass(TrainStepInput(x, {"l1": 0.0, "l0": 0.0}, None, self._steps, False))

    @torch.no_grad()
    def restart(self, silent: Bool[Tensor, " feature"], directions: Float[Tensor, "silent d_in"], quiet: float) -> None:
        """Point some features elsewhere."""
        sae, at, directions = self.sae, silent.to(self.sae.device), directions.to(self.sae.device)
        living = sae.W_enc[:, ~at].norm(dim=0).mean()
        sae.W_dec.data[at] = directions * sae.W_dec[~at].norm(dim=-1).mean()
        sae.W_enc.data[:, at] = quiet * living * directions.T
        for name, parameter in sae.named_parameters():
            if name == "b_dec":
                continue
            if name.startswith("b_"):
                parameter.data[at] = 0
            moments = self._optimiser.state[parameter]
            for moment in (moments["exp_avg"], moments["exp_avg_sq"]):
                (moment.T if name == "W_enc" else moment)[at] = 0
        self.silent_for[silent] = 0

    @torch.no_grad()
    def wake(
        self, silent: Bool[Tensor, " feature"], x: Float[Tensor, "row d_in"], generator: torch.Generator, *, apart: bool
    ) -> int:
        """Give silent features new places among some rows; outside the TopK family there is none."""
        if self.config.arch not in ARCHITECTURES:
            return 0
        sae, x, living = self.sae, x.to(self.sae.device), ~silent.to(self.sae.device)
        output = self._forward(x)
        codes, left_over = output.feature_acts, x - output.sae_out
        beside = None
        if apart:
            directions = torch.nn.functional.normalize(sae.W_dec.data, dim=1)
            beside = held_beside(codes.to_sparse_csr(), left_over, directions, living, int(silent.sum()), generator)
        if self.config.arch == "topk":
            values, columns = codes.topk(sae.cfg.k, dim=1, sorted=False)
            bar = bar_of_rows(values)
            left_over += displaced(values, columns, sae.W_dec)
        else:
            bar = bar_of_batch(codes[codes > 0], len(x))
        norm = float(sae.W_enc[:, living].norm(dim=0).mean())
        candidates = longest(self.silent_for, silent).to(x.device)
        found = places(candidates, x - sae.b_dec, left_over, bar, norm, generator, beside)
        at = found.features
        share = moments_of_new(len(x), int((codes > 0).sum()), int(living.sum()))
        for parameter, values in ((sae.W_enc, found.encoder), (sae.b_enc, found.bias), (sae.W_dec, found.decoder)):
            moments = self._optimiser.state[parameter]
            rows, first, second = (
                t.T if parameter is sae.W_enc else t
                for t in (parameter.data, moments["exp_avg"], moments["exp_avg_sq"])
            )
            rows[at] = values
            # next to nothing is known of a silent row's gradients: a first step by that would be far too long
            first[at] = 0
            second[at] = share * second[living].mean(0)
        self.silent_for[at.cpu()] = 0
        return len(at)

    def trained(self) -> dict[str, Tensor]:
        """Return the tensors that training changes."""
        return {name: parameter.data for name, parameter in self.sae.named_parameters()}

    def refresh(self) -> None:
        """Do nothing: nothing is kept beside the weights."""

    @torch.no_grad()
    def learnt(self) -> LearntWeights:
        """Return what is saved, decoder norms folded in; what is chosen over a batch waits for its calibrated thresholds."""
        sae, arch = self.sae, self.config.arch
        tensors = {name: tensor.detach().cpu().double() for name, tensor in sae.named_parameters()}
        W_enc, W_dec = tensors["W_enc"], tensors["W_dec"]
        norms = W_dec.norm(dim=-1).clamp_min(_TINY)
        threshold = tensors.get("threshold")
        if arch == "gated":
            # a gate open where x W + b_gate > 0 is a threshold on exp(r) x W + b_mag
            gain = tensors["r_mag"].exp()
            W_enc, b_enc = W_enc * gain, tensors["b_mag"]
            threshold = b_enc - gain * tensors["b_gate"]
        else:
            b_enc = tensors["b_enc"]
        # TopK chooses by the pre-activations as they are; its directions have unit norm but for the last step's update
        scale = torch.ones_like(norms) if arch in {"topk", "batchtopk", "matryoshka"} else norms
        if arch in {"batchtopk", "matryoshka"}:
            threshold = torch.zeros(len(norms), dtype=torch.float64)
        return LearntWeights(
            "topk" if arch == "topk" else "standard" if arch == "standard" else "jumprelu",
            (W_enc * scale).float().contiguous(),
            (b_enc * scale).float(),
            (W_dec / norms.unsqueeze(-1)).float().contiguous(),
            tensors["b_dec"].float(),
            self.config.k if arch == "topk" else None,
            None if threshold is None else (threshold.clamp_min(0) * scale).float(),
        )

    def state(self) -> dict[str, Tensor]:
        """Return everything that the next step depends on."""
        state = {**self.trained(), "silent_for": self.silent_for, "steps": torch.tensor([self._steps])}
        for name, parameter in self.sae.named_parameters():
            for key, tensor in self._optimiser.state.get(parameter, {}).items():
                state[f"{key}.{name}"] = tensor
        return {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Go back to a state."""
        copy_into(self.trained(), state)
        self.silent_for.copy_(state["silent_for"])
        self._steps = int(state["steps"])
        for name, parameter in self.sae.named_parameters():
            self._optimiser.state[parameter] = {
                key: state[f"{key}.{name}"].to(parameter.device).clone()
                for key in ("step", "exp_avg", "exp_avg_sq")
                if f"{key}.{name}" in state
            }


def _training_sae(begin: Start, config: TrainSAEConfig, device: str) -> TrainingSAE[Any]:
    width, d_in = begin.W_dec.shape
    size = {"d_in": d_in, "d_sae": width, "device": device, "decoder_init_norm": None}
    if config.arch in {"topk", "batchtopk", "matryoshka"}:
        topk = TopKTrainingSAEConfig(
            **size, k=config.k, aux_loss_coefficient=config.aux, rescale_acts_by_decoder_norm=False
        )
        if config.arch == "matryoshka":
            return SparseStepMatryoshka(topk, prefixes_of(config, width), config.balance)
        return (SparseStepTopK if config.arch == "topk" else SparseStepBatchTopK)(topk)
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
    if config.arch == "gated":
        return GatedTrainingSAE(GatedTrainingSAEConfig(**size, l1_coefficient=config.sparsity))
    return StandardTrainingSAE(StandardTrainingSAEConfig(**size, l1_coefficient=config.sparsity))
