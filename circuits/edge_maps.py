"""Where in the image an edge acts: its attribution token by token of its source."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.circuit import Edge
from circuits.corrupting import Corrupted
from circuits.edges import METRIC, between
from circuits.nodes import minus
from circuits.quadrature import way
from circuits.wiring import Wiring


def edge_map(wiring: Wiring, both: Corrupted, edge: Edge, *, steps: int = 16) -> Float[Tensor, "image token"]:
    """Return what each token of an edge's source does through its target to the metric, when it is noised.

    Both gradients are averaged along the way between the two runs, so the map's sum is the edge's integrated effect; a
    token's place in the image is the source site's grid.

    Parameters
    ----------
    wiring, both
        Nodes, and one batch in both runs.
    edge
        (site, node) of source and target.
    steps
        Points on the way; 1 takes the gradient at the images as they are.

    """
    (site, node), (target_site, target_node) = edge
    base, other = both.clean, both.replaced
    source = wiring.layer(site)
    target = None if target_site == METRIC else wiring.layer(target_site)
    held = between(wiring, base, wiring.sites.index(site), target)
    points = ((0.0, 1.0),) if steps == 1 else way(steps)
    change = minus(other.parts[site], base.parts[site])
    weights = None if target is None else _gradient(wiring, both, target.site, points)
    total = torch.zeros_like(base.acts[site][..., 0])
    for share, weight in points:
        acts = torch.lerp(base.acts[site], other.acts[site], share).requires_grad_()
        with torch.enable_grad():
            read = () if target is None else (target.site,)
            metric, seen = wiring.run(base, {**held, site: acts}, read, first=both.rows.start)
            outcome = metric
            if target is not None and weights is not None:
                outcome = target.per_node(weights, target.split(seen[target.site])).sum(1)[:, target_node]
            gradient = torch.autograd.grad(outcome.sum(), acts)[0]
        total = total + weight * source.per_node(gradient, change)[..., node]
    return total.detach()


def _gradient(wiring: Wiring, both: Corrupted, site: str, points: tuple[tuple[float, float], ...]) -> Tensor:
    total = torch.zeros_like(both.clean.acts[site])
    for share, weight in points:
        acts = torch.lerp(both.clean.acts[site], both.replaced.acts[site], share).requires_grad_()
        with torch.enable_grad():
            metric, _ = wiring.run(both.clean, {site: acts}, first=both.rows.start)
            total += weight * torch.autograd.grad(metric.sum(), acts)[0]
    return total
