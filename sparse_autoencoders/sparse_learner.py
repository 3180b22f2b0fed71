"""TopK, BatchTopK and Matryoshka as they learn on the CPU: :class:`sparse_autoencoders.fused.step.SparseStep`."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sparse_autoencoders.config import TrainSAEConfig
from sparse_autoencoders.fused.step import SparseStep, Weights
from sparse_autoencoders.initialisation import Start
from sparse_autoencoders.learner import LearntWeights, StepResult, copy_into
from sparse_autoencoders.merged import held_beside
from sparse_autoencoders.waking import bar_of_batch, bar_of_rows, displaced, longest, moments_of_new, places

ARCHITECTURES = frozenset({"topk", "batchtopk", "matryoshka"})


class SparseLearner:
    """A learner whose step costs one coarse product; see :class:`~sparse_autoencoders.learner.Learner`.

    Parameters
    ----------
    begin
        Where the weights start.
    config
        How to train; its architecture is one of :data:`ARCHITECTURES`.
    dead_after
        Steps of silence after which a feature is dead.
    weights
        What a step changes; by default an autoencoder's, from `begin`.
    step
        Which step.

    """

    def __init__(
        self,
        begin: Start,
        config: TrainSAEConfig,
        dead_after: int,
        *,
        weights: Weights | None = None,
        step: type[SparseStep] = SparseStep,
    ) -> None:
        width = len(begin.W_dec)
        self.arch, self.dead_after = config.arch, dead_after
        self._step = step(
            weights or weights_of(begin),
            config.k,
            whole_batch=config.arch != "topk",
            prefixes=prefixes_of(config, width) if config.arch == "matryoshka" else None,
            balance=config.balance,
            aux=config.aux,
            dead_after=dead_after,
            clip=config.clip,
        )

    @property
    def silent_for(self) -> Tensor:
        """Steps since each feature was last active."""
        return self._step.silent_for

    def step(self, x: Float[Tensor, "row d_in"], *, lr: float, k: int) -> StepResult:
        """Take one step."""
        self._step.select.k = k
        return self._step(x, lr=lr)

    def reconstruct(self, x: Float[Tensor, "row d_in"]) -> Float[Tensor, "row d_in"]:
        """Reconstruct rows as training does."""
        return self._step.reconstruct(x)

    def restart(self, silent: Bool[Tensor, " feature"], directions: Float[Tensor, "silent d_in"], quiet: float) -> None:
        """Point some features elsewhere."""
        self._point(silent, directions, directions, quiet)

    def _point(self, silent: Tensor, reads: Tensor, writes: Tensor, quiet: float) -> None:
        step, w = self._step, self._step.weights
        w.decoder[silent] = writes
        w.encoder[silent] = quiet * w.encoder[~silent].norm(dim=1).mean() * reads
        w.bias[silent] = 0
        for name in ("encoder", "decoder", "bias"):
            step.first[name][silent] = 0
            step.second[name][silent] = 0
        step.silent_for[silent] = 0
        self.refresh()

    @torch.no_grad()
    def wake(
        self,
        silent: Bool[Tensor, " feature"],
        x: Float[Tensor, "row width"],
        generator: torch.Generator,
        *,
        apart: bool,
    ) -> int:
        """Give silent features new places among some rows, and return how many there was room for.

        What a transcoder's features hold is not looked for: what they read is not what they write.
        """
        step, w = self._step, self._step.weights
        d_in = w.encoder.shape[1]
        read = x[:, :d_in].contiguous()
        codes, written = step.heard(read)
        left_over = (read if w.tied_bias else x[:, d_in:]) - written
        values, columns = torch.from_numpy(codes.values), torch.from_numpy(codes.columns).long()
        beside = None
        if apart and w.tied_bias:
            shape = len(x), len(w.decoder)
            table = torch.sparse_csr_tensor(
                torch.from_numpy(codes.starts), columns, values, shape, check_invariants=False
            )
            beside = held_beside(table, left_over, w.decoder, ~silent, int(silent.sum()), generator)
        if step.select.whole_batch:
            bar = bar_of_batch(values, len(x))
        else:
            values, columns = values.view(len(x), -1), columns.view(len(x), -1)
            bar = bar_of_rows(values)
            left_over += displaced(values, columns, w.decoder)
        if w.tied_bias:
            read = read - w.out_bias
        heard = ~silent
        norm = float(w.encoder[heard].norm(dim=1).mean())
        found = places(longest(step.silent_for, silent), read, left_over, bar, norm, generator, beside)
        at = found.features
        w.encoder[at], w.bias[at], w.decoder[at] = found.encoder, found.bias, found.decoder
        share = moments_of_new(len(x), int((codes.values > 0).sum()), int(heard.sum()))
        for name in ("encoder", "decoder", "bias"):
            # next to nothing is known of a silent row's gradients: a first step by that would be far too long
            step.first[name][at] = 0
            step.second[name][at] = share * step.second[name][heard].mean(0)
        step.silent_for[at] = 0
        self.refresh()
        return len(at)

    def trained(self) -> dict[str, Tensor]:
        """Return the tensors that training changes."""
        return self._step.weights.tensors()

    def refresh(self) -> None:
        """Follow weights that were written from outside."""
        decoder = self._step.weights.decoder
        decoder /= decoder.norm(dim=1, keepdim=True).clamp_min(torch.finfo(decoder.dtype).tiny)
        self._step.coarse.refresh()

    def learnt(self) -> LearntWeights:
        """Return what is saved; thresholds of what is chosen over a batch are zero until they are calibrated."""
        w = self._step.weights
        topk = self.arch == "topk"
        return LearntWeights(
            "topk" if topk else "jumprelu",
            w.encoder.t().contiguous(),
            w.bias.clone(),
            w.decoder.clone(),
            w.out_bias.clone(),
            self._step.k if topk else None,
            None if topk else torch.zeros(len(w.bias)),
        )

    def state(self) -> dict[str, Tensor]:
        """Return everything that the next step depends on."""
        step = self._step
        moments = {f"{which}.{n}": t for which in ("first", "second") for n, t in getattr(step, which).items()}
        counts = torch.tensor([step.steps])
        guess = torch.tensor(
            [float("nan") if step.select.remembered is None else step.select.remembered], dtype=torch.float64
        )
        return {**self.trained(), **moments, "silent_for": step.silent_for, "steps": counts, "guess": guess}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Go back to a state."""
        step = self._step
        copy_into(self.trained(), state)
        for which in ("first", "second"):
            copy_into(getattr(step, which), {n: state[f"{which}.{n}"] for n in step.first})
        step.silent_for.copy_(state["silent_for"])
        step.steps = int(state["steps"])
        step.select.remembered = None if bool(state["guess"].isnan()) else float(state["guess"])
        step.coarse.refresh()


def weights_of(begin: Start) -> Weights:
    """Return copies of a start's weights, with biases of zero."""
    width, d_out = begin.W_dec.shape
    return Weights(
        begin.W_enc.t().contiguous().clone(), torch.zeros(width), begin.W_dec.contiguous().clone(), torch.zeros(d_out)
    )


def prefixes_of(config: TrainSAEConfig, width: int) -> tuple[int, ...]:
    """Return the numbers of features that the shares stand for, each at least one and none twice."""
    return tuple(sorted({max(1, round(share * width)) for share in config.prefixes}))
