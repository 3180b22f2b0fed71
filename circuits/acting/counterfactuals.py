"""``counterfactual_features``: the fewest features whose change turns a decision, and the real images nearest to the result.

A feature is changed to the mean code map of images that the model decides the other way: a value that images have, not the
nearest one that happens to fool the model. Features are taken in the order of their attributed effect until the decision
turns; then every one that is not needed is put back. So the set is minimal (none can be left out), not proved smallest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from circuits.acting.bench import EditBench, Pictures
from circuits.acting.decision import Decision
from circuits.running import slices
from mechinterp.errors import ConfigError, ImagesError
from mechinterp.feature_encoder import FeatureEncoder
from mechinterp.progress import SILENT, Progress
from mechinterp.tails import Tail

if TYPE_CHECKING:
    from mechinterp.models.vision_model import VisionModel


@dataclass(frozen=True)
class CounterfactualFeatures:
    """What turns one image's decision.

    Parameters
    ----------
    image
        Its number.
    features
        The features changed, strongest first; where the decision did not turn, all that were allowed.
    before, after
        Log-odds of the target.
    turned
        Whether the decision is the other one.
    neighbours
        Numbers of the reference images decided the other way whose mean codes lie nearest to the changed image's, nearest
        first.
    distances
        How far, in standard deviations of each feature.

    """

    image: int
    features: tuple[int, ...]
    before: float
    after: float
    turned: bool
    neighbours: tuple[int, ...]
    distances: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in vars(self).items()}


def counterfactual_features(
    model: VisionModel,
    encoder: FeatureEncoder,
    images: Pictures,
    reference: Pictures,
    *,
    target: str | int,
    chosen: Sequence[int] | None = None,
    most: int = 32,
    neighbours: int = 3,
    batch: int = 64,
    progress: Progress = SILENT,
) -> tuple[CounterfactualFeatures, ...]:
    """Find for every image the fewest features that turn its decision.

    Parameters
    ----------
    model, encoder
        Features of one site.
    images
        To be explained.
    reference
        Real images; those decided the other way give values and neighbours.
    target
        The class decided on: an image is called positive at even odds.
    chosen
        Features that may be changed; all by default.
    most
        At most so many.
    neighbours
        How many real images are named.
    batch
        Images, and changed activations, at once.
    progress
        Told of every image.

    Raises
    ------
    ConfigError
        If `most` is below 1 or a feature does not exist.
    ImagesError
        If no reference image is decided one of the two ways that is needed.

    """
    if most < 1:
        raise ConfigError(f"most is {most}: at least 1 feature must change to turn a decision")
    allowed = list(range(encoder.width)) if chosen is None else [int(f) for f in chosen]
    wrong = [f for f in allowed if not 0 <= f < encoder.width]
    if wrong:
        raise ConfigError(f"there is no feature {wrong[0]}: the encoder has 0 to {encoder.width - 1}")
    decision = Decision.of(model, target)
    bench = EditBench(model, encoder.site, batch)
    known = _References.of(bench, encoder, reference, decision)
    found: list[CounterfactualFeatures] = []
    tail: Tail | None = None
    for rows, x, acts in bench.batches(images, progress, "counterfactuals"):
        tail = tail or Tail(model, encoder.site, x[:2])
        for k in range(len(acts)):
            one = _OneImage(tail, encoder, decision, acts[k], x[k], allowed, batch)
            found.append(one.explained(rows.start + k, known, most, neighbours))
    return tuple(found)


@dataclass(frozen=True, eq=False)
class _References:
    """Mean code maps and pooled codes of reference images, by what the model decides on them."""

    maps: dict[bool, Float[Tensor, "token feature"]]
    pooled: Float[NDArray[np.float64], "reference feature"]
    positive: NDArray[np.bool_]
    spread: Float[NDArray[np.float64], " feature"]

    @classmethod
    def of(cls, bench: EditBench, encoder: FeatureEncoder, images: Pictures, decision: Decision) -> _References:
        totals: dict[bool, Tensor | float] = {False: 0.0, True: 0.0}
        pooled, positive, like = [], [], None
        tail: Tail | None = None
        for _, x, acts in bench.batches(images):
            tail = tail or Tail(bench.model, bench.site, x[:2])
            with torch.no_grad():
                said, codes = decision.log_odds(tail.logits(acts, x)) > 0, encoder.encode(acts)
            like = codes
            for side in (False, True):
                totals[side] = totals[side] + codes[said == side].double().sum(0)
            pooled.append(codes.mean(1).double().cpu())
            positive.append(said.cpu())
        every, is_positive = torch.cat(pooled).numpy(), torch.cat(positive).numpy()
        counts = {False: int((~is_positive).sum()), True: int(is_positive.sum())}
        maps = {side: (t / n).to(like) for side, t in totals.items() if (n := counts[side]) and isinstance(t, Tensor)}
        spread = every.std(0)
        return cls(maps, every, is_positive, np.where(spread > 0, spread, np.inf))

    def of_side(self, side: bool, name: str) -> Float[Tensor, "token feature"]:
        if side not in self.maps:
            raise ImagesError(
                f"no reference image is decided {'' if side else 'not '}'{name}': give some that the model decides either way"
            )
        return self.maps[side]


@dataclass(frozen=True, eq=False)
class _OneImage:
    tail: Tail
    encoder: FeatureEncoder
    decision: Decision
    acts_nd: Float[Tensor, "token width"]
    x: Tensor
    allowed: list[int]
    batch: int

    def explained(self, image: int, known: _References, most: int, neighbours: int) -> CounterfactualFeatures:
        before, gradient = self._gradient()
        side = before <= 0  # what it is to become
        codes = self.encoder.encode(self.acts_nd)
        change = (known.of_side(side, self.decision.name) - codes)[:, self.allowed]
        directions = self.encoder.directions[self.allowed].to(self.acts_nd)
        gains = ((gradient @ directions.T) * change).sum(0) * (1 if side else -1)
        # what would strengthen the decision cannot help to turn it
        order = [k for k in torch.argsort(gains, descending=True, stable=True).tolist() if gains[k] > 0][:most]
        said = self._log_odds([order[: k + 1] for k in range(len(order))], change, directions)
        turned = np.flatnonzero((said > 0) == side)
        kept = order[: int(turned[0]) + 1] if len(turned) else order
        if len(turned):
            kept = self._pruned(kept, change, directions, side)
        after = float(self._log_odds([kept], change, directions)[0]) if kept else before
        pooled = codes.mean(0).double()
        chosen = [self.allowed[k] for k in kept]
        pooled[chosen] += change[:, kept].mean(0).double()
        near, far = _nearest(pooled.cpu().numpy(), known, side, neighbours)
        return CounterfactualFeatures(image, tuple(chosen), before, after, (after > 0) == side, near, far)

    def _gradient(self) -> tuple[float, Float[Tensor, "token width"]]:
        with torch.enable_grad():
            acts = self.acts_nd[None].detach().clone().requires_grad_()
            said = self.decision.log_odds(self.tail.logits(acts, self.x[None]))
            (gradient,) = torch.autograd.grad(said.sum(), acts)
        return float(said.detach()), gradient[0]

    def _log_odds(self, sets: list[list[int]], change: Tensor, directions: Tensor) -> NDArray[np.float64]:
        found = []
        with torch.no_grad():
            for part in slices(len(sets), self.batch):
                acts = torch.stack([self.acts_nd + change[:, s] @ directions[s] for s in sets[part]])
                said = self.tail.logits(acts, self.x.expand(len(acts), *self.x.shape))
                found.append(self.decision.log_odds(said).double().cpu().numpy())
        return np.concatenate(found) if found else np.zeros(0)

    def _pruned(self, kept: list[int], change: Tensor, directions: Tensor, side: bool) -> list[int]:
        while len(kept) > 1:
            fewer = [kept[:k] + kept[k + 1 :] for k in range(len(kept))]
            still = (self._log_odds(fewer, change, directions) > 0) == side
            if not still.any():
                break
            kept = fewer[int(np.flatnonzero(still)[-1])]  # the weakest that is not needed
        return kept


def _nearest(
    pooled: Float[NDArray[np.float64], " feature"], known: _References, side: bool, n: int
) -> tuple[tuple[int, ...], tuple[float, ...]]:
    rows = np.flatnonzero(known.positive == side)
    distance = np.linalg.norm((known.pooled[rows] - pooled) / known.spread, axis=1)
    order = np.argsort(distance, kind="stable")[:n]
    return tuple(int(rows[k]) for k in order), tuple(float(distance[k]) for k in order)
