"""Maps of features and of circuits: where in the image they are active, and where they act on the metric."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from circuits.ablations import Ablation, zero
from circuits.localization.maps import RelevanceMaps, cells_to_pixels
from circuits.localization.shown_images import ShownImages, show_images
from circuits.metrics import Measurable, as_metric
from circuits.nodes import NodeSet, features
from circuits.running import slices
from mechinterp.capturing import run_with_cache
from mechinterp.errors import ConfigError, SiteError
from mechinterp.feature_encoder import FeatureEncoder
from mechinterp.images.image_set import ImageSet
from mechinterp.models.vision_model import VisionModel

if TYPE_CHECKING:
    from circuits.circuit import Circuit


def feature_maps(
    model: VisionModel,
    images: ImageSet | Tensor | ShownImages,
    encoder: FeatureEncoder,
    chosen: Sequence[int],
    *,
    weights: Sequence[float] | None = None,
    batch: int = 16,
) -> RelevanceMaps:
    """Return where some features are active: their codes, weighted and added up. It knows nothing of the metric.

    Parameters
    ----------
    model, images
        The model and what it looks at.
    encoder
        An SAE or another encoder of one site.
    chosen
        Which features.
    weights
        Of each; all 1 by default.
    batch
        Images at once.

    Raises
    ------
    SiteError
        If the encoder's site has no place in the image.
    ConfigError
        If there is no such feature, or not one weight each.

    """
    shown = show_images(model, images)
    site = model.site(encoder.site)
    if site.grid is None:
        raise SiteError(f"site '{site.name}' has no grid over the image: its features have no map")
    wrong = [f for f in chosen if not 0 <= f < encoder.width]
    if wrong or not len(chosen):
        raise ConfigError(f"features {list(chosen)} of site '{site.name}': give some of 0 to {encoder.width - 1}")
    factors = np.ones(len(chosen)) if weights is None else np.asarray(weights, dtype=np.float64)
    if len(factors) != len(chosen):
        raise ConfigError(f"{len(factors)} weights for {len(chosen)} features: give one each")
    rows = []
    with torch.no_grad():
        for part in slices(len(shown), batch):
            acts = run_with_cache(model, shown.x[part], [site.name])[site.name]
            codes = encoder.encode(acts)[:, site.prefix_tokens :, list(chosen)]
            rows.append((codes.double() @ torch.from_numpy(factors).to(codes.device)).cpu().numpy())
    cells = np.concatenate(rows).reshape(len(shown), *site.grid.shape)
    maps = cells_to_pixels(cells, site.grid, (shown.x.shape[2], shown.x.shape[3]))
    return RelevanceMaps(
        maps, f"{encoder.kind} features", "activation", shown, f"{len(chosen)} features of {site.name}"
    )


def effect_maps(
    model: VisionModel,
    images: ImageSet | Tensor | ShownImages,
    metric: Measurable,
    nodes: NodeSet | FeatureEncoder,
    chosen: Sequence[int] | None = None,
    *,
    ablation: Ablation | None = None,
    steps: int = 16,
    batch: int = 16,
) -> RelevanceMaps:
    """Return where some nodes drive the metric: by how much it falls, token by token, when they are taken away.

    Integrated along the way of the site, so the tokens' parts add up to the effect.

    Parameters
    ----------
    model, images, metric
        What is explained.
    nodes
        A set of nodes, or an encoder whose features are.
    chosen
        Which nodes; all by default.
    ablation
        What is put in place; :func:`circuits.zero` by default.
    steps
        Points on the way.
    batch
        Images at once.

    Raises
    ------
    SiteError
        If the nodes' site has no place in the image.

    """
    from circuits.measuring import effects

    shown = show_images(model, images)
    node_set = nodes if isinstance(nodes, NodeSet) else features(nodes)
    site = model.site(node_set.site)
    if site.grid is None:
        raise SiteError(f"site '{site.name}' has no grid over the image: its nodes have no map")
    measured = as_metric(metric, model)
    found = effects(
        measured, node_set, model=model, images=shown.x, method="integrated", ablation=ablation or zero(),
        resolution="token", steps=steps, batch=batch,
    )  # fmt: skip
    at = list(range(len(node_set))) if chosen is None else list(chosen)
    # an effect is the change when a node goes: what falls without it, it drove
    cells = -found.values[:, at].sum(1)[:, site.prefix_tokens :].reshape(len(shown), *site.grid.shape)
    maps = cells_to_pixels(cells, site.grid, (shown.x.shape[2], shown.x.shape[3]))
    return RelevanceMaps(
        maps, f"effects of {node_set.encoder.kind}", measured.name, shown, f"{len(at)} nodes of {site.name}, to zero"
    )


def circuit_maps(
    circuit: Circuit, images: ImageSet | Tensor | ShownImages, *, steps: int = 16, batch: int = 16
) -> RelevanceMaps:
    """Return where a circuit drives its metric: the effects of its nodes at the last site that has a place.

    Every path of a circuit passes its deepest site, so effects there are counted once; those of earlier sites would be
    counted again.

    Parameters
    ----------
    circuit
        As :func:`circuits.find_circuit` returns it.
    images
        What it looks at.
    steps, batch
        Of :func:`effect_maps`.

    Raises
    ------
    SiteError
        If none of its sites has a place in the image.

    """
    wiring = circuit.wiring
    placed = [layer for layer in wiring.layers if wiring.model.site(layer.site).grid is not None]
    for layer in reversed(placed):
        members: list[int] = sorted({place[1] for place in circuit.nodes if place[0] == layer.site})
        if members:
            found = effect_maps(wiring.model, images, wiring.metric, layer, members, steps=steps, batch=batch)
            return RelevanceMaps(found.values, "circuit", found.metric, found.shown, found.note)
    raise SiteError(f"no node of the circuit of {wiring.metric.name} has a place in the image: there is no map of it")
