r"""Matching pursuit: the encoder is the decoder, asked k times for the direction that explains most of what is left.

With :math:`r_0 = x - b` and :math:`j_t = \arg\max_j r_t \cdot d_j`,

.. math:: v_t = \mathrm{ReLU}(r_t \cdot d_{j_t}), \qquad r_{t+1} = r_t - v_t d_{j_t}, \qquad z_{j_t} \mathrel{+}= v_t

and the loss is :math:`\|r_k\|^2`. A feature is chosen *given* those already chosen, so that correlated and hierarchical features, which
a single product confuses, are told apart. With a direction chosen a second time its codes add up.

References
----------
Mallat, Zhang. Matching pursuits with time-frequency dictionaries. 1993.
Costa et al. From flat to hierarchical: extracting sparse representations with matching pursuit. arXiv 2506.03093.

"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sparse_autoencoders.architectures.coherence import apart, duplicates, shared
from sparse_autoencoders.config import TrainSAEConfig
from sparse_autoencoders.fused.threads import SharedLoop
from sparse_autoencoders.initialisation import Start
from sparse_autoencoders.learner import LearntWeights, StepResult, copy_into

_ROWS = 2048  # rows whose residuals are held at once on the way back
_LEFT_OVER = 4096  # rows whose left-overs are kept
_STEPS = 25  # between two looks at the directions, at least: what starts anew needs some to learn
_LOOKS = 6  # of which one takes merged features apart
_DUPLICATE, _MERGED = 0.8, 0.5  # cosines above which two directions are one, or one holds the other
_ALIKE = 16  # rows that a direction which starts anew is the mean of
_HIGH = 0.5  # share of the highest learning rate below which the directions are left alone


def pursue(
    x: Float[Tensor, "row d_in"], directions: Float[Tensor, "feature d_in"], k: int
) -> tuple[Float[Tensor, "row k"], Int[Tensor, "row k"]]:
    """Return what `k` rounds of matching pursuit give: values, and the features they belong to, in the order of the rounds.

    Parameters
    ----------
    x
        Rows, the decoder's bias taken off.
    directions
        Of unit norm.
    k
        Rounds. A round in which nothing points along what is left has the value zero.

    """
    left, values, columns = x.clone(), [], []
    for _ in range(k):
        column = (left @ directions.t()).argmax(dim=-1)
        chosen = directions[column]
        value = (left * chosen).sum(-1).relu()
        left -= value[..., None] * chosen
        values.append(value)
        columns.append(column)
    return torch.stack(values, -1), torch.stack(columns, -1)


def pursuit_codes(
    x: Float[Tensor, "*rows d_in"], directions: Float[Tensor, "feature d_in"], k: int
) -> Float[Tensor, "*rows feature"]:
    """Return the codes of :func:`pursue`, those of a feature that was chosen twice added up."""
    rows = x.reshape(-1, x.shape[-1])
    values, columns = pursue(rows, directions, k)
    return rows.new_zeros(len(rows), len(directions)).scatter_add_(1, columns, values).reshape(*x.shape[:-1], -1)


@SharedLoop
def _choose(from_row, to_row, hidden, gram, k, columns):  # type: ignore[no-untyped-def]
    """Choose features of some rows by their projections alone: taking a direction off moves them by a row of the Gram matrix."""
    width = hidden.shape[1]
    for row in range(from_row, to_row):
        h = hidden[row]
        for round_ in range(k):
            best = 0
            for j in range(1, width):
                if h[j] > h[best]:
                    best = j
            columns[row, round_] = best
            value = h[best]
            if value > 0:
                beside = gram[best]
                for j in range(width):
                    h[j] -= value * beside[j]


@SharedLoop
def _gather(from_feature, to_feature, begins, places, parts, total):  # type: ignore[no-untyped-def]
    """Add up each feature's parts of the gradient, in the order of the rows."""
    for feature in range(from_feature, to_feature):
        for at in range(begins[feature], begins[feature + 1]):
            part = parts[places[at]]
            for i in range(total.shape[1]):
                total[feature, i] += part[i]


class MatchingPursuitLearner:
    """A matching-pursuit autoencoder between two steps; see :class:`~sparse_autoencoders.learner.Learner`.

    There is no auxiliary loss: what a dead feature would be told, a round of pursuit tells the features already. Silent ones start anew at
    the worst reconstructed tokens, as elsewhere. While the learning rate is high, directions are kept apart
    (:mod:`~sparse_autoencoders.architectures.coherence`): a near-duplicate of a more frequent one starts anew at what several rows leave
    over, and one that holds much of a more frequent one becomes what it is beside that. It takes a table of features by features, as
    the rounds do.

    Parameters
    ----------
    begin
        Where the directions start; its encoder is not used.
    config
        How to train.
    dead_after
        Steps of silence after which a feature is dead.

    """

    def __init__(self, begin: Start, config: TrainSAEConfig, dead_after: int) -> None:
        self.config, self.dead_after = config, dead_after
        self.decoder = torch.nn.functional.normalize(begin.W_dec, dim=1).to(config.device).contiguous()
        self.bias = torch.zeros(self.decoder.shape[1], device=config.device)
        self.silent_for = torch.zeros(len(self.decoder), dtype=torch.long)
        self.frequency = torch.zeros(len(self.decoder), device=config.device)
        self.left_over = torch.zeros(_LEFT_OVER, self.decoder.shape[1], device=config.device)
        self.taken = torch.zeros((), dtype=torch.long)
        self._k = config.k
        self._optimiser = torch.optim.Adam([self.decoder, self.bias], betas=(0.9, 0.999), fused=True)

    @torch.no_grad()
    def step(self, x: Float[Tensor, "row d_in"], *, lr: float, k: int) -> StepResult:
        """Take one step, by the gradient through every round."""
        self._k = k
        decoder = self.decoder
        decoder /= decoder.norm(dim=1, keepdim=True).clamp_min(torch.finfo(decoder.dtype).tiny)
        x = x.to(decoder.device)
        if not bool(x.isfinite().all() and decoder.isfinite().all()):
            return StepResult(float("nan"), float("nan"), 0.0)
        centred = x - self.bias
        columns = self._chosen(centred, k)
        gradient, of_bias = torch.zeros_like(decoder), torch.zeros_like(self.bias)
        counts = torch.zeros(len(decoder), device=decoder.device)
        squared, fired = 0.0, 0
        for first in range(0, len(x), _ROWS):
            part, chosen = centred[first : first + _ROWS], columns[first : first + _ROWS]
            left, values, to_rows, parts = _through(part, decoder, chosen, 2 / len(x))
            _add_up(chosen, parts, gradient)
            of_bias -= to_rows.sum(0)
            squared += float(left.double().square().sum())
            self.left_over = torch.cat([self.left_over[len(left) :], left])[-_LEFT_OVER:]
            # a feature that a row chose twice is one active feature
            row = torch.arange(len(chosen), device=chosen.device)[:, None].expand_as(chosen)[values > 0]
            once = torch.unique(row * len(decoder) + chosen[values > 0])
            counts += torch.bincount(once % len(decoder), minlength=len(decoder))
            fired += len(once)
        decoder.grad, self.bias.grad = gradient, of_bias
        for group in self._optimiser.param_groups:
            group["lr"] = lr
        if self.config.clip is not None:
            torch.nn.utils.clip_grad_norm_([decoder, self.bias], self.config.clip)
        self._optimiser.step()
        self.silent_for += 1
        self.silent_for[counts.cpu() > 0] = 0
        self.frequency.lerp_(counts / len(x), 1 / max(_STEPS, self.dead_after))
        self.taken += 1
        if lr >= _HIGH * self.config.lr:
            self._keep_apart()
        loss = squared / len(x)
        return StepResult(loss, loss, fired / len(x))

    def _keep_apart(self) -> None:
        """From time to time, give up duplicates for what several rows leave over, and take merged features apart."""
        looks, within = divmod(int(self.taken), max(_STEPS, self.dead_after // 2))
        if within:
            return
        unit = torch.nn.functional.normalize(self.decoder, dim=1)
        if looks % _LOOKS == 0:
            merged, rest = apart(unit, self.frequency, _MERGED, _DUPLICATE)
            self.restart(_mask(merged, len(unit)), rest, 1.0)
            unit[merged] = rest
        double = duplicates(unit, self.frequency, _DUPLICATE).cpu()
        if (n := int(double.sum())) and bool(self.left_over.any()):
            generator = torch.Generator().manual_seed(int(self.taken))
            self.restart(double, shared(self.left_over, n, _ALIKE, generator), 1.0)

    def _chosen(self, centred: Tensor, k: int) -> Tensor:
        if centred.device.type != "cpu":
            return pursue(centred, self.decoder, k)[1]
        columns = np.empty((len(centred), k), np.int64)
        hidden, gram = centred @ self.decoder.t(), self.decoder @ self.decoder.t()
        _choose(len(centred), hidden.numpy(), gram.numpy(), k, columns)
        return torch.from_numpy(columns)

    @torch.no_grad()
    def reconstruct(self, x: Float[Tensor, "row d_in"]) -> Float[Tensor, "row d_in"]:
        """Reconstruct rows as training does."""
        unit = torch.nn.functional.normalize(self.decoder, dim=1)
        codes = pursuit_codes(x.to(unit.device) - self.bias, unit, self._k)
        return (codes @ unit + self.bias).cpu()

    @torch.no_grad()
    def restart(self, silent: Bool[Tensor, " feature"], directions: Float[Tensor, "silent d_in"], quiet: float) -> None:
        """Point some features elsewhere; without an encoder of their own there is nothing to make quiet."""
        at = silent.to(self.decoder.device)
        self.decoder[at] = directions.to(self.decoder.device)
        for name in ("exp_avg", "exp_avg_sq"):
            if name in self._optimiser.state[self.decoder]:
                self._optimiser.state[self.decoder][name][at] = 0
        self.silent_for[silent] = 0

    def trained(self) -> dict[str, Tensor]:
        """Return the tensors that training changes."""
        return {"decoder": self.decoder, "bias": self.bias}

    def refresh(self) -> None:
        """Follow tensors that were written from outside: directions have unit norm."""
        self.decoder /= self.decoder.norm(dim=1, keepdim=True)

    def learnt(self) -> LearntWeights:
        """Return what is saved."""
        unit = torch.nn.functional.normalize(self.decoder, dim=1).cpu()
        return LearntWeights(
            "matching_pursuit",
            unit.t().contiguous(),
            torch.zeros(len(unit)),
            unit,
            self.bias.cpu().clone(),
            self.config.k,
        )

    def _seen(self) -> dict[str, Tensor]:
        return {name: getattr(self, name) for name in ("silent_for", "frequency", "left_over", "taken")}

    def state(self) -> dict[str, Tensor]:
        """Return everything that the next step depends on."""
        state = {**self.trained(), **self._seen()}
        for name, tensor in self.trained().items():
            for key, moment in self._optimiser.state.get(tensor, {}).items():
                state[f"{key}.{name}"] = moment
        return {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Go back to a state."""
        copy_into(self.trained(), state)
        copy_into(self._seen(), state)
        for name, tensor in self.trained().items():
            self._optimiser.state[tensor] = {
                key: state[f"{key}.{name}"].to(tensor.device).clone()
                for key in ("step", "exp_avg", "exp_avg_sq")
                if f"{key}.{name}" in state
            }


def _mask(at: Int[Tensor, " some"], width: int) -> Bool[Tensor, " feature"]:
    mask = torch.zeros(width, dtype=torch.bool)
    mask[at.cpu()] = True
    return mask


def _through(
    centred: Tensor, directions: Tensor, columns: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor, Float[Tensor, "row k d_in"]]:
    """Go through the rounds and back; return what is left, the values, the rows' gradient and each round's part of its direction's."""
    k = columns.shape[1]
    left, before, values = centred.clone(), [], []
    for round_ in range(k):
        chosen = directions[columns[:, round_]]
        before.append(left)
        value = (left * chosen).sum(1).relu()
        left = left - value[:, None] * chosen
        values.append(value)
    gradient = scale * left
    parts = torch.empty(len(centred), k, centred.shape[1], device=centred.device)
    for round_ in reversed(range(k)):
        chosen, value = directions[columns[:, round_]], values[round_][:, None]
        along = (gradient * chosen).sum(1, keepdim=True) * (value > 0)
        parts[:, round_] = -(value * gradient + along * before[round_])
        gradient = gradient - along * chosen
    return left, torch.stack(values, 1), gradient, parts


def _add_up(columns: Tensor, parts: Tensor, total: Tensor) -> None:
    """Add the rounds' parts to the gradient of the features they belong to."""
    flat = parts.flatten(0, 1)
    if total.device.type != "cpu":
        total.index_add_(0, columns.flatten(), flat)
        return
    places = columns.flatten().argsort(stable=True)
    begins = torch.zeros(len(total) + 1, dtype=torch.long)
    begins[1:] = torch.bincount(columns.flatten(), minlength=len(total)).cumsum(0)
    _gather(len(total), begins.numpy(), places.numpy(), flat.numpy(), total.numpy())
