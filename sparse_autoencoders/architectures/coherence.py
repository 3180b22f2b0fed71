"""Keep the directions of a dictionary apart: near-duplicates are given up, merged features taken apart, left-overs taken up.

Matching pursuit has no gradient against two faults. Of two directions that say the same, both fire now and then, and neither is silent.
And where a feature fires only beside another, the sum of the two wins each row in which both are active: the pursuit takes one round
for what took two, and the error that is left points to neither.

References
----------
Aharon, Elad, Bruckstein. K-SVD: an algorithm for designing overcomplete dictionaries. IEEE Trans. Signal Processing 54, 2006 (section
IV: near-duplicates are replaced by what is represented worst).
Mailhé, Barchiesi, Plumbley. INK-SVD: learning incoherent dictionaries for sparse representations. ICASSP 2012.
Chanin et al. A is for absorption: studying feature splitting and absorption in sparse autoencoders. arXiv 2409.14507.

"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def duplicates(
    directions: Float[Tensor, "feature d_in"], frequency: Float[Tensor, " feature"], above: float
) -> Bool[Tensor, " feature"]:
    """Return which directions say what another says that fires more often.

    Parameters
    ----------
    directions
        Of unit norm.
    frequency
        How often each fires; of two that fire alike the first counts as the more frequent.
    above
        Cosine above which two say the same.

    """
    return (_beside_more_frequent(directions, frequency) > above).any(1)


def apart(
    directions: Float[Tensor, "feature d_in"], frequency: Float[Tensor, " feature"], above: float, below: float
) -> tuple[Int[Tensor, " merged"], Float[Tensor, "merged d_in"]]:
    """Return which directions hold much of a more frequent one, and what each is without it, of unit norm.

    Of several the one that it lies nearest to is taken out. What is left of two directions that are the same is no direction: those
    are duplicates, and not among what is returned.

    Parameters
    ----------
    directions, frequency
        As :func:`duplicates` has them.
    above, below
        Cosines between which a direction holds much of another and more than that.

    """
    cosine, other = _beside_more_frequent(directions, frequency).max(1)
    merged = ((cosine > above) & (cosine <= below)).nonzero().flatten()
    rest = directions[merged] - cosine[merged, None] * directions[other[merged]]
    return merged, torch.nn.functional.normalize(rest, dim=1)


def shared(
    left_over: Float[Tensor, "row d_in"], n: int, alike: int, generator: torch.Generator
) -> Float[Tensor, "place d_in"]:
    """Return `n` unit directions that several rows' left-overs share.

    Each is the mean direction of the rows that are most like one drawn with probability proportional to its squared norm: what a
    single row leaves over is the sum of all that was missed there, what alike rows have in common is a feature.

    Parameters
    ----------
    left_over
        What a dictionary leaves over of some rows, not zero of all.
    n
        How many.
    alike
        Rows that make up one, that drawn included.
    generator
        Decides which are drawn.

    """
    squared = left_over.square().sum(1).cpu()
    drawn = torch.multinomial(squared, n, replacement=True, generator=generator).to(left_over.device)
    unit = torch.nn.functional.normalize(left_over, dim=1)
    nearest = (unit[drawn] @ unit.t()).topk(min(alike, len(unit)), dim=1).indices
    return torch.nn.functional.normalize(unit[nearest].mean(1), dim=1)


def _beside_more_frequent(directions: Tensor, frequency: Tensor) -> Float[Tensor, "feature other"]:
    """Return the cosines with those that fire more often, zero with all others."""
    order = frequency.argsort(descending=True, stable=True)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order), device=order.device)
    return (directions @ directions.t()).masked_fill_(rank[:, None] <= rank, 0)
