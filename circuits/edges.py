r"""Effects of edges: what changing a source does to a target, and through that target alone to the metric.

Path patching [1]_: the source is changed while every site between it and the target is held, so the change reaches the
target directly; then the target alone takes the value it got, and everything after it runs. Done from the run of the images
as they are (*noising*: what breaks without the edge) and from a corrupted run into which single values are put back
(*denoising*: what the edge alone restores): an OR shows only the second way, an AND only the first.

``exact`` runs every path. ``attribution`` takes one gradient of the metric per site and one per target [2]_: the edge
:math:`s \to t` scores :math:`\nabla_t m \cdot \partial t/\partial s \cdot \Delta s`. ``integrated`` averages both gradients
along the straight way between the two runs [3]_.

References
----------
.. [1] Goldowsky-Dill et al. Localizing model behavior with path patching. 2023 (arXiv 2304.05969).
.. [2] Marks et al. Sparse feature circuits. 2024 (arXiv 2403.19647), equation 4 and appendix A.
.. [3] Hanna et al. Have faith in faithfulness. 2024 (arXiv 2403.17806), EAP-IG.

"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from circuits.nodes import NodeSet, Parts, minus
from circuits.quadrature import way
from circuits.running import slices
from circuits.wiring import State, Wiring

Method = Literal["exact", "attribution", "integrated"]
METRIC = "metric"
"""Name of the last target: the metric itself."""

TARGETS_AT_ONCE = 16
"""Targets whose gradients are taken together: each holds one more activation of the source's site."""

# below this share of the largest change a target did not move: rounding
_STILL = 1e-9


@dataclass(frozen=True, eq=False)
class EdgeEffects:
    """Effects of the edges from one site's nodes to another's, or to the metric.

    Parameters
    ----------
    source, target
        Sites; the last target is :data:`METRIC`.
    effects
        Changed minus unchanged metric of every image.
    source_change
        Signed size of each source's change, see :meth:`circuits.nodes.NodeSet.size_of`.
    target_change
        Signed size of what each source does to each target.

    """

    source: str
    target: str
    effects: Float[NDArray[np.float64], "image source target"]
    source_change: Float[NDArray[np.float64], "image source"]
    target_change: Float[NDArray[np.float64], "image source target"]

    def slopes(self) -> Float[NDArray[np.float64], "source target"]:
        """Return by how much a target moves per unit of its source: least squares through the origin over the images."""
        s = self.source_change
        weight = np.maximum(np.square(s).sum(0), np.finfo(np.float64).tiny)
        result: NDArray[np.float64] = np.einsum("is,ist->st", s, self.target_change) / weight[:, None]
        return result


@dataclass(frozen=True, eq=False)
class Chosen:
    """Which nodes of each site are looked at; sites not named: all."""

    nodes: Mapping[str, Sequence[int]]

    def of(self, layer: NodeSet) -> list[int]:
        """Return the numbers of one site's nodes."""
        return [int(n) for n in self.nodes.get(layer.site, range(len(layer)))]


EVERY = Chosen({})


def edge_effects(
    wiring: Wiring,
    base: State,
    other: State,
    *,
    method: Method = "exact",
    nodes: Chosen = EVERY,
    steps: int = 8,
    rows: int = 512,
    first: int = 0,
) -> list[EdgeEffects]:
    """Return the effects of all edges between chosen nodes of all sites, and to the metric.

    Parameters
    ----------
    wiring
        Model, nodes, metric and images.
    base
        The run in which sources are changed.
    other
        Where their changed values come from. ``edge_effects(w, clean, corrupted)`` noises, the other way round denoises.
    method
        How effects are computed.
    nodes
        Which nodes are looked at.
    steps
        Points along the way, for ``integrated``.
    rows
        Images times interventions run at once, for ``exact``: bounds the memory.
    first
        Number of the first image, for metrics that know something of each.

    Returns
    -------
    list of EdgeEffects
        One for each pair of sites between which there is a direct way.

    """
    found = []
    for i, source in enumerate(wiring.layers):
        for target in [*wiring.layers[i + 1 :], None]:
            if not connected(wiring, base, other, i, target, first):
                continue
            pair = _Pair(
                wiring, base, other, i, target, nodes.of(source), [] if target is None else nodes.of(target), first
            )
            found.append(
                pair.exact(rows) if method == "exact" else pair.by_gradient(steps if method == "integrated" else 1)
            )
    return found


def between(wiring: Wiring, base: State, i: int, target: NodeSet | None) -> dict[str, Tensor]:
    """Return what is held while a change at site `i` goes directly to a target."""
    stop = len(wiring.layers) if target is None else wiring.sites.index(target.site)
    return {site: base.acts[site] for site in wiring.sites[i + 1 : stop]}


def connected(wiring: Wiring, base: State, other: State, i: int, target: NodeSet | None, first: int) -> bool:
    """Say whether changing a whole site moves the target directly, on any image."""
    site = wiring.sites[i]
    with torch.no_grad():
        put = {**between(wiring, base, i, target), site: other.acts[site]}
        metric, read = wiring.run(base, put, () if target is None else (target.site,), first=first)
    if target is None:
        return bool((metric - base.metric).abs().max() > 1e-12)
    before = base.acts[target.site]
    return bool((read[target.site] - before).abs().max() > _STILL * before.abs().max().clamp_min(1e-12))


@dataclass(eq=False)
class _Pair:
    """Edges between the nodes of one site and those of another, or the metric."""

    wiring: Wiring
    base: State
    other: State
    i: int
    target: NodeSet | None
    sources: list[int]
    targets: list[int]
    first: int

    def __post_init__(self) -> None:
        self.source = self.wiring.layers[self.i]
        self.held = between(self.wiring, self.base, self.i, self.target)
        site = self.source.site
        self.own, self.new = self.base.parts[site], self.other.parts[site]
        sizes = self.source.size_of(self.new) - self.source.size_of(self.own)
        self.source_change = sizes[:, self.sources]

    def exact(self, rows: int) -> EdgeEffects:
        """Run every path."""
        n = len(self.base)
        per_run = max(1, rows // n)
        effects = torch.zeros(n, len(self.sources), max(1, len(self.targets)), dtype=torch.float64)
        moved = torch.zeros_like(effects)
        with torch.no_grad():
            # a source that is the same in both runs changes nothing
            moves = _node_moves(self.source, minus(self.new, self.own)).amax(0)
            live = [s for s, node in enumerate(self.sources) if float(moves[node]) > 0]
            for part in slices(len(live), per_run):
                some = live[part]
                metric, read = self._with_sources_changed(some)
                if self.target is None:
                    change = (
                        (metric - self.base.metric.repeat(len(some))).double().cpu().reshape(len(some), n).T[:, :, None]
                    )
                    effects[:, some], moved[:, some] = change, change
                else:
                    self._through_targets(some, read, per_run, effects, moved)
        return self._made(effects, moved)

    def _with_sources_changed(self, some: list[int]) -> tuple[Tensor, Tensor]:
        """Change sources one by one, all images for each; return the metric and the target site's activation."""
        site, k, n = self.source.site, len(some), len(self.base)
        mask = torch.zeros(k, len(self.source), dtype=torch.bool, device=self.base.x.device)
        mask[range(k), [self.sources[s] for s in some]] = True
        changed = self.source.changed(
            self.base.acts[site].repeat(k, 1, 1), self.own.repeat(k), self.new.repeat(k), mask.repeat_interleave(n, 0)
        )
        put = {name: acts.repeat(k, 1, 1) for name, acts in self.held.items()}
        read = () if self.target is None else (self.target.site,)
        metric, seen = self._from_base({**put, site: changed}, read, k)
        return metric, seen[read[0]] if read else metric

    def _from_base(self, put: dict[str, Tensor], read: Sequence[str], k: int) -> tuple[Tensor, dict[str, Tensor]]:
        return self.wiring.run(self.base, put, read, repeats=k, first=self.first)

    def _through_targets(self, some: list[int], read: Tensor, per_run: int, effects: Tensor, moved: Tensor) -> None:
        """Let each target alone take the value it got, and run what comes after it."""
        target, n = self.target, len(self.base)
        assert target is not None
        site = target.site
        before, own = self.base.acts[site], self.base.parts[site]
        got = target.split(read)
        sizes = (target.size_of(got) - target.size_of(own).repeat(len(some), 1)).reshape(len(some), n, -1)
        change = minus(got, own.repeat(len(some)))
        moves = _node_moves(target, change).reshape(len(some), n, -1)
        still = _STILL * float(_node_moves(target, own).max().clamp_min(1e-12))
        jobs = [
            (s, t)
            for s in range(len(some))
            for t in range(len(self.targets))
            if moves[s, :, self.targets[t]].max() > still
        ]
        for s in range(len(some)):
            moved[:, some[s]] = sizes[s][:, self.targets].double()
        for start in range(0, len(jobs), per_run):
            part = jobs[start : start + per_run]
            k = len(part)
            mask = torch.zeros(k, len(target), dtype=torch.bool, device=before.device)
            mask[range(k), [self.targets[t] for _, t in part]] = True
            at = torch.cat([torch.arange(s * n, (s + 1) * n) for s, _ in part])
            changed = target.changed(before.repeat(k, 1, 1), own.repeat(k), got[at], mask.repeat_interleave(n, 0))
            metric, _ = self._from_base({site: changed}, (), k)
            values = (metric - self.base.metric.repeat(k)).double().reshape(k, n)
            for row, (s, t) in enumerate(part):
                effects[:, some[s], t] = values[row]

    def by_gradient(self, steps: int) -> EdgeEffects:
        """Return gradient × change, averaged over points on the way; one point is the unchanged run itself."""
        n = len(self.base)
        effects = torch.zeros(n, len(self.sources), max(1, len(self.targets)), dtype=torch.float64)
        moved = torch.zeros_like(effects)
        shares = ((0.0, 1.0),) if steps == 1 else way(steps)
        change = minus(self.new, self.own)
        weights = None if self.target is None else self._target_gradient(shares)
        for share, weight in shares:
            self._add_gradients(share, weight, change, weights, effects, moved)
        return self._made(effects, moved)

    def _target_gradient(self, shares: Sequence[tuple[float, float]]) -> Tensor:
        """Return the metric's gradient at the target site, averaged along the way from the base to the other run."""
        assert self.target is not None
        site = self.target.site
        total = torch.zeros_like(self.base.acts[site])
        for share, weight in shares:
            acts = torch.lerp(self.base.acts[site], self.other.acts[site], share).requires_grad_()
            with torch.enable_grad():
                metric, _ = self._from_base({site: acts}, (), 1)
                total += weight * torch.autograd.grad(metric.sum(), acts)[0]
        return total

    def _add_gradients(
        self, share: float, weight: float, change: Parts, weights: Tensor | None, effects: Tensor, moved: Tensor
    ) -> None:
        site = self.source.site
        acts = torch.lerp(self.base.acts[site], self.other.acts[site], share).requires_grad_()
        with torch.enable_grad():
            metric, read = self._from_base(
                {**self.held, site: acts}, () if self.target is None else (self.target.site,), 1
            )
            if self.target is None or weights is None:
                gradient = torch.autograd.grad(metric.sum(), acts)[0]
                products = weight * self.source.per_node(gradient, change).sum(1)[:, self.sources].double().cpu()
                effects[:, :, 0] += products
                moved[:, :, 0] += products
                return
            parts = self.target.split(read[self.target.site])
            node_weights = self.target.per_node(weights, parts).sum(1)
            sizes = self.target.size_of(parts)
            ones = Parts(torch.ones_like(parts.codes), parts.error)
            used = self.target.per_node(weights.abs(), ones).flatten(0, 1).any(0)
            # what reaches the metric by no way has no gradient
            live = [t for t, node in enumerate(self.targets) if bool(used[node])]
            for part in slices(len(live), TARGETS_AT_ONCE):
                some = live[part]
                for outcome, into in ((node_weights, effects), (sizes, moved)):
                    into[:, :, some] += weight * self._pulled_back(
                        outcome[:, [self.targets[t] for t in some]], acts, change
                    )

    def _pulled_back(self, outcome: Tensor, acts: Tensor, change: Parts) -> Float[Tensor, "image source target"]:
        """Return gradient × change of every source for every target's outcome, in one batched backward pass."""
        total = outcome.sum(0)
        (gradients,) = torch.autograd.grad(
            total, acts, torch.eye(len(total)).to(total), retain_graph=True, allow_unused=True, is_grads_batched=True
        )
        if gradients is None:
            return torch.zeros(len(self.base), len(self.sources), len(total), dtype=torch.float64)
        products = [self.source.per_node(g, change).sum(1)[:, self.sources].double().cpu() for g in gradients]
        return torch.stack(products, dim=2)

    def _made(self, effects: Tensor, moved: Tensor) -> EdgeEffects:
        return EdgeEffects(
            self.source.site,
            METRIC if self.target is None else self.target.site,
            effects.cpu().numpy(),
            self.source_change.double().cpu().numpy(),
            moved.cpu().numpy(),
        )


def _node_moves(layer: NodeSet, change: Parts) -> Float[Tensor, "batch node"]:
    """Return the size of every node's change, whatever its sign."""
    return layer.size_of(Parts(change.codes.abs(), change.error))
