"""A circuit of nodes run the plain way: the whole model, an edit at every site, activations put together from their codes.

It shares no arithmetic with :class:`circuits.node_circuits.NodeCircuitRunner`: what a curve says at a size can be held
against it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.corrupting import Corrupted
from circuits.node_circuits import Kept
from circuits.nodes import NodeSet, Parts
from circuits.wiring import Wiring
from mechinterp.errors import ConfigError
from mechinterp.interventions import Edit, intervene


def direct_rerun(wiring: Wiring, corrupted: Corrupted, kept: Kept) -> Float[Tensor, " image"]:
    """Return the metric of every image with some nodes alone, all others replaced.

    Parameters
    ----------
    wiring
        The nodes; of every site all features must be nodes of their own, since what is no node is not put back here.
    corrupted
        The batch in both runs.
    kept
        The circuit's nodes.

    Raises
    ------
    ConfigError
        If a node has several features, or an error is no node.

    """
    for layer in wiring.layers:
        if layer.members or not (layer.complete or layer.has_error):
            raise ConfigError(
                f"site '{layer.site}' has nodes of several features or no error node: give all its features"
            )
    edits = {
        layer.site: _edit(layer, corrupted.replaced.parts[layer.site], kept.get(layer.site, ()))
        for layer in wiring.layers
    }
    first = corrupted.rows.start
    with torch.no_grad(), intervene(wiring.model, edits):
        logits = wiring.model.logits(corrupted.clean.x)
    return wiring.metric.at(logits, torch.arange(first, first + len(logits), device=logits.device))


def _edit(layer: NodeSet, replaced: Parts, nodes: Sequence[int]) -> Edit:
    features = [n for n in nodes if n < layer.n_features]

    def edit(arriving: Tensor) -> Tensor:
        codes = layer.encoder.encode(arriving)
        put = replaced.codes.clone()
        put[:, :, features] = codes[:, :, features]
        if layer.complete or replaced.error is None:
            return put
        error = arriving - layer.encoder.decode(codes) if layer.n_features in nodes else replaced.error
        return layer.encoder.decode(put) + error

    return edit
