"""The answer from activations of one site alone, and how much of a change of theirs goes through features."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from experiments.studies.phantom.bench import StudyBench
from mechinterp.feature_encoder import FeatureEncoder
from mechinterp.objectives import Objective
from mechinterp.tails import Tail

_DOUBLINGS, _HALVINGS = 12, 12


@dataclass(frozen=True, eq=False)
class SiteAnswer:
    """Answers of some images, from what a site holds of each.

    Parameters
    ----------
    objective
        The answer as one number.
    tail
        What comes after the site.
    x
        The images, for a model in which something bypasses the site.

    """

    objective: Objective
    tail: Tail
    x: Float[Tensor, "image channel height width"]

    @classmethod
    def of(cls, bench: StudyBench, site: str, x: Float[Tensor, "image channel height width"]) -> SiteAnswer:
        """Return what follows a site of the model that is studied."""
        return cls(bench.objective, Tail(bench.model, site, x[:2]), x)

    def __call__(self, acts: Float[Tensor, "image token width"]) -> float:
        """Return the mean answer."""
        logits = self.tail.logits(acts, None if self.tail.exact else self.x)
        return float(self.objective(logits).double().mean())


def share_through(
    answer: SiteAnswer,
    encoder: FeatureEncoder,
    before: Float[Tensor, "image token width"],
    after: Float[Tensor, "image token width"],
    features: Int[Tensor, " feature"],
) -> float:
    """Return which share of what a change of activations does to the answer is undone by putting some features back.

    Parameters
    ----------
    answer
        From the features' site on.
    encoder
        Whose features.
    before, after
        Activations without and with the change.
    features
        Which of them are set back to what they were before; what the encoder misses stays changed.

    Returns
    -------
    float
        1 where all of it goes through them, 0 where nothing does; NaN where the answer does not change.

    """
    changed = answer(after)
    effect = changed - answer(before)
    if not effect:
        return float("nan")
    back = encoder.encode(before)[..., features] - encoder.encode(after)[..., features]
    return (changed - answer(after + back @ encoder.directions[features])) / effect


def moved_by(
    answer: SiteAnswer, acts: Float[Tensor, "image token width"], towards: Float[Tensor, " width"], amount: float
) -> Float[Tensor, "image token width"] | None:
    """Return activations moved along a direction, in every token, until the mean answer moves by an amount.

    Parameters
    ----------
    answer
        From the site on.
    acts
        Where they are.
    towards
        Direction; its length is the first step tried.
    amount
        Wanted change of the answer, of either sign [logits].

    Returns
    -------
    Tensor or None
        ``None`` where the answer does not move so far along that direction, or nothing is asked for.

    """
    if not amount:
        return None
    base = answer(acts)
    low, high = 0.0, 1.0
    for _ in range(_DOUBLINGS):
        if (answer(acts + high * towards) - base) / amount >= 1:
            break
        low, high = high, 2 * high
    else:
        return None
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if (answer(acts + middle * towards) - base) / amount >= 1:
            high = middle
        else:
            low = middle
    return acts + high * towards
