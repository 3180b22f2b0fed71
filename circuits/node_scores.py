"""Attribution of every node of all sites at once: one forward and one backward pass."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.nodes import minus
from circuits.wiring import State, Wiring


def site_gradients(
    wiring: Wiring, base: State, *, first: int = 0, detached: tuple[str, ...] = ()
) -> dict[str, Float[Tensor, "image token width"]]:
    """Return the metric's gradient with respect to every site's activation, from one backward pass.

    Parameters
    ----------
    wiring, base
        The sites, and the run whose gradient is taken.
    first
        Number of the first image.
    detached
        Sites through which no gradient flows, for GradDrop.

    """
    leaves = {site: torch.zeros_like(base.acts[site], requires_grad=True) for site in wiring.sites}

    def with_leaf(site: str) -> Callable[[Tensor], Tensor]:
        return lambda acts: (acts.detach() if site in detached else acts) + leaves[site].to(acts)

    def blocked(acts: Tensor) -> Tensor:
        return acts.detach()

    start = {} if base.start is None else {wiring.sites[0]: base.start}
    put = {site: with_leaf(site) for site in wiring.sites} | {s: blocked for s in detached if s not in leaves}
    if start:
        site = wiring.sites[0]
        put[site] = lambda _acts: start[site] + leaves[site]
    with torch.enable_grad():
        metric, _ = wiring.run(base, put, first=first)
        gradients = torch.autograd.grad(metric.sum(), list(leaves.values()), allow_unused=True)
    return {
        site: torch.zeros_like(leaf) if g is None else g.detach()
        for (site, leaf), g in zip(leaves.items(), gradients, strict=True)
    }


def node_scores(wiring: Wiring, base: State, other: State, *, first: int = 0) -> dict[str, Float[Tensor, "image node"]]:
    """Return gradient × change of every node, summed over its tokens.

    Parameters
    ----------
    wiring
        The nodes.
    base
        The run in which nodes are changed.
    other
        Where their new values come from.
    first
        Number of the first image.

    """
    gradients = site_gradients(wiring, base, first=first)
    return {
        layer.site: layer.per_node(gradients[layer.site], minus(other.parts[layer.site], base.parts[layer.site])).sum(1)
        for layer in wiring.layers
    }
