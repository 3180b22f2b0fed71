"""Change activations inside a running model, as context managers that always undo themselves.

An *edit* is a function from the site's tokens (batch, token, width) to tokens of the same shape. The functions below make
the common ones; anything callable will do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from mechinterp.errors import ShapeError
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
        Site name → edit of its tokens (batch, token, width).

    Raises
    ------
    SiteError
        If a site does not exist.
    ShapeError
        If an edit returns another shape than it was given.

    Examples
    --------
    >>> with intervene(model, {"blocks.8.hook_resid_post": ablate(units=[3, 7])}):  # doctest: +SKIP
    ...     changed = model.logits(x)

    """
    with ExitStack() as undo:
        for name, edit in edits.items():
            site = model.site(name)
            undo.callback(hook_site(model.module, site, _on_tokens(site, edit)).remove)
        yield


def _on_tokens(site: Site, edit: Edit) -> Callable[[Tensor], Tensor]:
    def visit(raw: Tensor) -> Tensor:
        acts_bnd = site.to_tokens(raw)
        edited = edit(acts_bnd)
        if edited.shape != acts_bnd.shape:
            raise ShapeError(
                f"the edit of site '{site.name}' returned shape {tuple(edited.shape)} for tokens of shape "
                f"{tuple(acts_bnd.shape)}: return the same shape"
            )
        return site.from_tokens(edited, raw)

    return visit


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
        Which tokens and units to replace; all by default.

    """

    def edit(acts_bnd: Tensor) -> Tensor:
        whole = value.to(acts_bnd).expand_as(acts_bnd)
        if tokens is None and units is None:
            return whole
        chosen = torch.zeros_like(acts_bnd, dtype=torch.bool)
        at_token = slice(None) if tokens is None else torch.as_tensor(list(tokens))
        at_unit = slice(None) if units is None else torch.as_tensor(list(units))
        part = torch.zeros(acts_bnd.shape[1:], dtype=torch.bool, device=acts_bnd.device)
        rows = part[at_token].clone()
        rows[:, at_unit] = True
        part[at_token] = rows
        chosen[:] = part
        return torch.where(chosen, whole, acts_bnd)

    return edit


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

    """

    def edit(acts_bnd: Tensor) -> Tensor:
        step = scale * direction.to(acts_bnd)
        if tokens is None:
            return acts_bnd + step
        changed = acts_bnd.clone()
        changed[:, list(tokens)] += step
        return changed

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

    """

    def edit(acts_bnd: Tensor) -> Tensor:
        codes = encoder.encode(acts_bnd)
        changed = codes if change is None else change(codes)
        if not keep_error:
            return encoder.decode(changed).to(acts_bnd)
        if change is None:
            return acts_bnd
        return acts_bnd + (changed - codes) @ encoder.directions.to(codes)

    return edit
