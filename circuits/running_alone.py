"""Run a circuit alone: every node sees its circuit's sources as they are, and all others replaced.

Edges are cut, not nodes: for each target its own run is made in which only the sources that have an edge to it keep the
value that the circuit gave them. Targets with the same sources share a run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuits.circuit import Edge, Place
from circuits.corrupting import Corrupted
from circuits.edges import METRIC
from circuits.nodes import Parts
from circuits.wiring import Wiring


class CircuitRunner:
    """Metric of circuits on one batch.

    Parameters
    ----------
    wiring
        The nodes.
    corrupted
        The batch in both runs: replaced sources take their values from the second.

    """

    def __init__(self, wiring: Wiring, corrupted: Corrupted) -> None:
        self.wiring, self.both = wiring, corrupted

    def metric(self, edges: Iterable[Edge], *, complement: bool = False) -> Float[Tensor, " image"]:
        """Return the metric of every image when these edges alone (or all others) carry what they carry.

        Parameters
        ----------
        edges
            The circuit.
        complement
            Run everything but the circuit.

        """
        sources: dict[Place, set[Place]] = {}
        for source, target in edges:
            sources.setdefault(target, set()).add(source)
        values: dict[str, Parts] = {}
        with torch.no_grad():
            for j, layer in enumerate(self.wiring.layers):
                clean = self.both.clean.parts[layer.site]
                if j == 0:
                    values[layer.site] = clean
                    continue
                by_sources: dict[frozenset[Place], list[int]] = {}
                for node in range(len(layer)):
                    if complement or (layer.site, node) in sources:
                        key = frozenset(sources.get((layer.site, node), ()))
                        by_sources.setdefault(key, []).append(node)
                values[layer.site] = self._assembled(j, by_sources, values, complement=complement)
            return self._run(len(self.wiring.layers), frozenset(sources.get((METRIC, 0), ())), values, complement)[0]

    def _assembled(
        self, j: int, by_sources: Mapping[frozenset[Place], list[int]], values: Mapping[str, Parts], *, complement: bool
    ) -> Parts:
        """Return a site's parts, each node's from the run that its sources make."""
        layer = self.wiring.layers[j]
        replaced = self.both.replaced.parts[layer.site]
        codes, error = replaced.codes.clone(), None if replaced.error is None else replaced.error.clone()
        for kept, nodes in by_sources.items():
            _, acts = self._run(j, kept, values, complement)
            assert acts is not None
            parts = layer.split(acts)
            mask = torch.zeros(1, len(layer), dtype=torch.bool, device=acts.device)
            mask[0, nodes] = True
            codes = torch.where(layer.features_of(mask[:, : layer.n_features])[:, None], parts.codes, codes)
            if layer.has_error and bool(mask[0, -1]):
                error = parts.error
        return Parts(codes, error)

    def _run(
        self, j: int, kept: frozenset[Place], values: Mapping[str, Parts], complement: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Run with all sites before number `j` put together from kept and replaced sources; read that site."""
        put = {}
        for layer in self.wiring.layers[:j]:
            mask = torch.full((1, len(layer)), complement, dtype=torch.bool, device=self.wiring.model.device)
            for site, node in kept:
                if site == layer.site:
                    mask[0, node] = not complement
            put[layer.site] = self._mixed(layer.site, values[layer.site], mask)
        read = () if j == len(self.wiring.layers) else (self.wiring.sites[j],)
        state = self.both.clean
        metric, seen = self.wiring.run(state, put, read, first=self.both.rows.start)
        return metric, seen[read[0]] if read else None

    def _mixed(self, site: str, kept: Parts, nodes: Bool[Tensor, "1 node"]) -> Float[Tensor, "image token width"]:
        """Return an activation with some nodes' parts as kept and the others' replaced.

        What is no node keeps what it has in the images as they are.
        """
        layer, clean = self.wiring.layer(site), self.both.clean
        every = torch.ones_like(nodes)
        out = layer.changed(clean.acts[site], clean.parts[site], self.both.replaced.parts[site], every & ~nodes)
        return layer.changed(out, clean.parts[site], kept, nodes)
