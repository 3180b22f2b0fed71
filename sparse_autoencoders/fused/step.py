"""One training step of a sparse autoencoder of the TopK family on the CPU, its gradient written out by hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from sparse_autoencoders.fused import products
from sparse_autoencoders.fused.selecting import CoarseEncoder, Codes, Rows, Selector
from sparse_autoencoders.learner import StepResult

ALONE = np.ones(1, np.float32)  # what a single reconstruction counts


@dataclass
class Weights:
    """An autoencoder or a transcoder: ``decoder(topk(encoder @ (x - in_bias) + bias)) + out_bias``.

    Parameters
    ----------
    encoder, bias
        What a latent reads, and its bias.
    decoder, out_bias
        What a latent writes, of unit norm, and what is written without any.
    tied_bias
        Whether the encoder reads ``x - out_bias`` (an autoencoder) or `x` itself (a transcoder).

    """

    encoder: Float[Tensor, "latent d_in"]
    bias: Float[Tensor, " latent"]
    decoder: Float[Tensor, "latent d_out"]
    out_bias: Float[Tensor, " d_out"]
    tied_bias: bool = True

    def tensors(self) -> dict[str, Tensor]:
        """Return what is trained, by name."""
        return {"encoder": self.encoder, "bias": self.bias, "decoder": self.decoder, "out_bias": self.out_bias}


@dataclass(frozen=True)
class ExtraGradient:
    """Gradients of some latents that come from elsewhere than the main loss.

    Parameters
    ----------
    of
        For each latent its row in the others, or -1.
    decoder, encoder, bias
        The gradients.

    """

    of: NDArray[np.int64]
    decoder: NDArray[np.float32]
    encoder: NDArray[np.float32]
    bias: NDArray[np.float32]


class SparseStep:
    """Adam on a sparse autoencoder's weights, one batch at a time.

    Parameters
    ----------
    weights
        Changed in place; float32, contiguous, on the CPU, decoder rows of unit norm.
    k, whole_batch
        What is kept: see :class:`Selector`.
    prefixes
        Numbers of latents, ascending, the last one all: the loss is a mean over the reconstructions by these first latents
        (Matryoshka). By default all alone.
    balance
        Weight of each of these in the mean, as a multiple of the next wider one's.
    aux
        Weight of the loss by which dead latents learn what the living left over (AuxK).
    dead_after
        Steps of silence after which a latent is dead.
    clip
        Largest norm of the gradient; unlimited by default.
    betas, epsilon
        Adam's.

    References
    ----------
    Gao et al. Scaling and evaluating sparse autoencoders. arXiv 2406.04093, section 2.4 and appendix A.2.
    Bussmann et al. BatchTopK sparse autoencoders. arXiv 2412.06410; Learning multi-level features with Matryoshka SAEs. arXiv 2503.17547.
    Chanin, Dulka, Garriga-Alonso. Feature hedging: correlated features break narrow sparse autoencoders. arXiv 2505.11756 (the balance).

    """

    def __init__(
        self,
        weights: Weights,
        k: int,
        *,
        whole_batch: bool = False,
        prefixes: tuple[int, ...] | None = None,
        balance: float = 1.0,
        aux: float = 1.0,
        dead_after: int = 100,
        clip: float | None = None,
        betas: tuple[float, float] = (0.9, 0.999),
        epsilon: float = 1e-8,
    ) -> None:
        self.weights = weights
        self.k = k
        self.aux, self.dead_after, self.clip, self.betas, self.epsilon = aux, dead_after, clip, betas, epsilon
        self.prefixes = np.array(prefixes or (len(weights.encoder),), np.int64)
        self.shares = level_shares(len(self.prefixes), balance)
        self.first = {name: torch.zeros_like(value) for name, value in weights.tensors().items()}
        self.second = {name: torch.zeros_like(value) for name, value in weights.tensors().items()}
        self.steps = 0
        self.silent_for = torch.zeros(len(weights.encoder), dtype=torch.long)
        self.select = Selector(k, whole_batch)
        self.coarse = CoarseEncoder(weights.encoder, weights.bias)

    @property
    def dead(self) -> Bool[Tensor, " latent"]:
        """Which latents have been silent for so long that they count as dead."""
        return self.silent_for >= self.dead_after

    @torch.no_grad()
    def __call__(
        self, x: Float[Tensor, "row d_in"], target: Float[Tensor, "row d_out"] | None = None, *, lr: float
    ) -> StepResult:
        """Take one step.

        Parameters
        ----------
        x
            What the encoder reads.
        target
            What shall be reconstructed; `x` by default.
        lr
            Adam's rate in this step.

        """
        w = self.weights
        rows = Rows.of(x, w.out_bias if w.tied_bias else None)
        if target is None and w.tied_bias:
            wanted = rows.x
        else:
            wanted = ((x if target is None else target) - w.out_bias).contiguous()
        if not (rows.finite and bool(np.isfinite(self.coarse.norms).all())):
            # nothing can be ordered any more; the weights stay as they are, for whoever asks what happened
            return StepResult(float("nan"), float("nan"), 0.0)
        codes = self.select(rows, self.coarse)
        error = np.empty((len(self.prefixes), *wanted.shape), np.float32)
        slopes, losses, sums = decoded(codes, w.decoder.numpy(), self.prefixes, self.shares, wanted.numpy(), error)
        extra, auxiliary = self._dead_latents_gradient(rows, error[-1])
        self._update(codes, slopes, error, rows.x.numpy(), extra, torch.from_numpy(sums.sum(0)), lr)
        squared, mean_loss = losses.mean(0, dtype=np.float64)
        return StepResult(float(mean_loss) + auxiliary, float(squared), float((codes.values > 0).sum() / len(x)))

    @torch.no_grad()
    def reconstruct(self, x: Float[Tensor, "row d_in"]) -> Float[Tensor, "row d_out"]:
        """Reconstruct rows with the latents that a step would keep; what is remembered for the next step stays."""
        return self.heard(x)[1]

    @torch.no_grad()
    def heard(self, x: Float[Tensor, "row d_in"]) -> tuple[Codes, Float[Tensor, "row d_out"]]:
        """Return the codes that a step would keep, and what they reconstruct."""
        w = self.weights
        rows = Rows.of(x, w.out_bias if w.tied_bias else None)
        codes = Selector(self.select.k, self.select.whole_batch)(rows, CoarseEncoder(w.encoder, w.bias))
        error = np.empty((1, len(x), w.decoder.shape[1]), np.float32)
        every = np.array([len(w.encoder)], np.int64)
        decoded(codes, w.decoder.numpy(), every, ALONE, np.zeros(error.shape[1:], np.float32), error)
        # with nothing to reconstruct the error is the reconstruction, scaled by 2 / rows
        return codes, torch.from_numpy(error[0]) * (len(x) / 2) + w.out_bias

    def _update(
        self, codes: Codes, slopes: NDArray[np.float32], error: NDArray[np.float32], read: NDArray[np.float32],
        extra: ExtraGradient, to_out_bias: Tensor, lr: float,
    ) -> None:  # fmt: skip
        w, first, second = self.weights, self.first, self.second
        begins, rows, places = products.transpose(codes.starts, codes.columns, len(w.encoder))
        gathered: tuple[Any, ...] = (begins, rows, places, codes.values, slopes, self.prefixes, error, read)
        gathered += (extra.of, extra.decoder, extra.encoder, extra.bias)
        factor = 1.0
        if self.clip is not None:
            squares = np.empty(len(w.encoder), np.float32)
            products.squared_gradient(len(w.encoder), *gathered, squares)
            whole = to_out_bias
            if w.tied_bias:
                of_bias = np.bincount(codes.columns, slopes, len(w.encoder)).astype(np.float32)
                whole = to_out_bias - torch.from_numpy(of_bias) @ w.encoder
            norm = float(np.sqrt(squares.sum(dtype=np.float64) + float(whole.double().square().sum())))
            factor = min(1.0, self.clip / max(norm, 1e-30))
        self.steps += 1
        beta1, beta2 = self.betas
        rate, correction = lr / (1 - beta1**self.steps), 1 / (1 - beta2**self.steps) ** 0.5
        fired = np.empty(len(w.encoder), np.bool_)
        through = np.empty((-(-len(w.encoder) // products.LATENTS_OF_SUM), w.encoder.shape[1]), np.float32)
        products.update(
            len(w.encoder), *gathered, np.float32(factor),
            w.encoder.numpy(), first["encoder"].numpy(), second["encoder"].numpy(),
            w.bias.numpy(), first["bias"].numpy(), second["bias"].numpy(),
            w.decoder.numpy(), first["decoder"].numpy(), second["decoder"].numpy(),
            self.coarse.rounded.view(torch.int16).numpy(), self.coarse.norms,
            np.float32(rate), np.float32(correction), np.float32(beta1), np.float32(beta2), np.float32(self.epsilon),
            True, fired, through, multiple=products.LATENTS_OF_SUM, largest=products.LATENTS,
        )  # fmt: skip
        if w.tied_bias:
            # the encoder reads x - out_bias
            to_out_bias = to_out_bias - torch.from_numpy(through.sum(0))
        m, v = first["out_bias"], second["out_bias"]
        to_out_bias = to_out_bias * factor
        m.lerp_(to_out_bias, 1 - beta1)
        v.mul_(beta2).addcmul_(to_out_bias, to_out_bias, value=1 - beta2)
        w.out_bias.sub_(rate * m / (v.sqrt() * correction + self.epsilon))
        self.silent_for += 1
        self.silent_for[torch.from_numpy(fired)] = 0

    def _dead_latents_gradient(self, rows: Rows, scaled_error: NDArray[np.float32]) -> tuple[ExtraGradient, float]:
        """Let the dead latents reconstruct what the living ones left over; return their gradients and the loss."""
        w = self.weights
        dead = self.dead.nonzero().flatten()
        of = np.full(len(w.encoder), -1, np.int64)
        d_in, d_out = w.encoder.shape[1], w.decoder.shape[1]
        if self.aux == 0 or not len(dead):
            none = (np.empty(shape, np.float32) for shape in ((0, d_out), (0, d_in), 0))
            return ExtraGradient(of, *none), 0.0
        of[dead.numpy()] = np.arange(len(dead))
        encoder, bias, decoder = w.encoder[dead], w.bias[dead], w.decoder[dead]
        codes = Selector(min(d_out // 2, len(dead)))(rows, CoarseEncoder(encoder, bias))
        n = len(rows.x)
        left_over = scaled_error * np.float32(-n / (2 * self.shares[-1]))
        error, every = np.empty((1, n, d_out), np.float32), np.array([len(dead)], np.int64)
        slopes, losses, _ = decoded(codes, decoder.numpy(), every, ALONE, left_over, error)
        begins, at_rows, places = products.transpose(codes.starts, codes.columns, len(dead))
        to_decoder, to_encoder = np.empty_like(decoder.numpy()), np.empty_like(encoder.numpy())
        to_bias = np.empty(len(dead), np.float32)
        products.gradients(
            len(dead), begins, at_rows, places, codes.values, slopes, every, error, rows.x.numpy(), to_decoder, to_encoder,
            to_bias,
        )  # fmt: skip
        # few dead latents must not count as much as many
        weight = np.float32(self.aux * min(len(dead) / (d_out // 2), 1.0))
        to_decoder, to_encoder, to_bias = to_decoder * weight, to_encoder * weight, to_bias * weight
        loss = float(weight * losses[:, 0].mean(dtype=np.float64))
        return ExtraGradient(of, to_decoder, to_encoder, to_bias), loss


def level_shares(levels: int, balance: float) -> NDArray[np.float32]:
    """Return what each of some nested reconstructions counts: `balance` times what the next wider one does, 1 together."""
    weights = np.array([balance**narrower for narrower in reversed(range(levels))])
    return np.asarray(weights / weights.sum(), np.float32)


def decoded(
    codes: Codes,
    decoder: NDArray[np.float32],
    prefixes: NDArray[np.int64],
    shares: NDArray[np.float32],
    target: NDArray[np.float32],
    error: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Return the codes' gradient, the losses and the sums of errors of :func:`products.decode`, which writes `error`."""
    n, width = target.shape
    slopes, losses = np.empty(len(codes.values), np.float32), np.empty((n, 2), np.float32)
    sums = np.empty((-(-n // products.ROWS_OF_SUM), width), np.float32)
    products.decode(
        n, codes.starts, codes.columns, codes.values, decoder, prefixes, shares, target, error, slopes, losses, sums,
        multiple=products.ROWS_OF_SUM,
    )  # fmt: skip
    return slopes, losses, sums
