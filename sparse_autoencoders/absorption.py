"""Feature absorption: a general feature that falls silent where a more specific one has swallowed its direction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mechinterp.errors import ConfigError, ImagesError, ShapeError
from mechinterp.feature_encoder import FeatureEncoder

ALIGNED_ABOVE = 0.1
LEAST_SHARE = 0.4


@dataclass(frozen=True)
class Absorption:
    """What became of a concept in a dictionary.

    Parameters
    ----------
    concept_features
        Features that stand for the concept.
    tokens
        Tokens that have it and that the concept's direction sees.
    silent
        Share of them on which no concept feature is active.
    full
        Share on which, besides, features that are not the concept's carry most of its direction: absorbed.
    partial
        Mean share of the concept's part of the reconstruction that other, aligned features carry, over all tokens; 0 where the
        concept's features do all the work.
    absorbers
        The features that carry it where it is absorbed, most frequent first.

    """

    concept_features: tuple[int, ...]
    tokens: int
    silent: float
    full: float
    partial: float
    absorbers: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain JSON."""
        return asdict(self)


@torch.no_grad()
def absorption(
    encoder: FeatureEncoder,
    x: Float[Tensor, "row d_in"],
    has_concept: Bool[Tensor, " row"],
    direction: Float[Tensor, " d_in"] | None = None,
    *,
    features: Sequence[int] | None = None,
    aligned: float = ALIGNED_ABOVE,
    share: float = LEAST_SHARE,
) -> Absorption:
    r"""Measure how far other features have absorbed a concept.

    What a feature j contributes to the concept at a token is :math:`z_j\, d_j \cdot p`, with p the concept's unit direction. A
    token is *absorbed* where no feature of the concept is active, although the concept is there, and aligned other features
    (:math:`\cos(d_j, p)` above `aligned`) carry at least `share` of the positive contributions.

    Parameters
    ----------
    encoder
        SAE or any other.
    x
        Tokens, some with the concept and some without; held out.
    has_concept
        Which have it.
    direction
        The concept's direction, of a probe for example; by default the difference of the two means.
    features
        Features that stand for the concept; by default the one that separates the tokens best by F1 of its firing.
    aligned
        Least cosine of an absorbing feature's direction.
    share
        Least share of the contributions that absorbing features carry.

    Raises
    ------
    ShapeError
        If tokens, marks and direction do not belong together.
    ImagesError
        If all tokens have the concept, or none.
    ConfigError
        If there is no such feature, or the direction is zero.

    References
    ----------
    Chanin et al. A is for absorption: studying feature splitting and absorption in sparse autoencoders. arXiv 2409.14507, 2024;
    Karvonen et al. SAEBench. arXiv 2503.09532, 2025 (mean absorption fraction).

    """
    if len(has_concept) != len(x) or (direction is not None and direction.shape != x.shape[1:]):
        raise ShapeError(
            f"{len(x)} tokens {x.shape[-1]} wide, {len(has_concept)} marks and a direction of shape "
            f"{None if direction is None else tuple(direction.shape)}: give one mark for each token and a direction of the site"
        )
    there = has_concept.bool()
    if there.all() or not there.any():
        raise ImagesError(f"{int(there.sum())} of {len(x)} tokens have the concept: give tokens with it and without")
    p = x[there].mean(0) - x[~there].mean(0) if direction is None else direction.to(x)
    if not float(p.norm()) > 0:
        raise ConfigError("the concept's direction is zero: tokens with and without it have the same mean")
    p = p / p.norm()
    z = encoder.encode(x)
    chosen = [_best_by_f1(z != 0, there)] if features is None else list(features)
    if not chosen or not all(0 <= j < encoder.width for j in chosen):
        raise ConfigError(f"features {chosen} stand for the concept: the {encoder.kind} has 0 to {encoder.width - 1}")
    along = encoder.directions.to(x) @ p
    # only tokens at which the concept can be seen along its direction, as a probe that is right about them would
    cut = (x[there] @ p).mean() / 2 + (x[~there] @ p).mean() / 2
    seen = there & (x @ p > cut)
    codes = z[seen]
    mine = torch.zeros(encoder.width, dtype=torch.bool)
    mine[chosen] = True
    other = (along / encoder.directions.norm(dim=1).clamp_min(1e-12) > aligned) & ~mine
    parts = (codes * along).clamp_min(0)
    own, absorbed, total = parts[:, mine].sum(1), parts[:, other].sum(1), parts.sum(1)
    silent = ~(codes[:, mine] != 0).any(1)
    full = silent & (absorbed >= share * total) & (absorbed > 0)
    counted = (own + absorbed).clamp_min(torch.finfo(x.dtype).tiny)
    frequency = (codes[full][:, other] != 0).sum(0)
    order = frequency.argsort(descending=True, stable=True)
    names = other.nonzero().flatten()[order[frequency[order] > 0]]
    return Absorption(
        concept_features=tuple(chosen),
        tokens=int(seen.sum()),
        silent=float(silent.double().mean()),
        full=float(full.double().mean()),
        partial=float((absorbed / counted).double().mean()),
        absorbers=tuple(names[:10].tolist()),
    )


def _best_by_f1(fires: Bool[Tensor, "row feature"], there: Bool[Tensor, " row"]) -> int:
    hits = fires[there].sum(0).double()
    return int((2 * hits / (fires.sum(0) + there.sum())).argmax())
