"""A run's model on the desk: what it answers on an image, and what it answers when features are moved.

Every answer is computed when it is asked for, by running the model from the site on (:class:`mechinterp.tails.Tail`); where
something bypasses the site, by whole forward passes.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from experiments.dashboard.desk.moves import Kind, Move, moved_activation
from experiments.dashboard.formatting import format_value
from mechinterp.capturing import run_with_cache
from mechinterp.errors import ConfigError
from mechinterp.objectives import Objective, logit, logit_difference
from mechinterp.tails import Tail

if TYPE_CHECKING:
    from mechinterp.feature_encoder import FeatureEncoder
    from mechinterp.images.image_set import ImageSet
    from mechinterp.images.preparation import Preparation
    from mechinterp.models.vision_model import VisionModel

RANDOM_CHANGES = 8
IMAGES_KEPT = 8
PROPOSED_FEATURES, PROPOSED_CHANNELS = 6, 2


@dataclass(frozen=True, eq=False)
class Outcome:
    """What the model answers on one image, as it is or after moves.

    Parameters
    ----------
    logits, probabilities
        One per class.
    objective
        The number that the evidence is for.
    evidence
        Per cell, gradient times activation of the objective, summed over the site's width [1]_: to first order, what the cell
        adds to it. ``None`` where the site's tokens have no place in the image.
    moved
        Per cell, the norm of what the moves changed; ``None`` without a place.
    relative_change
        Norm of what the moves changed, as a share of the activation's norm.
    random
        The objective's smallest and largest change under random changes of the same norm in every token; ``None`` where
        nothing was moved or whole forward passes would be needed.

    References
    ----------
    .. [1] Shrikumar et al. Not just a black box: learning important features through propagating activation differences.
       arXiv:1605.01713, 2016.

    """

    logits: Float[NDArray[np.float32], " cls"]
    probabilities: Float[NDArray[np.float32], " cls"]
    objective: float
    evidence: Float[NDArray[np.float32], "row column"] | None
    moved: Float[NDArray[np.float32], "row column"] | None
    relative_change: float = 0.0
    random: tuple[float, float] | None = None


@dataclass(frozen=True)
class Unit:
    """A feature or channel as it is on one image.

    Parameters
    ----------
    kind, index
        Which.
    largest
        Its largest value on the image.
    relevance
        Value times the objective's gradient along it, summed over tokens: to first order, what it adds to the objective.

    """

    kind: Kind
    index: int
    largest: float
    relevance: float

    @property
    def name(self) -> str:
        """What it is called."""
        return f"{self.kind} {self.index}"


@dataclass(frozen=True, eq=False)
class _Loaded:
    """One image at the site."""

    x: Tensor
    acts: Tensor
    codes: Tensor
    gradient: Tensor
    outcome: Outcome


class Desk:
    """A model, its images and the features of one site.

    Parameters
    ----------
    model, images, preparation
        As the run captured them.
    encoder
        Whose features can be moved; the site's channels can be moved always.
    target, reference
        Names of the classes whose logit difference the evidence is for; without a `reference` the target's logit.

    Raises
    ------
    ConfigError
        If the model has no such class.
    SiteError
        If the encoder's site is not reached.

    """

    def __init__(
        self,
        model: VisionModel,
        images: ImageSet,
        preparation: Preparation,
        encoder: FeatureEncoder,
        *,
        target: str,
        reference: str | None = None,
    ) -> None:
        self.model, self.images, self.preparation, self.encoder = model, images, preparation, encoder
        self.site = model.site(encoder.site)
        wanted = logit(target) if reference is None else logit_difference(target, reference)
        self.objective: Objective = wanted.resolve(model)
        # a tail puts stubs into the model while it runs: one reader's move after the other
        self._lock = threading.Lock()
        self._kept: OrderedDict[int, _Loaded] = OrderedDict()

    @cached_property
    def tail(self) -> Tail:
        """The model after the site."""
        some = [self.images[0], self.images[len(self.images) // 2]]
        return Tail(self.model, self.site.name, self.model.prepare(some, self.preparation))

    @property
    def class_names(self) -> list[str]:
        """The model's classes, in the order of its outputs."""
        return [self.model.class_names[i] for i in range(len(self.model.class_names))]

    def before(self, image: int) -> Outcome:
        """Return the answer on an image as it is.

        Raises
        ------
        ConfigError
            If there is no such image.

        """
        with self._lock:
            return self._load(image).outcome

    def after(self, image: int, moves: Sequence[Move], *, seed: int = 0) -> Outcome:
        """Return the answer on an image after moves.

        Parameters
        ----------
        image
            Which.
        moves
            What is moved; none gives the image's own answer again.
        seed
            Of the random changes beside it.

        Raises
        ------
        ConfigError
            If there is no such image.

        """
        with self._lock:
            loaded = self._load(image)
            acts = moved_activation(loaded.acts, loaded.codes, self.encoder, moves, self.site.prefix_tokens)
            outcome, _ = self._answer(loaded.x, acts)
            change = acts - loaded.acts
            share = float(change.norm() / loaded.acts.norm().clamp_min(1e-12))
            return Outcome(
                outcome.logits, outcome.probabilities, outcome.objective, outcome.evidence,
                self._on_grid(change.norm(dim=-1)), share, self._random(loaded, change, seed) if share > 0 else None,
            )  # fmt: skip

    def proposals(self, image: int, features: int = PROPOSED_FEATURES, channels: int = PROPOSED_CHANNELS) -> list[Unit]:
        """Return the features and channels that the answer on an image leans on most, either way, strongest first."""
        with self._lock:
            loaded = self._load(image)
            along = loaded.gradient @ self.encoder.directions.to(loaded.gradient).T
            found = _strongest("feature", loaded.codes, along, features)
            return found + _strongest("channel", loaded.acts, loaded.gradient, channels)

    def unit(self, image: int, kind: Kind, index: int) -> Unit:
        """Return one feature or channel as it is on an image."""
        with self._lock:
            loaded = self._load(image)
            values = (loaded.codes if kind == "feature" else loaded.acts)[0, :, index]
            direction = (
                loaded.gradient @ self.encoder.directions[index].to(loaded.gradient)
                if kind == "feature"
                else loaded.gradient[..., index]
            )
            return Unit(kind, index, float(values.max()), float((values * direction[0]).sum()))

    def gradients(self, acts_btd: Float[Tensor, "batch token width"]) -> Float[Tensor, "batch token width"]:
        """Return the objective's gradient at the site for some images' activations; needs a tail that is exact."""
        with self._lock, torch.enable_grad():
            leaf = acts_btd.detach().clone().requires_grad_(True)
            (gradient,) = torch.autograd.grad(self.objective(self.tail.logits(leaf)).sum(), leaf)
        return gradient

    def _load(self, image: int) -> _Loaded:
        if not 0 <= image < len(self.images):
            raise ConfigError(f"there is no image {image}: the run has {len(self.images)}, counted from 0")
        if image in self._kept:
            self._kept.move_to_end(image)
            return self._kept[image]
        x = self.model.prepare([self.images[image]], self.preparation)
        with torch.no_grad():
            acts = run_with_cache(self.model, x, [self.site.name])[self.site.name]
            codes = self.encoder.encode(acts)
        outcome, gradient = self._answer(x, acts)
        self._kept[image] = _Loaded(x, acts, codes, gradient, outcome)
        if len(self._kept) > IMAGES_KEPT:
            self._kept.popitem(last=False)
        return self._kept[image]

    def _answer(self, x: Tensor, acts: Tensor) -> tuple[Outcome, Tensor]:
        """Run the model from an activation on, forwards and back."""
        leaf = acts.detach().clone().requires_grad_(True)
        with torch.enable_grad():
            logits = self.tail.logits(leaf, None if self.tail.exact else x)
            value = self.objective(logits)
            (gradient,) = torch.autograd.grad(value.sum(), leaf)
        logits, value = logits.detach(), value.detach()
        evidence = self._on_grid((gradient * acts).sum(-1))
        return (
            Outcome(
                logits[0].float().numpy(), self.model.probabilities(logits)[0].float().numpy(), float(value[0]), evidence, None
            ),
            gradient,
        )  # fmt: skip

    @torch.no_grad()
    def _random(self, loaded: _Loaded, change: Tensor, seed: int) -> tuple[float, float] | None:
        if not self.tail.exact:
            return None
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randn(RANDOM_CHANGES, *change.shape[1:], generator=generator)
        drawn *= change.norm(dim=-1, keepdim=True) / drawn.norm(dim=-1, keepdim=True)
        changes = self.objective(self.tail.logits(loaded.acts + drawn)) - loaded.outcome.objective
        return float(changes.min()), float(changes.max())

    def _on_grid(self, values_bt: Tensor) -> Float[NDArray[np.float32], "row column"] | None:
        grid = self.site.grid
        if grid is None or len(grid.shape) != 2:
            return None
        cells: NDArray[np.float32] = values_bt[0, self.site.prefix_tokens :].float().numpy()
        return cells.reshape(grid.rows, grid.columns)


def _strongest(kind: Kind, values: Tensor, along: Tensor, n: int) -> list[Unit]:
    relevance = (values * along).sum(1)[0]
    largest = values[0].max(0).values
    order = relevance.abs().argsort(descending=True, stable=True)[:n].tolist()
    return [Unit(kind, i, float(largest[i]), float(relevance[i])) for i in order if relevance[i] != 0]


def describe(
    outcome: Outcome,
    before: Outcome,
    names: Sequence[str],
    objective: str,
    activation: Literal["softmax", "sigmoid"] = "softmax",
) -> str:
    """Return what a move did, in a sentence for those who cannot see the figures.

    Of outputs that do not exclude one another (``sigmoid``) the answer is all that are above a half, and the probability told is
    the one that moved most.
    """
    said, told = _answer(before, outcome, names, activation)
    said += f" {before.probabilities[told]:.2f} → {outcome.probabilities[told]:.2f}; "
    said += f"{objective} {format_value(outcome.objective - before.objective, 'signed')}"
    if outcome.random is not None:
        low, high = (format_value(end, "signed") for end in outcome.random)
        said += f" (random changes as large: {low} to {high}, {RANDOM_CHANGES} draws)"
    return f"{said}."


def _answer(before: Outcome, after: Outcome, names: Sequence[str], activation: str) -> tuple[str, int]:
    """Return what became of the answer, up to the word *probability*, and the class whose probability is told."""
    if activation == "softmax":
        was, now = int(before.logits.argmax()), int(after.logits.argmax())
        kept, words, told, of = was == now, (names[was], names[now]), now, ""
    else:
        first, second = (_found(outcome, names) for outcome in (before, after))
        told = int(np.abs(after.probabilities - before.probabilities).argmax())
        kept, words, of = first == second, (first, second), f" of {names[told]}"
    answer = f"The answer stays {words[1]}" if kept else f"The answer changes from {words[0]} to {words[1]}"
    return f"{answer}, probability{of}", told


def _found(outcome: Outcome, names: Sequence[str]) -> str:
    there = np.flatnonzero(outcome.logits > 0)
    nothing = f"not {names[0]}" if len(names) == 1 else "none of the findings"
    return ", ".join(names[int(i)] for i in there) or nothing


def outcome_json(outcome: Outcome) -> dict[str, Any]:
    """Return an outcome as a page reads it: four significant digits, which is more than a screen shows."""

    def rounded(values: NDArray[np.float32] | None) -> Any:
        if values is None:
            return None
        return [[float(f"{v:.4g}") for v in row] for row in np.atleast_2d(values)]

    return {
        "logits": [float(f"{v:.4g}") for v in outcome.logits],
        "probabilities": [float(f"{v:.4g}") for v in outcome.probabilities],
        "evidence": rounded(outcome.evidence),
        "moved": rounded(outcome.moved),
        "relativeChange": round(outcome.relative_change, 4),
    }
