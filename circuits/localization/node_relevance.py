"""Relevance of nodes: what layer-wise relevance propagation says each neuron, head or feature adds to a metric."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.inputs import as_batch
from circuits.localization.lrp_rules import LrpRules, RelevanceMode
from circuits.metrics import Measurable, as_metric
from circuits.running import slices
from mechinterp.hooks import hook_site

if TYPE_CHECKING:
    from circuits.nodes import NodeSet
    from mechinterp.images.image_set import ImageSet
    from mechinterp.models.vision_model import VisionModel


def node_relevance(
    model: VisionModel,
    images: ImageSet | Float[Tensor, "image channel height width"],
    metric: Measurable,
    nodes: NodeSet,
    *,
    rules: LrpRules | None = None,
    batch: int = 16,
) -> Float[Tensor, "image token node"]:
    """Return the relevance of every node of a site at every token.

    A site's nodes, error included, add up to what arrives there: to the metric itself where no bias between the site and the
    answer takes a share, and attention's patterns are constants. An estimate, as a gradient is: nothing is changed.

    Parameters
    ----------
    model, images, metric
        What is explained.
    nodes
        From :mod:`circuits.nodes`: neurons, heads, features with their error.
    rules
        Of relevance propagation.
    batch
        Images at once.

    Raises
    ------
    SiteError
        If the site does not exist.

    """
    known, measured, site = as_batch(model, images), as_metric(metric, model), model.site(nodes.site)
    held: list[Tensor] = []

    def keep(raw: Tensor) -> Tensor:
        held[:] = [site.to_tokens(raw.detach().clone()).requires_grad_()]
        return site.from_tokens(held[0], raw.detach())

    rows = []
    handle = hook_site(model.module, site, keep)
    try:
        for part in slices(len(known.x), batch):
            with torch.enable_grad():
                # the images must ask for gradients, so that the rules are at work from the first call on
                x = known.x[part].detach().clone().requires_grad_()
                with RelevanceMode(rules):
                    outcome = measured.at(model.logits(x), torch.arange(part.start, part.stop))
                (coefficient,) = torch.autograd.grad(outcome.sum(), held)
            with torch.no_grad():
                rows.append(nodes.per_node(coefficient, nodes.split(held[0].detach())))
    finally:
        handle.remove()
    return torch.cat(rows)
