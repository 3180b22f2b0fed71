"""What an edge really does: its source is changed, its target takes what it gets, and everything after it runs.

An independent way to the same number as :func:`circuits.edges.edge_effects`, for one edge at a time: it checks estimates by
gradient where only a few edges are drawn.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from circuits.circuit import Edge
from circuits.corrupting import Corrupted
from circuits.edges import METRIC, between
from circuits.wiring import State, Wiring


def real_effects(
    wiring: Wiring, batches: Iterable[Corrupted], edges: Sequence[Edge]
) -> Float[NDArray[np.float64], "row edge"]:
    """Return what replacing each edge's source does to the metric through its target alone, per row.

    Parameters
    ----------
    wiring
        The nodes.
    batches
        Both runs of the images.
    edges
        Which; those with the same source and target site share a run.

    """
    rows = []
    for b in batches:
        columns: dict[Edge, Tensor] = {}
        for source, site in dict.fromkeys((e[0], e[1][0]) for e in edges):
            targets = [e[1][1] for e in edges if e[0] == source and e[1][0] == site]
            for target, change in zip(targets, _changes(wiring, b, source, site, targets), strict=True):
                columns[source, (site, target)] = change
        rows.append(torch.stack([columns[e] for e in edges], 1))
    found: NDArray[np.float64] = torch.cat(rows).double().cpu().numpy()
    return found


def _changes(wiring: Wiring, b: Corrupted, source: tuple[str, int], site: str, targets: Sequence[int]) -> list[Tensor]:
    clean, first = b.clean, b.rows.start
    layer = wiring.layer(source[0])
    target = None if site == METRIC else wiring.layer(site)
    changed = layer.changed(
        clean.acts[layer.site],
        clean.parts[layer.site],
        b.replaced.parts[layer.site],
        _one(clean, len(layer), source[1]),
    )
    put = {**between(wiring, clean, wiring.sites.index(layer.site), target), layer.site: changed}
    with torch.no_grad():
        metric, read = wiring.run(clean, put, () if target is None else (site,), first=first)
        if target is None:
            return [metric - clean.metric]
        got, found = target.split(read[site]), []
        for node in targets:
            acts = target.changed(clean.acts[site], clean.parts[site], got, _one(clean, len(target), node))
            found.append(wiring.run(clean, {site: acts}, first=first)[0] - clean.metric)
    return found


def _one(state: State, width: int, node: int) -> Tensor:
    mask = torch.zeros(1, width, dtype=torch.bool, device=state.x.device)
    mask[0, node] = True
    return mask
