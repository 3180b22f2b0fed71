"""Find a circuit from coarse to fine: groups of nodes first, then nodes inside the groups that matter.

Measuring every edge between n nodes of two sites costs n² runs, and most nodes take part in nothing. So the nodes of every
site are put into few groups, the circuit between groups is found as any other, groups without an edge are dropped, and those
that are kept are divided again, until every group is one node. What is found last is found by the same measurements as
without groups; only where to look was narrowed.

What it can miss: nodes of a group whose effects cancel in every image, in both directions. ``slack`` is the margin for that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from circuits.ablations import Ablation, resample
from circuits.circuit import Circuit, Edge, Place
from circuits.corrupting import corrupted_batches
from circuits.edges import METRIC, connected
from circuits.finding import default_nodes, find_circuit
from circuits.finding_config import FindConfig
from circuits.inputs import as_batch
from circuits.metrics import Measurable, as_metric
from circuits.node_scores import node_scores
from circuits.nodes import NodeSet, features, neurons
from circuits.wiring import Wiring
from mechinterp.errors import ConfigError
from mechinterp.feature_encoder import FeatureEncoder
from mechinterp.progress import SILENT, Progress

if TYPE_CHECKING:
    from mechinterp.images.image_set import ImageSet
    from mechinterp.models.vision_model import VisionModel

Groups = dict[str, list[list[int]]]
"""Site → groups of its nodes."""


@dataclass(frozen=True)
class Level:
    """One round of the search.

    Parameters
    ----------
    groups
        How many groups of nodes there were in all.
    kept
        How many had an edge.
    images_run
        Images that went through the model for it, repeats counted.

    """

    groups: int
    kept: int
    images_run: int


@dataclass(frozen=True, eq=False)
class HierarchicalCircuit:
    """A circuit, and how it was reached.

    Parameters
    ----------
    circuit
        What was found, its nodes numbered as without groups.
    levels
        Coarsest first; the last is that of single nodes.

    """

    circuit: Circuit
    levels: tuple[Level, ...] = field(default=())

    @property
    def images_run(self) -> int:
        """Images that went through the model in all: what the search cost."""
        return sum(level.images_run for level in self.levels)


def find_circuit_by_groups(
    model: VisionModel,
    images: ImageSet | Float[Tensor, "image channel height width"],
    *,
    metric: Measurable,
    saes: Sequence[FeatureEncoder] = (),
    nodes: Sequence[NodeSet] = (),
    sites: Sequence[str] = (),
    groups: Mapping[str, Sequence[Sequence[int]]] | None = None,
    fan: int = 4,
    slack: float = 0.5,
    reference: ImageSet | Float[Tensor, "reference channel height width"] | None = None,
    ablation: Ablation | None = None,
    patients: Sequence[Any] | NDArray[Any] | None = None,
    attributes: Mapping[Place, tuple[str, str]] | None = None,
    config: FindConfig | None = None,
    progress: Progress = SILENT,
) -> HierarchicalCircuit:
    """Find a circuit as :func:`circuits.find_circuit` does, narrowing down from groups of nodes.

    Parameters
    ----------
    model, images, metric, saes, nodes, sites, reference, ablation, attributes, progress
        As there.
    groups
        Site → groups of its nodes to begin with: heads, say. By default a site's nodes, ordered by one gradient so that those
        that matter lie together, in `fan` parts. What encoders leave out is always a node of its own.
    fan
        Into how many parts a group that is kept is divided.
    slack
        A group is kept from this share of ``config.threshold`` on: effects of its nodes may partly cancel.
    patients
        Patient of each image.
    config
        How edges are measured; ``discovery`` must be ``threshold``. ``max_nodes`` bounds the last level only.

    Returns
    -------
    HierarchicalCircuit
        The circuit and the cost of every level.

    Raises
    ------
    ConfigError
        If the settings cannot be meant, or groups do not divide their site's nodes.

    """
    config, ablation = config or FindConfig(), ablation or resample(1)
    if config.discovery != "threshold":
        raise ConfigError(f"discovery is '{config.discovery}': coarse to fine keeps what is above a threshold")
    if fan < 2 or not 0 < slack <= 1:
        raise ConfigError(f"fan is {fan} and slack {slack:g}: at least 2 parts, and a share above 0, at most 1")
    batch = as_batch(model, images, patients)
    other = None if reference is None else as_batch(model, reference).x
    layers = [*(features(sae) for sae in saes), *nodes, *(neurons(model, s) for s in sites)] or default_nodes(model)
    whole = Wiring(model, layers, as_metric(metric, model), batch.x, config.frozen)
    shared: dict[str, Any] = {
        "metric": metric, "reference": other, "ablation": ablation, "groups": batch.groups, "progress": progress,
    }  # fmt: skip
    with _counted(model) as ordering:
        order, possible = _surveyed(whole, batch.x, other, ablation, config)
    current = _checked(groups, whole) if groups is not None else {s: _parts(n, fan) for s, n in order.items()}
    levels: list[Level] = []
    coarse = replace(config, threshold=slack * config.threshold, max_nodes=10**9)
    while any(len(g) > 1 for own in current.values() for g in own):
        with _counted(model) as count:
            found = find_circuit(model, batch.x, nodes=_grouped(whole, current), config=coarse, **shared)
        kept = _kept(found, current)
        levels.append(Level(_size(current), _size(kept), count.images))
        rank = {site: {n: k for k, n in enumerate(own)} for site, own in order.items()}
        current = {
            site: [part for g in own for part in _parts(sorted(g, key=rank[site].__getitem__), fan)]
            for site, own in kept.items()
        }
    with _counted(model) as count:
        found = find_circuit(model, batch.x, nodes=_grouped(whole, current), config=config, **shared)
    # the images went as prepared ones: only their own set knows whether its groups are patients
    circuit = replace(_renumbered(found, current, whole, possible, attributes or {}), batch=batch)
    levels.append(Level(_size(current), _size(_kept(found, current)), count.images + ordering.images))
    return HierarchicalCircuit(circuit, tuple(levels))


def _surveyed(
    wiring: Wiring, x: Tensor, reference: Tensor | None, ablation: Ablation, config: FindConfig
) -> tuple[dict[str, list[int]], int]:
    """Return each site's nodes, those with the largest attribution in either direction first, and how many edges are possible.

    Errors are left out of the order; edges are possible between sites that reach each other directly.
    """
    totals: dict[str, Tensor] = {}
    pairs: set[tuple[int, int]] = set()
    for b in corrupted_batches(wiring, x, reference, ablation, batch=config.batch, seed=config.seed):
        for base, other in ((b.clean, b.replaced), (b.run, b.clean)):
            for site, values in node_scores(wiring, base, other, first=b.rows.start).items():
                totals[site] = totals.get(site, torch.zeros_like(values[0])) + values.abs().sum(0)
            for i, j in _pairs_of_sites(len(wiring.layers)) - pairs:
                target = None if j == len(wiring.layers) else wiring.layers[j]
                if connected(wiring, base, other, i, target, b.rows.start):
                    pairs.add((i, j))
    order = {
        layer.site: totals[layer.site][: layer.n_features].argsort(descending=True, stable=True).tolist()
        for layer in wiring.layers
    }
    sizes = [*(len(layer) for layer in wiring.layers), 1]
    return order, sum(sizes[i] * sizes[j] for i, j in pairs)


def _pairs_of_sites(n: int) -> set[tuple[int, int]]:
    """Return every site with each later one; number `n` is the metric."""
    return {(i, j) for i in range(n) for j in range(i + 1, n + 1)}


def _parts(nodes: Sequence[int], fan: int) -> list[list[int]]:
    """Divide nodes into at most `fan` parts of like size, in their order."""
    return [part.tolist() for part in np.array_split(np.asarray(nodes, dtype=np.int64), min(fan, len(nodes)))]


def _checked(groups: Mapping[str, Sequence[Sequence[int]]], wiring: Wiring) -> Groups:
    found: Groups = {}
    for layer in wiring.layers:
        own = [[int(n) for n in g] for g in groups.get(layer.site, [[n] for n in range(layer.n_features)])]
        if sorted(n for g in own for n in g) != list(range(layer.n_features)) or not all(own):
            raise ConfigError(
                f"the groups of site '{layer.site}' do not divide its {layer.n_features} nodes: name each node once"
            )
        found[layer.site] = own
    unknown = set(groups) - set(found)
    if unknown:
        raise ConfigError(f"groups name the site '{sorted(unknown)[0]}', which has no nodes: {', '.join(found)} have")
    return found


def _grouped(wiring: Wiring, groups: Groups) -> list[NodeSet]:
    """Return every site's groups as its nodes."""
    return [
        replace(
            layer, members=tuple(tuple(f for n in g for f in _members(layer, n)) for g in groups[layer.site]), names=()
        )
        for layer in wiring.layers
    ]


def _members(layer: NodeSet, node: int) -> tuple[int, ...]:
    return layer.members[node] if layer.members else (node,)


def _kept(found: Circuit, groups: Groups) -> Groups:
    """Return the groups that some edge touches; of a site without any the first, so that ways through it stay apart."""
    touched = set(found.nodes)
    return {
        site: [g for k, g in enumerate(own) if (site, k) in touched] or [own[0][:1]] for site, own in groups.items()
    }


def _size(groups: Groups) -> int:
    return sum(len(own) for own in groups.values())


def _renumbered(
    found: Circuit, groups: Groups, whole: Wiring, possible: int, attributes: Mapping[Place, tuple[str, str]]
) -> Circuit:
    """Return the circuit between single nodes with the numbers that they have at their sites."""

    def name(place: Place) -> Place:
        site, k = place
        if site == METRIC:
            return place
        # past the groups stands the error, the last node of its site
        return site, groups[site][k][0] if k < len(groups[site]) else whole.layer(site).n_features

    def both(edge: Edge) -> Edge:
        return name(edge[0]), name(edge[1])

    return replace(
        found,
        wiring=whole,
        edges=tuple(replace(e, edge=both(e.edge)) for e in found.edges),
        node_effects={name(place): values for place, values in found.node_effects.items()},
        possible=possible,
        claim={**found.claim, "discovery": "hierarchical"},
        attributes=dict(attributes),
    )


@dataclass
class _Count:
    images: int = 0


@contextmanager
def _counted(model: VisionModel) -> Iterator[_Count]:
    """Count the images that go through the model inside."""
    count = _Count()

    def add(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = args[0] if args else next(iter(kwargs.values()))
        count.images += len(given)

    handle = model.module.register_forward_pre_hook(add, with_kwargs=True)
    try:
        yield count
    finally:
        handle.remove()
