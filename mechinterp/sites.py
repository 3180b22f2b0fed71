"""A site: a named place in a model whose activation is captured or changed, always seen as tokens."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from mechinterp.errors import SiteError
from mechinterp.token_grid import TokenGrid

Layout = Literal["tokens", "map", "channels_last", "vector", "pattern"]
Take = Literal["output", "input", "pattern", "result"]
_RANKS: dict[Layout, tuple[int, ...]] = {
    "tokens": (3,),
    "map": (4, 5),
    "channels_last": (4, 5),
    "vector": (2,),
    "pattern": (4,),
}


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
        Whether the activation is the module's output or its (first) input; the ``pattern`` of the attention that it
        computes; or the ``result``: what each head adds to the module's output. The next module may work in place on it:
        who keeps the tensor beyond the hook takes a copy there.
    layout
        How the raw tensor is laid out: ``tokens`` (batch, token, width), ``map`` (batch, width, row, column) or (batch,
        width, depth, row, column), ``channels_last`` (batch, row, column, width) or with the depth before the row,
        ``vector`` (batch, width), ``pattern`` (batch, head, query, key): the queries are its tokens.
    width
        Number of neurons.
    tokens
        Number of tokens for one image, prefix tokens included.
    prefix_tokens
        Leading tokens that are no patches: CLS, distillation, registers.
    grid
        Where the other tokens lie in the input image; ``None`` when they have no place.
    heads
        Number of attention heads side by side in the width; 0 where it is not divided into heads.
    columns
        ``[start, stop)`` of the raw width that is meant: the queries in a packed projection, one head; ``None``: all.
    call
        Which call of the module in a forward pass, counted from 0; ``None`` where it is called once.
    weight
        Dotted path of a weight, for ``input`` and ``output``: what is meant is that of the linear map that the module
        computes with it without calling a submodule. For ``result``: the output projection.
    scale
        For ``result``: dotted path of the factors that the projection's output is multiplied by (layer scale), if any.
    source
        For ``result``: the site of the heads' outputs that the projection reads.

    """

    name: str
    module: str
    take: Take
    layout: Layout
    width: int
    tokens: int
    prefix_tokens: int = 0
    grid: TokenGrid | None = None
    heads: int = 0
    columns: tuple[int, int] | None = None
    call: int | None = None
    weight: str | None = None
    scale: str | None = None
    source: Site | None = None

    @property
    def bypassed(self) -> bool:
        """Whether a skip connection carries the stream past this place too: it can be read, but not changed.

        Between attention and MLP the stream is an expression of the block's own code; what a hook reaches is the input of
        the norm before the MLP, and a change there would leave the skip connection as it was.
        """
        return self.take == "input" and self.name.endswith("hook_resid_mid")

    def to_tokens(self, raw: Tensor) -> Float[Tensor, "batch token width"]:
        """View the raw tensor of this site as (batch, token, width); cells of a map in row-major order.

        Raises
        ------
        SiteError
            If the tensor does not have the site's layout.

        """
        whole = self._whole(raw)
        return whole if self.columns is None else whole[..., self.columns[0] : self.columns[1]]

    def from_tokens(self, acts_bnd: Float[Tensor, "batch token width"], raw: Tensor) -> Tensor:
        """Undo :meth:`to_tokens`; `raw` gives the shape of one image, its dtype, device, and what is not in the columns."""
        acts = acts_bnd.to(raw)
        if self.columns is not None:
            whole = self._whole(raw)
            acts = torch.cat([whole[..., : self.columns[0]], acts, whole[..., self.columns[1] :]], dim=-1)
        match self.layout:
            case "tokens":
                return acts
            case "map":
                return acts.transpose(1, 2).reshape(len(acts), raw.shape[1], *raw.shape[2:]).contiguous()
            case "channels_last":
                return acts.reshape(len(acts), *raw.shape[1:])
            case "vector":
                return acts.squeeze(1)
            case "pattern":
                split = acts.reshape(len(acts), -1, raw.shape[1], raw.shape[3])
                return split.transpose(1, 2).contiguous()

    def _whole(self, raw: Tensor) -> Tensor:
        if raw.dim() not in _RANKS[self.layout]:
            raise SiteError(f"site '{self.name}' gave a tensor of shape {tuple(raw.shape)}, not a {self.layout}")
        match self.layout:
            case "tokens":
                return raw
            case "map":
                return raw.flatten(2).transpose(1, 2)
            case "channels_last":
                return raw.flatten(1, -2)
            case "vector":
                return raw.unsqueeze(1)
            case "pattern":
                return raw.transpose(1, 2).flatten(2)

    def split_heads(self, acts_bnd: Float[Tensor, "batch token width"]) -> Float[Tensor, "batch a b c"]:
        """View tokens head by head, as TransformerLens has them.

        Returns
        -------
        Tensor
            (batch, token, head, width of a head); for a pattern (batch, head, query, key).

        Raises
        ------
        SiteError
            If the site has no heads.

        """
        split = acts_bnd.reshape(*acts_bnd.shape[:2], self._heads(), -1)
        return split.transpose(1, 2) if self.layout == "pattern" else split

    def join_heads(self, acts: Float[Tensor, "batch a b c"]) -> Float[Tensor, "batch token width"]:
        """Undo :meth:`split_heads`."""
        self._heads()
        return (acts.transpose(1, 2) if self.layout == "pattern" else acts).flatten(2)

    def head(self, index: int) -> Site:
        """Return the site of one head alone, named ``NAME[index]``.

        Raises
        ------
        SiteError
            If the site has no such head.

        """
        units = self.head_units([index])
        start = units[0] + (self.columns[0] if self.columns else 0)
        return replace(
            self, name=f"{self.name}[{index}]", width=len(units), heads=1, columns=(start, start + len(units))
        )

    def head_units(self, heads: Iterable[int]) -> list[int]:
        """Return the units of some heads, to be given to an edit that takes units.

        Raises
        ------
        SiteError
            If the site has no such head.

        """
        n = self._heads()
        per_head = self.width // n
        units: list[int] = []
        for head in heads:
            if not 0 <= head < n:
                raise SiteError(f"site '{self.name}' has no head {head}: it has {n}, counted from 0")
            units.extend(range(head * per_head, (head + 1) * per_head))
        return units

    def _heads(self) -> int:
        if not self.heads:
            raise SiteError(f"site '{self.name}' is not divided into heads: take hook_z, hook_pattern or hook_result")
        return self.heads

    def renamed(self, name: str) -> Site:
        """Return the same place under another name."""
        return replace(self, name=name)

    def to_json(self) -> dict[str, Any]:
        """Return the site as plain JSON; what an ordinary site does not have is left out."""
        raw: dict[str, Any] = {
            "name": self.name,
            "module": self.module,
            "take": self.take,
            "layout": self.layout,
            "width": self.width,
            "tokens": self.tokens,
            "prefix_tokens": self.prefix_tokens,
            "grid": None if self.grid is None else self.grid.to_json(),
        }
        special = {
            "heads": self.heads or None,
            "columns": None if self.columns is None else list(self.columns),
            "call": self.call,
            "weight": self.weight,
            "scale": self.scale,
            "source": None if self.source is None else self.source.to_json(),
        }
        return raw | {name: value for name, value in special.items() if value is not None}

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Site:
        """Undo :meth:`to_json`."""
        grid, columns, source = raw["grid"], raw.get("columns"), raw.get("source")
        return cls(
            **{
                **raw,
                "grid": None if grid is None else TokenGrid.from_json(grid),
                "columns": None if columns is None else (int(columns[0]), int(columns[1])),
                "source": None if source is None else cls.from_json(source),
            }
        )
