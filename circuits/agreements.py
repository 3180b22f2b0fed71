"""How near a method's effects come to exact ones, site by site, on the model and images at hand.

A gradient is an estimate. Where it falls short depends on the model, the site and the ablation, so a circuit found by gradients
says where, on its own page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from circuits.ablations import Ablation, mean
from circuits.frozen import LIVE, Frozen
from circuits.measuring import Method, effects
from circuits.metrics import Measurable
from circuits.nodes import NodeSet
from mechinterp.models.vision_model import VisionModel
from mechinterp.progress import SILENT, Progress
from mechinterp.statistics import spearman

if TYPE_CHECKING:
    from circuits.circuit import Circuit

LEAST = 0.9
"""Rank correlation below which a site is named."""


@dataclass(frozen=True)
class Agreement:
    """Agreement of a method with exact effects at one site.

    Parameters
    ----------
    site, method, ablation
        Of what.
    rho
        Spearman's, over images and nodes; NaN where no effect differs from another.
    nodes, images
        How many were changed, in how many images.

    """

    site: str
    method: str
    ablation: str
    rho: float
    nodes: int
    images: int

    @property
    def falls_short(self) -> bool:
        """Whether the site must be measured exactly; one whose agreement is not known must."""
        return not self.rho >= LEAST

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return {**asdict(self), "rho": None if np.isnan(self.rho) else self.rho, "falls_short": self.falls_short}


def agreement(
    metric: Measurable,
    nodes: Sequence[NodeSet],
    *,
    model: VisionModel,
    images: Float[Tensor, "image channel height width"],
    reference: Float[Tensor, "reference channel height width"] | None = None,
    method: Method = "attribution",
    ablation: Ablation | None = None,
    freeze: frozenset[Frozen] = LIVE,
    most_nodes: int = 32,
    steps: int = 8,
    rows: int = 64,
    seed: int = 0,
    progress: Progress = SILENT,
) -> tuple[Agreement, ...]:
    """Compare a method's effects with exact ones for some nodes of every site.

    Parameters
    ----------
    metric, nodes, model, images, reference, ablation, freeze
        As for :func:`circuits.effects`.
    method
        What is compared with exact effects.
    most_nodes
        Nodes of a site that are changed one by one: drawn from all, since the largest by a method would flatter it. The
        error node is always one of them.
    steps, rows
        As for :func:`circuits.effects`.
    seed
        Of the draw.
    progress
        Told of every site.

    """
    found = []
    settings: dict[str, Any] = {
        "model": model, "images": images, "reference": reference, "ablation": ablation or mean(), "freeze": freeze,
        "batch": 8, "rows": rows,
    }  # fmt: skip
    for layer in nodes:
        # a node that no image tells apart from what replaces it has no effect by any method, and would count as agreement
        near = effects(metric, layer, method=method, steps=steps, **settings)
        alive = np.flatnonzero(near.norms.max(0) > 0)
        chosen = np.random.default_rng([seed, len(layer)]).permutation(alive[alive < layer.n_features])[:most_nodes]
        if not len(chosen):
            found.append(Agreement(layer.site, method, settings["ablation"].name, float("nan"), 0, len(images)))
            continue
        few = some_of(layer, sorted(chosen.tolist()))
        exact = effects(metric, few, method="exact", progress=progress, **settings)
        columns = [*sorted(chosen.tolist()), *([layer.n_features] if layer.has_error else [])]
        pair = exact.per_image.reshape(-1, 1), near.per_image[:, columns].reshape(-1, 1)
        rho = float(spearman(*pair)[0, 0]) if all(np.ptp(p) > 0 for p in pair) else float("nan")
        found.append(Agreement(layer.site, method, exact.ablation.name, rho, len(columns), len(images)))
    return tuple(found)


def agreement_of(
    circuit: Circuit, *, images: int = 4, most_nodes: int = 24, progress: Progress = SILENT
) -> tuple[Agreement, ...]:
    """Compare the method that a circuit was found by with exact effects, on some of its images.

    Effects of nodes are attributions where edges were run exactly.

    Parameters
    ----------
    circuit
        What was found.
    images
        How many of its images; at least two.
    most_nodes
        Nodes of a site.
    progress
        Told of every site.

    """
    wiring, reference = circuit.wiring, circuit.reference
    method: Method = "integrated" if circuit.claim.get("method") == "integrated" else "attribution"
    paired = reference is not None and circuit.ablation.paired
    return agreement(
        wiring.metric, wiring.layers, model=wiring.model, images=circuit.batch.x[:images],
        reference=reference[:images] if paired and reference is not None else reference, method=method,
        ablation=circuit.ablation, freeze=wiring.freeze, most_nodes=most_nodes, seed=circuit.seed, progress=progress,
    )  # fmt: skip


def some_of(layer: NodeSet, nodes: Sequence[int]) -> NodeSet:
    """Return some nodes of a site as a set of their own, the error with them; the rest of the activation stays as it is."""
    members = layer.members or tuple((f,) for f in range(layer.encoder.width))
    names = tuple(layer.name_of(n) for n in nodes)
    return replace(layer, members=tuple(members[n] for n in nodes), names=names)


def agreement_sentence(found: Sequence[Agreement]) -> str:
    """Return what a page says: the sites where the method falls short, or that it does nowhere.

    Examples
    --------
    >>> agreement_sentence([Agreement("stages.0", "attribution", "resample", 0.5, 16, 8)])
    'Attribution falls short of ρ 0.9 against exact effects at stages.0 (ρ 0.50, resample): measure exactly there.'

    """
    method = found[0].method.capitalize() if found else "The method"
    short = [
        f"{a.site} ({'no effect differs' if np.isnan(a.rho) else f'ρ {a.rho:.2f}'}, {a.ablation})"
        for a in found
        if a.falls_short
    ]
    if short:
        return (
            f"{method} falls short of ρ {LEAST:g} against exact effects at {', '.join(short)}: measure exactly there."
        )
    least = min((a.rho for a in found), default=float("nan"))
    return f"{method} ranks effects as exact ones do at every site (ρ ≥ {least:.2f})."
