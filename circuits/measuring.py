r"""``effects``: what changing every node does to a metric, by whichever method.

======================  =========================================================  ===================================
method                  what it computes                                           passes over a batch
======================  =========================================================  ===================================
``exact``               the node is changed and the rest of the model runs         one forward a node
``attribution``         gradient × change at the images as they are                one forward, one backward
``integrated``          gradient × change averaged along the way of the whole      one of each a step
                        site, so that all nodes' effects add up to the site's [1]_
``integrated-own``      the same along each node's own way: its exact effect       one of each a node and step
``graddrop``            attribution, averaged in size over gradients that each     one of each a block
                        leave out one block: effects that cancel show [2]_
``relevance``           coefficient of relevance × change: attribution whose       one forward, one backward
                        backward pass follows the rules of LRP [3]_
======================  =========================================================  ===================================

References
----------
.. [1] Sundararajan, Taly, Yan. Axiomatic attribution for deep networks. 2017 (arXiv 1703.01365), on the activation patch.
.. [2] Kramár et al. AtP*. 2024 (arXiv 2403.00745), section 3.1; :mod:`circuits.saturation` has its other correction.
.. [3] Rezaei Jafari et al. RelP: faithful and efficient circuit discovery via relevance patching. 2025 (arXiv 2508.21258);
   see :mod:`circuits.relevance_patching`.

"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from circuits.ablations import Ablation, mean
from circuits.corrupting import Corrupted, corrupted_batches
from circuits.exact import ExactRuns, Finished
from circuits.frozen import LIVE, Frozen
from circuits.inputs import as_batch
from circuits.metrics import Measurable, as_metric
from circuits.node_results import Effects, NodeName, Resolution
from circuits.node_scores import site_gradients
from circuits.nodes import NodeSet, Parts, minus
from circuits.off_data import DataSpread
from circuits.quadrature import way
from circuits.relevance_patching import relevance_coefficients
from circuits.wiring import Wiring
from mechinterp.errors import ConfigError, nearest
from mechinterp.progress import SILENT, Progress

if TYPE_CHECKING:
    from mechinterp.images.image_set import ImageSet
    from mechinterp.models.vision_model import VisionModel

Method: TypeAlias = Literal["exact", "attribution", "integrated", "integrated-own", "graddrop", "relevance"]
METHODS: tuple[Method, ...] = ("exact", "attribution", "integrated", "integrated-own", "graddrop", "relevance")


def effects(
    metric: Measurable,
    nodes: NodeSet | Sequence[NodeSet],
    *,
    model: VisionModel,
    images: ImageSet | Float[Tensor, "image channel height width"],
    reference: ImageSet | Float[Tensor, "reference channel height width"] | None = None,
    method: Method = "exact",
    ablation: Ablation | None = None,
    resolution: Resolution = "image",
    regions: Int[Tensor, "image token"] | None = None,
    freeze: frozenset[Frozen] = LIVE,
    groups: Sequence[Any] | NDArray[Any] | None = None,
    batch: int = 32,
    rows: int = 64,
    steps: int = 32,
    keep: str | Path | None = None,
    seed: int = 0,
    progress: Progress = SILENT,
) -> Effects:
    """Measure what changing every node does to a metric.

    Parameters
    ----------
    metric
        An objective, ``loss(labels)``, or any function from logits to one number per row.
    nodes
        From :mod:`circuits.nodes`: neurons, heads, whole layers, features with their error. One set per site.
    model, images
        The model and what it looks at.
    reference
        Images whose values are put in place; the images themselves by default.
    method
        See the table above.
    ablation
        What is put in place; :func:`circuits.mean` by default.
    resolution
        Change a node in the whole image, in every region of it, or at every token.
    regions
        For ``region``: the region of every token, numbered from 0; -1 belongs to none.
    freeze
        What is held at what it is: ``attention``, ``norm``, ``gates``.
    groups
        Patient of each image; an ``ImageSet`` has its own.
    batch
        Images at once.
    rows
        Changed activations run at once, for ``exact``: with `batch`, what bounds the memory.
    steps
        Points on the way, for the integrated methods.
    keep
        A folder for finished blocks of exact effects: an interrupted run goes on from there.
    seed
        Of the draws.
    progress
        Told of every block.

    Raises
    ------
    ConfigError
        If method, resolution or regions cannot be meant.

    Examples
    --------
    >>> found = effects(logit("tumour"), features(sae), model=model, images=images)  # doctest: +SKIP
    >>> found.figure().show()  # doctest: +SKIP

    """
    sets = [nodes] if isinstance(nodes, NodeSet) else list(nodes)
    ablation = ablation or mean()
    if method not in METHODS:
        raise ConfigError(f"there is no method '{method}': {nearest(method, METHODS)}")
    if method == "relevance" and freeze:
        raise ConfigError("method='relevance' has its own rules for attention and normalisation: give no freeze")
    if (resolution == "region") != (regions is not None):
        raise ConfigError("resolution='region' and regions go together: give the region of every token of every image")
    if steps < 1 or batch < 1 or rows < 1:
        raise ConfigError(f"steps, batch and rows are {steps}, {batch} and {rows}: each must be at least 1")
    known = as_batch(model, images, groups)
    other = None if reference is None else as_batch(model, reference).x
    measured = as_metric(metric, model)
    wiring = Wiring(model, sets, measured, known.x, freeze)
    places = _places(wiring, resolution, regions)
    batches = corrupted_batches(wiring, known.x, other, ablation, batch=batch, seed=seed, consistent=False)
    gathered = _Gathered(len(known.x), sum(len(s) for s in wiring.layers), places)
    passes: dict[str, int] = {}
    finished = Finished.at(keep, wiring, known.x, other, ablation, method, resolution, seed, regions)
    for b in batches:
        for layer, columns in zip(wiring.layers, _columns(wiring), strict=True):
            change = minus(b.replaced.parts[layer.site], b.clean.parts[layer.site])
            gathered.describe(b, layer, change, columns)
        if method in {"exact", "integrated-own"}:
            runs = ExactRuns(wiring, b, rows, places, regions, steps if method == "integrated-own" else 0, finished)
            for layer, columns in zip(wiring.layers, _columns(wiring), strict=True):
                values, ran = runs.of(layer, progress)
                gathered.add(b, columns, values)
                passes = {"forward": max(passes.get("forward", 0), ran)}
        else:
            values_by_site, passes = _by_gradient(wiring, b, method, steps)
            for layer, columns in zip(wiring.layers, _columns(wiring), strict=True):
                gathered.add(b, columns, _pooled(values_by_site[layer.site], places, b, regions))
    names = tuple(
        NodeName(layer.site, k, layer.kind_of(k), layer.name_of(k))
        for layer in wiring.layers
        for k in range(len(layer))
    )
    return Effects(measured.name, method, ablation, resolution, names, *gathered.averaged(), passes, known)


def _columns(wiring: Wiring) -> list[slice]:
    ends = np.cumsum([0, *(len(layer) for layer in wiring.layers)]).tolist()
    return [slice(a, b) for a, b in pairwise(ends)]


def _places(wiring: Wiring, resolution: Resolution, regions: Tensor | None) -> int:
    if resolution == "image":
        return 1
    tokens = {wiring.model.site(site).tokens for site in wiring.sites}
    if len(tokens) > 1:
        raise ConfigError(f"sites with {sorted(tokens)} tokens have no places in common: measure one site at a time")
    if regions is None:
        return tokens.pop()
    if regions.shape[1] not in tokens:
        raise ConfigError(f"regions name {regions.shape[1]} tokens, the site has {tokens.pop()}: give one each")
    return int(regions.max()) + 1


def _pooled(
    values: Float[Tensor, "image token node"], places: int, b: Corrupted, regions: Tensor | None
) -> Float[Tensor, "image node place"]:
    """Add attributions up over the tokens of each place: they are additive."""
    if places == 1 and regions is None:
        return values.sum(1)[:, :, None]
    if regions is None:
        return values.transpose(1, 2)
    own = regions[b.rows].to(values.device)
    out = values.new_zeros(len(values), places + 1, values.shape[2])
    at = torch.where(own < 0, places, own)[:, :, None].expand_as(values)
    return out.scatter_add_(1, at, values)[:, :places].transpose(1, 2)


def _by_gradient(
    wiring: Wiring, b: Corrupted, method: Method, steps: int
) -> tuple[dict[str, Float[Tensor, "image token node"]], dict[str, int]]:
    change = {layer.site: minus(b.replaced.parts[layer.site], b.clean.parts[layer.site]) for layer in wiring.layers}
    first = b.rows.start
    if method in {"attribution", "relevance"}:
        slopes = relevance_coefficients if method == "relevance" else site_gradients
        gradients = slopes(wiring, b.clean, first=first)
        own = {s.site: s.per_node(gradients[s.site], change[s.site]) for s in wiring.layers}
        return own, _cost(1)
    if method == "graddrop":
        return _graddrop(wiring, b, change)
    found: dict[str, Tensor] = {}
    for layer in wiring.layers:
        clean, other = b.clean.acts[layer.site], b.replaced.acts[layer.site]
        total = torch.zeros_like(clean)
        for share, weight in way(steps):
            acts = torch.lerp(clean, other, share).requires_grad_()
            with torch.enable_grad():
                metric, _ = wiring.run(b.clean, {layer.site: acts}, first=first)
                total += weight * torch.autograd.grad(metric.sum(), acts)[0]
        found[layer.site] = layer.per_node(total, change[layer.site])
    return found, _cost(steps * len(wiring.layers))


def _graddrop(
    wiring: Wiring, b: Corrupted, change: dict[str, Parts]
) -> tuple[dict[str, Float[Tensor, "image token node"]], dict[str, int]]:
    """Average the size of attributions over gradients that each leave out one block."""
    branches: dict[str, list[str]] = {}
    for name in wiring.model.sites:
        block, _, place = name.rpartition(".")
        if name.startswith("blocks.") and place in {"hook_attn_out", "hook_mlp_out"}:
            branches.setdefault(block, []).append(name)
    if len(branches) < 2:
        raise ConfigError(
            f"'{wiring.model.spec}' has no blocks with branches that gradients could leave out: use attribution, or exact"
        )
    totals: dict[str, Tensor] = {}
    for dropped in branches.values():
        gradients = site_gradients(wiring, b.clean, first=b.rows.start, detached=tuple(dropped))
        for layer in wiring.layers:
            values = layer.per_node(gradients[layer.site], change[layer.site]).sum(1, keepdim=True).abs()
            totals[layer.site] = totals.get(layer.site, torch.zeros_like(values)) + values / (len(branches) - 1)
    return totals, _cost(len(branches))


def _cost(n: int) -> dict[str, int]:
    return {"forward": n, "backward": n}


class _Gathered:
    """Results of all batches and draws, by image and node."""

    def __init__(self, images: int, nodes: int, places: int) -> None:
        self.values = np.zeros((images, nodes, places), dtype=np.float64)
        self.before = np.zeros(images)
        self.norms = np.zeros((images, nodes))
        self.ratios = np.zeros((images, nodes))
        self.draws = np.zeros((images, nodes))
        self.changed = np.zeros((images, nodes))

    def add(self, b: Corrupted, columns: slice, values: Float[Tensor, "image node place"]) -> None:
        self.values[b.rows, columns] += values.double().cpu().numpy()
        self.draws[b.rows, columns] += 1
        self.before[b.rows] = b.clean.metric.double().cpu().numpy()

    def describe(self, b: Corrupted, layer: NodeSet, change: Parts, columns: slice) -> None:
        """Note every node's norm, and how far off the data its change alone takes the tokens."""
        acts = b.clean.acts[layer.site]
        directions = (
            torch.eye(acts.shape[2], dtype=acts.dtype, device=acts.device)
            if layer.complete
            else layer.encoder.directions.detach().to(acts)
        )
        single = change.codes.square().sum(1) * directions.square().sum(1)
        squares = single
        if layer.members:
            owner = layer.owner.to(acts.device)
            kept = owner >= 0
            squares = single.new_zeros(len(single), layer.n_features).index_add_(1, owner[kept], single[:, kept])
        if layer.has_error and change.error is not None:
            squares = torch.cat([squares, change.error.square().sum((1, 2))[:, None]], 1)
        self.norms[b.rows, columns] += squares.sqrt().double().cpu().numpy()
        if acts.shape[0] * acts.shape[1] < 2 or layer.members:
            return
        spread = DataSpread.fit(acts)
        curvatures = spread.curvatures(directions)
        ratios = torch.stack(
            [spread.single_ratios(a, c, directions, curvatures) for a, c in zip(acts, change.codes, strict=True)]
        )
        moved = change.codes.any(1)
        width = ratios.shape[1]
        inside = slice(columns.start, columns.start + width)
        self.ratios[b.rows, inside] += (ratios * moved).double().cpu().numpy()
        self.changed[b.rows, inside] += moved.double().cpu().numpy()

    def averaged(self) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32], NDArray[np.float64]]:
        """Return values, unchanged metric, norms and distances, over the draws."""
        draws = np.maximum(self.draws, 1)
        counts = self.changed.sum(0)
        off = np.where(counts > 0, self.ratios.sum(0) / np.maximum(counts, 1), np.nan)
        return (
            (self.values / draws[:, :, None]).astype(np.float32),
            self.before.astype(np.float32),
            (self.norms / draws).astype(np.float32),
            off,
        )
