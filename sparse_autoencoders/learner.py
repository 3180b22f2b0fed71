"""What training asks of an autoencoder that learns, whatever computes its steps."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

if TYPE_CHECKING:
    from sparse_autoencoders.autoencoder import InferenceArchitecture


@dataclass(frozen=True)
class StepResult:
    """What a step saw, before it changed the weights.

    Parameters
    ----------
    loss
        What was minimised, a row's mean.
    squared_error
        Squared error of the whole reconstruction, a row's mean.
    l0
        Active features a row.

    """

    loss: float
    squared_error: float
    l0: float


@dataclass(frozen=True)
class LearntWeights:
    r"""Weights of an SAE with unit decoder directions, in the scale it was trained in.

    Parameters
    ----------
    architecture
        How it is saved: ``topk``, ``jumprelu`` or ``standard``.
    W_enc, b_enc, W_dec, b_dec
        As :class:`~sparse_autoencoders.autoencoder.SparseAutoencoder` has them.
    k, threshold
        For ``topk`` and ``jumprelu``.

    """

    architecture: InferenceArchitecture
    W_enc: Float[Tensor, "d_in feature"]
    b_enc: Float[Tensor, " feature"]
    W_dec: Float[Tensor, "feature d_in"]
    b_dec: Float[Tensor, " d_in"]
    k: int | None = None
    threshold: Float[Tensor, " feature"] | None = None

    def unfolded(self, mean: Float[Tensor, " d_in"], scale: float) -> LearntWeights:
        r"""Return the weights that read raw activations.

        With :math:`\tilde x = (x - \mu) / \sigma`, the codes of :math:`x` are :math:`\sigma` times those of :math:`\tilde x`:
        ReLU, TopK and a threshold scaled alike commute with :math:`\sigma`. So the encoder and the decoder stay,
        :math:`b_{enc} \to \sigma b_{enc}`, :math:`b_{dec} \to \sigma b_{dec} + \mu`.
        """
        return replace(
            self,
            b_enc=(self.b_enc.double() * scale).float(),
            b_dec=(self.b_dec.double() * scale + mean.double()).float(),
            threshold=None if self.threshold is None else (self.threshold.double() * scale).float(),
        )


class Learner(Protocol):
    """An autoencoder between two steps of its training."""

    dead_after: int

    @property
    def silent_for(self) -> Int[Tensor, " feature"]:
        """Steps since each feature was last active."""
        ...

    def step(self, x: Float[Tensor, "row d_in"], *, lr: float, k: int) -> StepResult:
        """Take one step on normalised rows at a learning rate, with `k` active features where the architecture has a k."""
        ...

    def reconstruct(self, x: Float[Tensor, "row d_in"]) -> Float[Tensor, "row d_in"]:
        """Reconstruct rows as training does."""
        ...

    def restart(self, silent: Bool[Tensor, " feature"], directions: Float[Tensor, "silent d_in"], quiet: float) -> None:
        """Point some features elsewhere, with an encoder of `quiet` times the others' norm, and forget what Adam knew of them."""
        ...

    def trained(self) -> dict[str, Tensor]:
        """Return the tensors that training changes, by name; writing into them changes the learner."""
        ...

    def refresh(self) -> None:
        """Follow tensors of :meth:`trained` that were written from outside."""
        ...

    def learnt(self) -> LearntWeights:
        """Return what is saved."""
        ...

    def state(self) -> dict[str, Tensor]:
        """Return everything that the next step depends on."""
        ...

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Go back to a state."""
        ...


def copy_into(target: dict[str, Tensor], source: dict[str, Tensor]) -> None:
    """Write tensors over others of the same names."""
    with torch.no_grad():
        for name, tensor in target.items():
            tensor.copy_(source[name])
