"""Random directions to compare a chosen one with: where the activations vary, and away from it."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def random_directions(
    acts: Float[Tensor, "row width"], chosen: Float[Tensor, " width"], n: int, *, seed: int = 0
) -> Float[Tensor, "direction width"]:
    """Return unit directions drawn with the activations' covariance, orthogonal to the chosen one.

    Directions uniform on the sphere are an easy control: most of them point where activations never go and what follows
    never looks. These point where the data vary, and hold no part of the direction that they are compared with.

    Parameters
    ----------
    acts
        Activations whose covariance is meant.
    chosen
        The direction that they are compared with, of any length.
    n, seed
        How many; seed of the draws.

    Notes
    -----
    Where the activations vary along the chosen direction alone, the directions are uniform instead.

    """
    generator = torch.Generator().manual_seed(seed)
    centred = (acts - acts.mean(0)).double()
    covariance = centred.T @ centred / len(centred)
    values, vectors = torch.linalg.eigh(covariance.cpu())
    normal = torch.randn(n, len(values), generator=generator, dtype=torch.float64)
    unit = (chosen.double() / chosen.double().norm()).cpu()
    drawn = _without(normal * values.clamp_min(0).sqrt() @ vectors.T, unit)
    flat = drawn.norm(dim=1) <= 1e-9 * float(values.clamp_min(0).sum().sqrt())
    drawn = torch.where(flat[:, None], _without(normal, unit), drawn)
    unit_length: Tensor = drawn / drawn.norm(dim=1, keepdim=True)
    return unit_length.to(acts)


def _without(directions: Tensor, unit: Tensor) -> Tensor:
    return directions - (directions @ unit)[:, None] * unit
