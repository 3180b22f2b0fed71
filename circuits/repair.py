"""Self-repair: nodes that are silent in every run until another node is changed, and then take over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from circuits.circuit import Edge, Place, ScoredEdge
from circuits.corrupting import Corrupted
from circuits.edges import METRIC, Chosen, between
from circuits.wiring import Wiring


def repaired_edges(
    wiring: Wiring,
    batches: Sequence[Corrupted],
    edges: Mapping[Edge, ScoredEdge],
    least: float,
    chosen: Chosen,
) -> list[ScoredEdge]:
    """Return the edges out of nodes that only speak when their source is changed.

    Such a node has an edge into it that moves the metric, but none out of it: its own value, in the images as they are and
    in the corrupted run, is the same. So the value that its source's change gives it is put in, and its edges are run again.

    Parameters
    ----------
    wiring, batches
        Nodes and both runs.
    edges
        What was found so far.
    least
        Least mean size of an effect.
    chosen
        Which nodes are looked at.

    """
    strong = {edge: scored for edge, scored in edges.items() if scored.size >= least}
    speaking = {source for source, _ in strong}
    silent: dict[Place, Edge] = {}
    for edge, scored in sorted(strong.items(), key=lambda item: -item[1].size):
        if edge[1][0] != METRIC and edge[1] not in speaking:
            silent.setdefault(edge[1], (scored.edge[0], edge[1]))
    return [found for place, into in silent.items() for found in _edges_out(wiring, batches, into, least, chosen)]


def _edges_out(
    wiring: Wiring, batches: Sequence[Corrupted], into: Edge, least: float, chosen: Chosen
) -> list[ScoredEdge]:
    """Run the edges out of one node with the value that a change of its source gives it."""
    (source_site, source), (site, node) = into
    layer = wiring.layer(site)
    later = wiring.layers[wiring.sites.index(site) + 1 :]
    values: dict[Place, list[np.ndarray]] = {}
    moved: dict[Place, list[np.ndarray]] = {}
    changes: list[np.ndarray] = []
    images: list[np.ndarray] = []
    with torch.no_grad():
        for b in batches:
            images.append(np.arange(b.rows.start, b.rows.stop))
            clean, own = b.clean, b.clean.parts[site]
            pick = _one(wiring, source_site, source, len(clean))
            put = between(wiring, clean, wiring.sites.index(source_site), layer)
            first = wiring.layer(source_site)
            put[source_site] = first.changed(
                clean.acts[source_site], clean.parts[source_site], b.replaced.parts[source_site], pick
            )
            _, read = wiring.run(clean, put, (site,), first=b.rows.start)
            induced = layer.split(read[site])
            changes.append((layer.size_of(induced) - layer.size_of(own))[:, node].double().cpu().numpy())
            spoken = layer.changed(clean.acts[site], own, induced, _one(wiring, site, node, len(clean)))
            for target in [*later, None]:
                held = {**between(wiring, clean, wiring.sites.index(site), target), site: spoken}
                metric, read = wiring.run(clean, held, () if target is None else (target.site,), first=b.rows.start)
                if target is None:
                    change = (metric - clean.metric).double().cpu().numpy()
                    values.setdefault((METRIC, 0), []).append(change)
                    moved.setdefault((METRIC, 0), []).append(change)
                    continue
                got, before = target.split(read[target.site]), clean.parts[target.site]
                sizes = target.size_of(got) - target.size_of(before)
                for t in chosen.of(target):
                    change = np.zeros(len(clean))
                    if bool(sizes[:, t].any()):
                        acts = target.changed(
                            clean.acts[target.site], before, got, _one(wiring, target.site, t, len(clean))
                        )
                        metric, _ = wiring.run(clean, {target.site: acts}, first=b.rows.start)
                        change = (metric - clean.metric).double().cpu().numpy()
                    values.setdefault((target.site, t), []).append(change)
                    moved.setdefault((target.site, t), []).append(sizes[:, t].double().cpu().numpy())
    change, at = np.concatenate(changes), np.concatenate(images)
    found = []
    for place, parts in values.items():
        effect, move = np.concatenate(parts), np.concatenate(moved[place])
        slope = float(change @ move / max(float(change @ change), np.finfo(np.float64).tiny))
        scored = ScoredEdge(((site, node), place), effect, np.zeros_like(effect), slope, at, repair=True)
        if scored.size >= least:
            found.append(scored)
    return found


def _one(wiring: Wiring, site: str, node: int, n: int) -> torch.Tensor:
    mask = torch.zeros(n, len(wiring.layer(site)), dtype=torch.bool, device=wiring.model.device)
    mask[:, node] = True
    return mask
