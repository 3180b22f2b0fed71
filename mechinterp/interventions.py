"""Change activations inside a running model, as context managers that always undo themselves.

An *edit* is a function from the site's tokens (batch, token, width) to tokens of the same shape. The functions below make
the common ones; anything callable will do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mechinterp.errors import ShapeError, SiteError
from mechinterp.feature_encoder import FeatureEncoder
from mechinterp.hooks import hook_site
from mechinterp.models.vision_model import VisionModel
from mechinterp.sites import Site

Edit: TypeAlias = Callable[[Tensor], Tensor]


@contextmanager
def intervene(model: VisionModel, edits: Mapping[str, Edit]) -> Iterator[None]:
    """Apply edits to sites in every forward pass inside the context; undone on leaving it, after errors too.

    Parameters
    ----------
    model
        The model; its weights are not touched.
    edits
        Site name → edit of its tokens (batch, token, width). An edit may work in place: it is given a copy.

    Raises
    ------
    SiteError
        If a site does not exist; in the forward pass, if it is not reached, or reached more than once, so that its name
        does not say which activation is meant.
    ShapeError
        In the forward pass, if an edit returns another shape than it was given.

    Examples
    --------
    >>> with intervene(model, {"blocks.8.hook_resid_post": ablate(units=[3, 7])}):  # doctest: +SKIP
    ...     changed = model.logits(x)
    >>> with intervene(model, {"blocks.8.attn.hook_z[5]": ablate()}):  # one head  # doctest: +SKIP
    ...     changed = model.logits(x)

    """
    sites = {name: model.site(name) for name in edits}
    visits = dict.fromkeys(sites, 0)

    def start(_module: nn.Module, _args: Any) -> None:
        visits.update(dict.fromkeys(sites, 0))

    def end(_module: nn.Module, _args: Any, _output: Any) -> None:
        for name, n in visits.items():
            if n != 1:
                how = "was not reached" if n == 0 else f"was reached {n} times"
                raise SiteError(f"site '{name}' {how} in a forward pass of '{model.spec}': change another site")

    def on_visit(name: str) -> Callable[[Tensor], Tensor]:
        def visit(raw: Tensor) -> Tensor:
            visits[name] += 1
            return _edited(sites[name], edits[name], raw)

        return visit

    with ExitStack() as undo:
        undo.callback(model.module.register_forward_pre_hook(start).remove)
        # what heads add is computed from what they put out: hooked last, it sees that changed too
        for name, site in sorted(sites.items(), key=lambda item: item[1].take == "result"):
            undo.callback(hook_site(model.module, site, on_visit(name)).remove)
        undo.callback(model.module.register_forward_hook(end).remove)
        yield


def _edited(site: Site, edit: Edit, raw: Tensor) -> Tensor:
    """Return the site's raw tensor after an edit, in memory of its own.

    The edit gets a copy, since the tensor itself may be seen elsewhere (a residual stream), and what it returns is copied
    unless it is that copy, since the next module may work in place on it and it may belong to the caller.
    """
    own = raw.clone()
    acts_bnd = site.to_tokens(own)
    shape = acts_bnd.shape
    edited = edit(acts_bnd)
    if edited.shape != shape:
        raise ShapeError(
            f"the edit of site '{site.name}' returned shape {tuple(edited.shape)} for tokens of shape "
            f"{tuple(shape)}: return the same shape"
        )
    result = site.from_tokens(edited, raw)
    if result.stride() == own.stride() and result.untyped_storage().data_ptr() == own.untyped_storage().data_ptr():
        return result
    # in the order in memory that it had, so that the same kernels run after it and an identity changes no bit
    return torch.empty_like(raw).copy_(result)


def patch(
    value: Float[Tensor, "#batch #token #width"],
    *,
    tokens: Sequence[int] | None = None,
    units: Sequence[int] | None = None,
) -> Edit:
    """Put `value` in place of the activation, or of some tokens or units of it.

    Parameters
    ----------
    value
        Broadcastable to the whole activation (batch, token, width).
    tokens, units
        Which tokens and units to replace; all by default. Both together: these units of these tokens.

    Raises
    ------
    ShapeError
        In the forward pass, if `value` does not fit, or there is no such token or unit.

    """

    def edit(acts_bnd: Tensor) -> Tensor:
        try:
            whole = value.to(acts_bnd).expand_as(acts_bnd)
        except RuntimeError:
            raise ShapeError(
                f"a value of shape {tuple(value.shape)} does not fit an activation of shape {tuple(acts_bnd.shape)} "
                "(batch, token, width)"
            ) from None
        at_token = _chosen("token", tokens, acts_bnd.shape[1], acts_bnd.device)
        at_unit = _chosen("unit", units, acts_bnd.shape[2], acts_bnd.device)
        return torch.where(at_token[:, None] & at_unit, whole, acts_bnd)

    return edit


def _chosen(what: str, positions: Sequence[int] | None, n: int, device: torch.device) -> Bool[Tensor, " n"]:
    """Return a mask of some of `n` tokens or units, counted from 0 (or backwards from -1), or given as a mask."""
    if positions is None:
        return torch.ones(n, dtype=torch.bool, device=device)
    at = np.asarray(positions)
    if at.dtype == bool and at.shape == (n,):
        return torch.from_numpy(at).to(device)
    if at.ndim != 1 or (at.size and at.dtype.kind not in "iu"):
        raise ShapeError(f"{what}s must be given as a list of numbers from 0 to {n - 1}")
    at = at.astype(np.int64)
    outside = at[(at < -n) | (at >= n)]
    if outside.size:
        raise ShapeError(f"{what} {outside[0]} asked for, but the site has {n}: count from 0 to {n - 1}")
    mask = np.zeros(n, dtype=bool)
    mask[at] = True
    return torch.from_numpy(mask).to(device)


def ablate(
    *,
    units: Sequence[int] | None = None,
    tokens: Sequence[int] | None = None,
    mean: Float[Tensor, "#token width"] | None = None,
) -> Edit:
    """Put zero, or a mean over reference images, in place of some units or tokens.

    Parameters
    ----------
    units, tokens
        Which; all by default.
    mean
        What to put there, per token or the same for all; zero by default. Zero lies off the data at most sites: an effect
        that only zero shows is an artefact of zeroing until mean or resampled values show it too.

    """
    return patch(torch.zeros(1, 1, 1) if mean is None else mean.unsqueeze(0), tokens=tokens, units=units)


def add(direction: Float[Tensor, " width"], scale: float = 1.0, *, tokens: Sequence[int] | None = None) -> Edit:
    """Add ``scale * direction`` to every token, or to some.

    Parameters
    ----------
    direction
        In the site's own scale.
    scale
        How much of it.
    tokens
        Which tokens; all by default.

    Raises
    ------
    ShapeError
        In the forward pass, if the direction does not fit the site, or there is no such token.

    """

    def edit(acts_bnd: Tensor) -> Tensor:
        if direction.shape != acts_bnd.shape[2:]:
            raise ShapeError(
                f"a direction of shape {tuple(direction.shape)} does not fit a site {acts_bnd.shape[2]} wide"
            )
        step = scale * direction.to(acts_bnd)
        if tokens is None:
            return acts_bnd + step
        at_token = _chosen("token", tokens, acts_bnd.shape[1], acts_bnd.device)
        return torch.where(at_token[:, None], acts_bnd + step, acts_bnd)

    return edit


def replace_by_features(
    encoder: FeatureEncoder, change: Callable[[Tensor], Tensor] | None = None, *, keep_error: bool = True
) -> Edit:
    """Run the site through an encoder, change its codes, and put the result back.

    Parameters
    ----------
    encoder
        SAE or any other encoder of this site.
    change
        From codes (batch, token, feature) to codes; ``None`` leaves them.
    keep_error
        Add back what the encoder did not reconstruct, so that without a change the model's output stays as it is. Without
        it, the reconstruction alone goes on.

    Raises
    ------
    ShapeError
        In the forward pass, if the encoder reads another width, or `change` returns another shape.

    """

    def edit(acts_bnd: Tensor) -> Tensor:
        codes = encoder.encode(acts_bnd)
        # a copy, so that a change made in place does not change what it is compared with
        changed = codes if change is None else change(codes.clone())
        if changed.shape != codes.shape:
            raise ShapeError(f"the change of codes of shape {tuple(codes.shape)} returned {tuple(changed.shape)}")
        if not keep_error:
            return encoder.decode(changed).to(acts_bnd)
        if change is None:
            return acts_bnd
        return acts_bnd + (changed - codes) @ encoder.directions.to(codes)

    return edit
