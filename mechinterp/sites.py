"""A site: a named place in a model whose activation is captured or changed, always seen as tokens."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from mechinterp.errors import SiteError
from mechinterp.token_grid import TokenGrid

Layout = Literal["tokens", "map", "channels_last", "vector"]


@dataclass(frozen=True)
class Site:
    """A named place in a model.

    Parameters
    ----------
    name
        TransformerLens name for ViT blocks (``blocks.3.hook_resid_post``), ``stages.2`` for CNN stages, otherwise
        the module's dotted path.
    module
        Dotted path of the module that is hooked.
    take
        Whether the activation is the module's output or its (first) input. The next module may work in place on it:
        who keeps the tensor beyond the hook takes a copy there.
    layout
        How the raw tensor is laid out: ``tokens`` (batch, token, width), ``map`` (batch, width, row, column),
        ``channels_last`` (batch, row, column, width), ``vector`` (batch, width).
    width
        Number of neurons.
    tokens
        Number of tokens for one image, prefix tokens included.
    prefix_tokens
        Leading tokens that are no patches: CLS, distillation, registers.
    grid
        Where the other tokens lie in the input image; ``None`` when they have no place.

    """

    name: str
    module: str
    take: Literal["output", "input"]
    layout: Layout
    width: int
    tokens: int
    prefix_tokens: int = 0
    grid: TokenGrid | None = None

    def to_tokens(self, raw: Tensor) -> Float[Tensor, "batch token width"]:
        """View the raw tensor of this site as (batch, token, width); cells of a map in row-major order.

        Raises
        ------
        SiteError
            If the tensor does not have the site's layout.

        """
        if raw.dim() != {"tokens": 3, "map": 4, "channels_last": 4, "vector": 2}[self.layout]:
            raise SiteError(f"site '{self.name}' gave a tensor of shape {tuple(raw.shape)}, not a {self.layout}")
        match self.layout:
            case "tokens":
                return raw
            case "map":
                return raw.flatten(2).transpose(1, 2)
            case "channels_last":
                return raw.flatten(1, 2)
            case "vector":
                return raw.unsqueeze(1)

    def from_tokens(self, acts_bnd: Float[Tensor, "batch token width"], raw: Tensor) -> Tensor:
        """Undo :meth:`to_tokens`; `raw` gives the shape of one image, its dtype and device."""
        acts = acts_bnd.to(raw)
        match self.layout:
            case "tokens":
                return acts
            case "map":
                return acts.transpose(1, 2).reshape(len(acts), raw.shape[1], *raw.shape[2:]).contiguous()
            case "channels_last":
                return acts.reshape(len(acts), *raw.shape[1:])
            case "vector":
                return acts.squeeze(1)

    def renamed(self, name: str) -> Site:
        """Return the same place under another name."""
        return replace(self, name=name)
