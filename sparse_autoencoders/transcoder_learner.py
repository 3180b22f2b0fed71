"""A transcoder as it learns on the CPU: the sparse step with a target of its own, and a linear path beside it where wanted.

References
----------
Dunefsky, Chlenski, Nanda. Transcoders find interpretable LLM feature circuits. arXiv 2406.11944.
Paulo, Shabalin, Belrose. Transcoders beat sparse autoencoders for interpretability. arXiv 2501.18823 (the skip).

"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from mechinterp.errors import ConfigError
from sparse_autoencoders.config import TrainSAEConfig
from sparse_autoencoders.fused.selecting import Codes
from sparse_autoencoders.fused.step import ExtraGradient, SparseStep, Weights
from sparse_autoencoders.initialisation import Start
from sparse_autoencoders.learner import LearntWeights, StepResult
from sparse_autoencoders.sparse_learner import ARCHITECTURES, SparseLearner, weights_of


@dataclass(frozen=True)
class LearntTranscoder(LearntWeights):
    """Weights of a transcoder, in the scale it was trained in.

    Parameters
    ----------
    W_skip
        The linear path from what is read to what is written; none where there is none.

    """

    W_skip: Float[Tensor, "d_out d_in"] | None = None


@dataclass
class SkipWeights(Weights):
    """A transcoder's weights with a linear path: ``decoder(topk(encoder @ x + bias)) + skip @ x + out_bias``."""

    skip: Float[Tensor, "d_out d_in"] = field(kw_only=True)

    def tensors(self) -> dict[str, Tensor]:
        """Return what is trained, by name."""
        return {**super().tensors(), "skip": self.skip}


class SkipStep(SparseStep):
    """Adam on the weights of a transcoder whose linear path starts at zero and learns with the features."""

    weights: SkipWeights

    @torch.no_grad()
    def __call__(
        self, x: Float[Tensor, "row d_in"], target: Float[Tensor, "row d_out"] | None = None, *, lr: float
    ) -> StepResult:
        """Take one step."""
        wanted = x if target is None else target
        return super().__call__(x, wanted - x @ self.weights.skip.t(), lr=lr)

    @torch.no_grad()
    def heard(self, x: Float[Tensor, "row d_in"]) -> tuple[Codes, Float[Tensor, "row d_out"]]:
        """Return the codes, and what the features and the linear path write together."""
        codes, written = super().heard(x)
        return codes, written + x @ self.weights.skip.t()

    def _update(
        self, codes: Codes, slopes: NDArray[np.float32], error: NDArray[np.float32], read: NDArray[np.float32],
        extra: ExtraGradient, to_out_bias: Tensor, lr: float,
    ) -> None:  # fmt: skip
        # the gradient of the whole output is that of the linear path's too; it is clipped by itself
        gradient = torch.from_numpy(error[0]).t() @ torch.from_numpy(read)
        if self.clip is not None:
            gradient *= min(1.0, self.clip / max(float(gradient.norm()), 1e-30))
        beta1, beta2 = self.betas
        n = self.steps + 1
        m, v = self.first["skip"], self.second["skip"]
        m.lerp_(gradient, 1 - beta1)
        v.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        spread = (v / (1 - beta2**n)).sqrt() + self.epsilon
        self.weights.skip.sub_(lr / (1 - beta1**n) * m / spread)
        super()._update(codes, slopes, error, read, extra, to_out_bias, lr)


class TranscoderLearner(SparseLearner):
    """A transcoder between two steps; rows hold what it reads and, beside it, what it shall write.

    Parameters
    ----------
    begin
        Where the weights start.
    config
        How to train; its architecture is one of the TopK family, its device the CPU.
    dead_after
        Steps of silence after which a feature is dead.

    Raises
    ------
    ConfigError
        If the settings ask for another architecture or device.

    """

    def __init__(self, begin: Start, config: TrainSAEConfig, dead_after: int) -> None:
        if config.arch not in ARCHITECTURES or config.device != "cpu":
            raise ConfigError(
                f"a transcoder of arch {config.arch} on {config.device} is not trained here: take "
                f"{', '.join(sorted(ARCHITECTURES))} on the cpu"
            )
        self.d_in = len(begin.W_enc)
        weights = replace(weights_of(begin), tied_bias=False)
        step = SparseStep
        if config.skip:
            skip = torch.zeros(begin.W_dec.shape[1], self.d_in)
            weights, step = SkipWeights(**vars(weights), skip=skip), SkipStep
        super().__init__(begin, config, dead_after, weights=weights, step=step)

    def step(self, x: Float[Tensor, "row d_in+d_out"], *, lr: float, k: int) -> StepResult:
        """Take one step."""
        self._step.select.k = k
        return self._step(x[:, : self.d_in].contiguous(), x[:, self.d_in :].contiguous(), lr=lr)

    def reconstruct(self, x: Float[Tensor, "row d_in+d_out"]) -> Float[Tensor, "row d_out"]:
        """Return what is written for some rows."""
        return self._step.reconstruct(x[:, : self.d_in].contiguous())

    def restart(
        self, silent: Bool[Tensor, " feature"], directions: Float[Tensor, "silent d_in+d_out"], quiet: float
    ) -> None:
        """Let some features read and write elsewhere."""
        self._point(silent, directions[:, : self.d_in], directions[:, self.d_in :], quiet)

    def learnt(self) -> LearntTranscoder:
        """Return what is saved."""
        weights = self._step.weights
        skip = weights.skip.clone() if isinstance(weights, SkipWeights) else None
        return LearntTranscoder(**vars(super().learnt()), W_skip=skip)
