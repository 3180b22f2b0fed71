r"""Archetypal autoencoders (relaxed): decoder directions are mixtures of the data's own archetypes, give or take a little.

.. math:: D = W C + \Lambda, \qquad W \ge 0,\; W \mathbf 1 = \mathbf 1,\; \|\Lambda_i\| \le \delta

with :math:`C` centroids of the training tokens. A direction then never leaves the data by more than :math:`\delta`, and trainings from
other seeds find more of the same ones. The rest is a TopK; rows of :math:`D` are brought to unit norm, which scales codes alone.

References
----------
Fel et al. Archetypal SAE: adaptive and stable dictionary learning for concept extraction in large vision models. arXiv 2502.12892.

"""

from __future__ import annotations

from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sparse_autoencoders.architectures.auxiliary import dead_latents_loss
from sparse_autoencoders.config import TrainSAEConfig
from sparse_autoencoders.initialisation import Start
from sparse_autoencoders.kernels import autoencode, topk_of_row
from sparse_autoencoders.learner import LearntWeights, StepResult, copy_into

_ROUNDS = 10
_MOSTLY = 0.8  # share of a feature's first archetype at the start; the rest is another's


def centroids(sample: Float[Tensor, "row d_in"], n: int, generator: torch.Generator) -> Float[Tensor, "archetype d_in"]:
    """Return `n` centroids of some rows: ten rounds of Lloyd's k-means from rows drawn at random; all rows where there are fewer."""
    centres = sample[torch.randperm(len(sample), generator=generator)[:n]].clone()
    for _ in range(_ROUNDS):
        nearest = (sample @ centres.t() - centres.square().sum(1) / 2).argmax(1)
        count = torch.bincount(nearest, minlength=len(centres))
        total = torch.zeros_like(centres).index_add_(0, nearest, sample)
        # a centre that is nearest to no row stays where it is
        centres = torch.where(count[:, None] > 0, total / count.clamp_min(1)[:, None], centres)
    return centres


class ArchetypalLearner:
    """A relaxed archetypal TopK between two steps; see :class:`~sparse_autoencoders.learner.Learner`.

    Parameters
    ----------
    begin
        Its encoder's scale is taken over; directions start at mixtures of two archetypes.
    config
        How to train; `archetypes` says how many there are, `relaxation` how far a direction may leave their hull, as a share of
        the archetypes' mean norm.
    dead_after
        Steps of silence after which a feature is dead.
    sample
        Normalised training tokens that the archetypes are centroids of.
    seed
        Decides the archetypes and which a direction starts at.

    """

    def __init__(
        self, begin: Start, config: TrainSAEConfig, dead_after: int, sample: Float[Tensor, "row d_in"], seed: int
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        width = len(begin.W_dec)
        points = centroids(sample, config.archetypes, generator)
        mixture = torch.zeros(width, len(points))
        for share in (_MOSTLY, 1 - _MOSTLY):
            drawn = torch.randint(len(points), (width, 1), generator=generator)
            mixture.scatter_add_(1, drawn, torch.full((width, 1), share))
        self.config, self.dead_after = config, dead_after
        self.points = points.to(config.device)
        self.reach = config.relaxation * float(points.norm(dim=1).mean())
        self._own = {
            "mixture": mixture,
            "beside": torch.zeros(width, sample.shape[1]),
            "b_enc": torch.zeros(width),
            "b_dec": torch.zeros(sample.shape[1]),
        }
        directions = torch.nn.functional.normalize(mixture @ points, dim=1)
        self._own["W_enc"] = (begin.W_enc.norm(dim=0).mean() * directions).t().contiguous()
        self._own = {name: t.to(config.device).requires_grad_() for name, t in self._own.items()}
        self.silent_for = torch.zeros(width, dtype=torch.long)
        self._k = config.k
        self._optimiser = torch.optim.Adam(list(self._own.values()), betas=(0.9, 0.999), fused=True)

    @property
    def directions(self) -> Float[Tensor, "feature d_in"]:
        """Decoder directions of unit norm."""
        own = self._own
        return torch.nn.functional.normalize(own["mixture"] @ self.points + own["beside"], dim=1)

    @torch.no_grad()
    def _project(self) -> None:
        """Bring mixtures back to non-negative shares that sum to one, and what lies beside the hull within reach."""
        mixture, beside = self._own["mixture"], self._own["beside"]
        mixture.relu_()
        total = mixture.sum(1, keepdim=True)
        mixture.copy_(torch.where(total > 0, mixture / total.clamp_min(1e-12), 1 / mixture.shape[1]))
        beside *= (self.reach / beside.norm(dim=1, keepdim=True).clamp_min(1e-12)).clamp_max(1)

    def step(self, x: Float[Tensor, "row d_in"], *, lr: float, k: int) -> StepResult:
        """Take one step."""
        self._k = k
        own = self._own
        for group in self._optimiser.param_groups:
            group["lr"] = lr
        x = x.to(self.points.device)
        W_dec, dead = self.directions, (self.silent_for >= self.dead_after).to(x.device)
        centred = x - own["b_dec"]
        reconstruction, codes, _ = autoencode(centred, own["W_enc"], own["b_enc"], W_dec, partial(topk_of_row, k=k))
        error = centred - reconstruction
        squared = error.square().sum(-1).mean()
        loss = squared + dead_latents_loss(
            centred.detach(), error.detach(), dead, own["W_enc"], own["b_enc"], W_dec, self.config.aux
        )
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if self.config.clip is not None:
            torch.nn.utils.clip_grad_norm_(list(own.values()), self.config.clip)
        self._optimiser.step()
        self._project()
        active = codes != 0
        self.silent_for += 1
        self.silent_for[active.any(0).cpu()] = 0
        return StepResult(loss.item(), squared.item(), float(active.sum(-1).float().mean()))

    @torch.no_grad()
    def reconstruct(self, x: Float[Tensor, "row d_in"]) -> Float[Tensor, "row d_in"]:
        """Reconstruct rows as training does."""
        own, centred = self._own, x.to(self.points.device) - self._own["b_dec"]
        select = partial(topk_of_row, k=self._k)
        return (autoencode(centred, own["W_enc"], own["b_enc"], self.directions, select)[0] + own["b_dec"]).cpu()

    @torch.no_grad()
    def restart(self, silent: Bool[Tensor, " feature"], directions: Float[Tensor, "silent d_in"], quiet: float) -> None:
        """Start some features anew at the archetypes that point most where they should."""
        own, at = self._own, silent.to(self.points.device)
        living = own["W_enc"][:, ~at].norm(dim=0).mean()
        unit = torch.nn.functional.normalize(self.points, dim=1)
        nearest = (directions.to(unit.device) @ unit.t()).argmax(1)
        own["mixture"][at] = torch.nn.functional.one_hot(nearest, len(unit)).float()
        own["beside"][at] = 0
        own["b_enc"][at] = 0
        own["W_enc"][:, at] = quiet * living * unit[nearest].t()
        for name, tensor in own.items():
            if name != "b_dec" and "exp_avg" in self._optimiser.state[tensor]:
                for key in ("exp_avg", "exp_avg_sq"):
                    moment = self._optimiser.state[tensor][key]
                    (moment.t() if name == "W_enc" else moment)[at] = 0
        self.silent_for[silent] = 0

    def trained(self) -> dict[str, Tensor]:
        """Return the tensors that training changes."""
        return {name: tensor.detach() for name, tensor in self._own.items()}

    def refresh(self) -> None:
        """Follow tensors that were written from outside: averages of mixtures are mixtures, but for rounding."""
        self._project()

    def learnt(self) -> LearntWeights:
        """Return what is saved: a TopK."""
        own = {name: tensor.detach().cpu().clone() for name, tensor in self._own.items()}
        unit = self.directions.detach().cpu()
        return LearntWeights("topk", own["W_enc"], own["b_enc"], unit, own["b_dec"], self.config.k)

    def state(self) -> dict[str, Tensor]:
        """Return everything that the next step depends on; the archetypes follow from the seed."""
        state = {**self.trained(), "silent_for": self.silent_for}
        for name, tensor in self._own.items():
            for key, moment in self._optimiser.state.get(tensor, {}).items():
                state[f"{key}.{name}"] = moment
        return {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Go back to a state."""
        copy_into(self.trained(), state)
        self.silent_for.copy_(state["silent_for"])
        for name, tensor in self._own.items():
            self._optimiser.state[tensor] = {
                key: state[f"{key}.{name}"].to(tensor.device).clone()
                for key in ("step", "exp_avg", "exp_avg_sq")
                if f"{key}.{name}" in state
            }
