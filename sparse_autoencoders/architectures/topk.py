"""TopK and BatchTopK as SAELens training classes whose step is sparse, with unit decoder directions.

SAELens' own classes multiply dense matrices of mostly zeros and rescale by the decoder's norms in every step. These keep the
same parameters and configuration, and differ in three points: the step runs on :func:`sparse_autoencoders.kernels.autoencode`;
decoder rows are projected to unit norm before each step, so that a code is in the site's own units; and the auxiliary loss
touches dead latents only.

References
----------
Gao et al. Scaling and evaluating sparse autoencoders. arXiv 2406.04093, section 2.4 and appendix A.2.
Bussmann et al. BatchTopK sparse autoencoders. arXiv 2412.06410.

"""

from __future__ import annotations

from functools import partial

import torch
from sae_lens.saes.sae import TrainStepInput, TrainStepOutput
from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig
from torch import Tensor

from sparse_autoencoders.architectures.auxiliary import dead_latents_loss
from sparse_autoencoders.fused.step import level_shares
from sparse_autoencoders.kernels import Select, autoencode, topk_of_batch, topk_of_row
from sparse_autoencoders.processes import ALONE, Processes


class SparseStepTopK(TopKTrainingSAE):
    """SAELens' TopK with a sparse training step.

    The configuration must have ``rescale_acts_by_decoder_norm=False``: the norms are one already.
    """

    @property
    def select(self) -> Select:
        """Which pre-activations of a batch are kept."""
        return partial(topk_of_row, k=self.cfg.k)

    @torch.no_grad()
    def project_decoder(self) -> None:
        """Give every decoder row unit norm."""
        self.W_dec.data /= self.W_dec.data.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(self.W_dec.dtype).tiny)

    def training_forward_pass(self, step_input: TrainStepInput) -> TrainStepOutput:
        """Return reconstruction, codes and loss of one batch."""
        self.project_decoder()
        x = step_input.sae_in
        centred = x - self.b_dec
        reconstruction, codes, hidden = autoencode(centred, self.W_enc, self.b_enc, self.W_dec, self.select)
        error = centred - reconstruction
        mse = error.square().sum(-1).mean()
        auxiliary = self._auxiliary(centred, error, step_input.dead_neuron_mask)
        return TrainStepOutput(
            sae_in=x,
            sae_out=x - error,
            feature_acts=codes,
            hidden_pre=hidden,
            loss=mse + auxiliary,
            losses={"mse_loss": mse, "auxiliary_reconstruction_loss": auxiliary},
        )

    def _auxiliary(self, centred: Tensor, error: Tensor, dead: Tensor | None) -> Tensor:
        return dead_latents_loss(
            centred.detach(), error.detach(), dead, self.W_enc, self.b_enc, self.W_dec, self.cfg.aux_loss_coefficient
        )


class SparseStepBatchTopK(SparseStepTopK):
    """BatchTopK: k latents a row on average over the batch. It is saved as a JumpReLU with one calibrated threshold."""

    processes: Processes = ALONE  # that hold the batch together

    @property
    def select(self) -> Select:
        """Which pre-activations of a batch are kept."""
        return partial(topk_of_batch if self.processes.alone else self.processes.topk_of_batch, k=self.cfg.k)


class SparseStepMatryoshka(SparseStepBatchTopK):
    """BatchTopK whose first latents must reconstruct alone too: the loss is a mean over nested prefixes of the dictionary.

    Parameters
    ----------
    cfg
        Sizes and the auxiliary loss.
    prefixes, balance
        As :class:`~sparse_autoencoders.fused.step.SparseStep` has them.

    References
    ----------
    Bussmann et al. Learning multi-level features with Matryoshka sparse autoencoders. arXiv 2503.17547.

    """

    def __init__(self, cfg: TopKTrainingSAEConfig, prefixes: tuple[int, ...], balance: float) -> None:
        super().__init__(cfg)
        self.prefixes, self.shares = prefixes, torch.from_numpy(level_shares(len(prefixes), balance))

    def training_forward_pass(self, step_input: TrainStepInput) -> TrainStepOutput:
        """Return reconstruction, codes and loss of one batch."""
        self.project_decoder()
        x = step_input.sae_in
        centred = x - self.b_dec
        _, codes, hidden = autoencode(centred.detach(), self.W_enc, self.b_enc, self.W_dec, self.select)
        kept = torch.where(codes > 0, (centred @ self.W_enc + self.b_enc), 0.0)
        errors: list[Tensor] = []
        for begin, end in zip((0, *self.prefixes), self.prefixes, strict=False):
            before = errors[-1] if errors else centred
            errors.append(before - kept[:, begin:end] @ self.W_dec[begin:end])
        mse = torch.stack([error.square().sum(-1).mean() for error in errors]) @ self.shares.to(x.device)
        auxiliary = self._auxiliary(centred, errors[-1], step_input.dead_neuron_mask)
        return TrainStepOutput(
            sae_in=x,
            sae_out=x - errors[-1],
            feature_acts=codes,
            hidden_pre=hidden,
            loss=mse + auxiliary,
            losses={"mse_loss": mse, "auxiliary_reconstruction_loss": auxiliary},
        )
