"""Nodes of a circuit: what of a site's activation is changed as one piece.

An activation is taken apart as ``decode(codes) + error``; a node is one feature, several features together (a head, a
whole MLP), or the error: what the encoder did not reconstruct. Whatever nodes are changed, the rest of the activation stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mechinterp.errors import ConfigError
from mechinterp.feature_encoder import FeatureEncoder, Neurons
from mechinterp.models.vision_model import VisionModel

NodeKind = Literal["neuron", "channel", "head", "layer", "feature", "error"]


@dataclass(frozen=True, eq=False)
class Parts:
    """An activation taken apart.

    Parameters
    ----------
    codes
        The encoder's codes.
    error
        What it does not reconstruct; ``None`` for an encoder that loses nothing.

    """

    codes: Float[Tensor, "batch token feature"]
    error: Float[Tensor, "batch token width"] | None

    def __getitem__(self, rows: slice | Tensor) -> Parts:
        return Parts(self.codes[rows], None if self.error is None else self.error[rows])

    def repeat(self, times: int) -> Parts:
        """Return the whole batch several times in turn."""
        error = None if self.error is None else self.error.repeat(times, 1, 1)
        return Parts(self.codes.repeat(times, 1, 1), error)

    def towards(self, other: Parts, share: float) -> Parts:
        """Return the point at a share of the straight way to others."""
        error = None if self.error is None or other.error is None else torch.lerp(self.error, other.error, share)
        return Parts(torch.lerp(self.codes, other.codes, share), error)


@dataclass(frozen=True, eq=False)
class NodeSet:
    """The nodes of one site.

    Parameters
    ----------
    encoder
        Reads the site's features.
    members
        The features of each node; by default every feature is a node.
    kind
        What the nodes are.
    names
        One per node, without the error's; numbered by default.
    with_error
        Whether the error is a node too, the last one.

    Raises
    ------
    ConfigError
        If a node has a feature that does not exist, or there are not as many names as nodes.

    """

    encoder: FeatureEncoder
    members: tuple[tuple[int, ...], ...] = ()
    kind: NodeKind = "feature"
    names: tuple[str, ...] = ()
    with_error: bool = True

    def __post_init__(self) -> None:
        for features in self.members:
            bad = [f for f in features if not 0 <= f < self.encoder.width]
            if bad:
                raise ConfigError(
                    f"site '{self.site}' has no feature {bad[0]}: the encoder has 0 to {self.encoder.width - 1}"
                )
        if self.names and len(self.names) != self.n_features:
            raise ConfigError(
                f"{len(self.names)} names for {self.n_features} nodes of site '{self.site}': give one each"
            )

    @property
    def site(self) -> str:
        """Name of the site."""
        return self.encoder.site

    @property
    def complete(self) -> bool:
        """Whether the codes are the whole activation, so that there is no error."""
        return isinstance(self.encoder, Neurons)

    @property
    def n_features(self) -> int:
        """Number of nodes without the error."""
        return len(self.members) or self.encoder.width

    def __len__(self) -> int:
        return self.n_features + int(self.has_error)

    @property
    def has_error(self) -> bool:
        """Whether the last node is the error."""
        return self.with_error and not self.complete

    def kind_of(self, node: int) -> NodeKind:
        """Return what a node is."""
        return "error" if node >= self.n_features else self.kind

    def name_of(self, node: int) -> str:
        """Return how pages call a node."""
        if node >= self.n_features:
            return f"error of {self.site}"
        return self.names[node] if self.names else f"{self.site} {self.kind} {node}"

    @cached_property
    def owner(self) -> Tensor:
        """Which node each feature belongs to; -1 for none."""
        owner = torch.full((self.encoder.width,), -1)
        for node, features in enumerate(self.members or [(f,) for f in range(self.encoder.width)]):
            owner[list(features)] = node
        return owner

    def features_of(self, nodes: Bool[Tensor, "*some node"]) -> Bool[Tensor, "*some feature"]:
        """Return which features some nodes (given as a mask) hold."""
        owner = self.owner.to(nodes.device)
        return nodes[..., owner.clamp_min(0)] & (owner >= 0)

    def split(self, acts_bnd: Float[Tensor, "batch token width"]) -> Parts:
        """Take an activation apart."""
        codes = self.encoder.encode(acts_bnd)
        return Parts(codes, None if self.complete else acts_bnd - self.encoder.decode(codes))

    def changed(
        self, acts_bnd: Float[Tensor, "batch token width"], own: Parts, other: Parts, nodes: Bool[Tensor, "#batch node"]
    ) -> Float[Tensor, "batch token width"]:
        """Return the activation with some nodes' parts taken from another one; the rest stays as it is.

        Parameters
        ----------
        acts_bnd, own
            The activation, and the same taken apart.
        other
            Where the nodes' parts come from.
        nodes
            Which nodes, for every row or for each.

        """
        mask = self.features_of(nodes[:, : self.n_features])[:, None, :]
        if self.complete:
            return torch.where(mask, other.codes, acts_bnd)
        changed = acts_bnd + ((other.codes - own.codes) * mask) @ self.encoder.directions.to(acts_bnd)
        if self.has_error and own.error is not None and other.error is not None:
            changed = changed + (other.error - own.error) * nodes[:, -1, None, None]
        return changed

    def per_node(
        self, gradient_bnd: Float[Tensor, "batch token width"], change: Parts
    ) -> Float[Tensor, "batch token node"]:
        """Return gradient × change of every node at every token.

        Parameters
        ----------
        gradient_bnd
            Of anything, with respect to the activation.
        change
            By how much each part changes.

        """
        along = gradient_bnd if self.complete else gradient_bnd @ self.encoder.directions.to(gradient_bnd).T
        products = along * change.codes
        if self.members:
            owner = self.owner.to(products.device)
            kept = owner >= 0
            grouped = products.new_zeros(*products.shape[:2], self.n_features)
            products = grouped.index_add_(2, owner[kept], products[..., kept])
        if self.has_error and change.error is not None:
            products = torch.cat([products, (gradient_bnd * change.error).sum(-1, keepdim=True)], dim=-1)
        return products

    def size_of(self, parts: Parts) -> Float[Tensor, "batch node"]:
        """Return a signed size of every node's part: codes summed over tokens and members; the error's norm."""
        summed = parts.codes.sum(1)
        if self.members:
            owner = self.owner.to(summed.device)
            kept = owner >= 0
            summed = summed.new_zeros(len(summed), self.n_features).index_add_(1, owner[kept], summed[:, kept])
        if self.has_error and parts.error is not None:
            summed = torch.cat([summed, parts.error.flatten(1).norm(dim=1, keepdim=True)], dim=1)
        return summed

    def without_error(self) -> NodeSet:
        """Return the same nodes; the error is none of them, and stays as it is."""
        return replace(self, with_error=False)


def minus(a: Parts, b: Parts) -> Parts:
    """Return the difference of two activations taken apart."""
    return Parts(a.codes - b.codes, None if a.error is None or b.error is None else a.error - b.error)


def neurons(model: VisionModel, site: str) -> NodeSet:
    """Return every neuron (of a map: every channel) of a site."""
    place = model.site(site)
    kind: NodeKind = "channel" if place.layout in {"map", "channels_last"} else "neuron"
    return NodeSet(Neurons(site, place.width), kind=kind)


def heads(model: VisionModel, site: str, count: int | None = None) -> NodeSet:
    """Return every head of a ``hook_z`` site as a node.

    Parameters
    ----------
    model
        The model.
    site
        The input of the attention's output projection.
    count
        How many heads there are, where the site does not say.

    Raises
    ------
    ConfigError
        If the number of heads is not known, or does not divide the width.

    """
    place = model.site(site)
    n = count or getattr(place, "heads", 0)
    if not n or place.width % n:
        raise ConfigError(
            f"site '{site}' is {place.width} wide and does not say how many heads it has: give their number"
        )
    size = place.width // n
    members = tuple(tuple(range(h * size, (h + 1) * size)) for h in range(n))
    names = tuple(f"{site.removesuffix('.attn.hook_z')} head {h}" for h in range(n))
    return NodeSet(Neurons(site, place.width), members, "head", names)


def whole(model: VisionModel, site: str) -> NodeSet:
    """Return a site's whole activation as one node: an MLP, say."""
    width = model.site(site).width
    return NodeSet(Neurons(site, width), (tuple(range(width)),), "layer", (site,))


def features(
    encoder: FeatureEncoder, chosen: Sequence[int] | None = None, *, names: Sequence[str] = (), error: bool = True
) -> NodeSet:
    """Return the features of an SAE or another encoder, with its error.

    Parameters
    ----------
    encoder
        The encoder.
    chosen
        Which features are nodes; all by default. Those that are not stay as they are.
    names
        One per node.
    error
        Whether the error is a node.

    """
    members = () if chosen is None else tuple((int(f),) for f in chosen)
    return NodeSet(encoder, members, "feature", tuple(names), error)
