"""Reach a site's activation inside a running model: the one place that knows how a module hands it over."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import count
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from mechinterp.attention import Tap, tap_inside
from mechinterp.errors import SiteError
from mechinterp.sites import Site


class Handle(Protocol):
    """Undoes a hook."""

    def remove(self) -> None:
        """Undo it."""


Visit = Callable[[Tensor], Tensor | None]


def hook_site(module: nn.Module, site: Site, visit: Visit) -> Handle:
    """Call `visit` with the raw tensor of a site in every forward pass until the handle is removed.

    Parameters
    ----------
    module
        The model's module.
    site
        Where to look.
    visit
        Gets the raw tensor; what it returns, unless ``None``, takes the tensor's place.

    Returns
    -------
    Handle
        Its ``remove()`` undoes the hook.

    Raises
    ------
    SiteError
        If the module has no such submodule, or (in the forward pass) the site hands over no tensor, or would be changed
        where a skip connection carries the old value on.

    """
    if site.bypassed:
        visit = _only_read(site, visit)
    try:
        target = module.get_submodule(site.module)
        if site.take == "pattern":
            return tap_inside(target, Tap("pattern", visit))
        if site.take == "result":
            return _hook_result(module, site, visit)
        if site.weight is not None:
            return tap_inside(target, Tap(site.take, visit, _tensor_named(module, site.weight)))
    except AttributeError:
        raise SiteError(f"site '{site.name}': the model has no module '{site.module}'") from None
    if site.call is None:
        return _hook_module(target, site, visit)
    # the module runs several times in a forward pass: only one of its calls is the site
    calls: Iterator[int] = iter(())

    def start(_module: nn.Module, _args: Any) -> None:
        nonlocal calls
        calls = iter(count())

    def visit_one(raw: Tensor) -> Tensor | None:
        return visit(raw) if next(calls, None) == site.call else None

    return _Handles(module.register_forward_pre_hook(start), _hook_module(target, site, visit_one))


def _only_read(site: Site, visit: Visit) -> Visit:
    def read(raw: Tensor) -> None:
        if visit(raw) is not None:
            raise SiteError(
                f"site '{site.name}' can be read, not changed: a skip connection carries the stream past it; change "
                f"hook_resid_pre, hook_attn_out or hook_resid_post of the block instead"
            )

    return read


class _Handles:
    def __init__(self, *handles: Handle) -> None:
        self._handles = handles

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()


def _hook_module(target: nn.Module, site: Site, visit: Visit) -> RemovableHandle:
    """Visit a module's output or input."""

    def on_output(_module: nn.Module, _args: Any, output: Any) -> Any:
        replacement = visit(_tensor_of(output, site))
        return None if replacement is None else _put_back(output, replacement)

    def on_input(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args:
            replacement = visit(_tensor_of(args[0], site))
            return None if replacement is None else ((_put_back(args[0], replacement), *args[1:]), kwargs)
        name = _first_keyword(target, kwargs, site)
        replacement = visit(_tensor_of(kwargs[name], site))
        return None if replacement is None else (args, {**kwargs, name: _put_back(kwargs[name], replacement)})

    if site.take == "output":
        return target.register_forward_hook(on_output)
    return target.register_forward_pre_hook(on_input, with_kwargs=True)


def _hook_result(module: nn.Module, site: Site, visit: Visit) -> Handle:
    """Visit what each head adds to a module's output: the heads' outputs through their part of the output projection.

    A change is added to the output, so that an unchanged result leaves it as it is, rounding included.
    """
    if site.source is None or site.weight is None:
        raise SiteError(f"site '{site.name}' does not say from which heads and weights its result is computed")
    source, weight = site.source, _tensor_named(module, site.weight)
    heads: list[Tensor] = []

    def keep(raw: Tensor) -> None:
        heads[:] = [source.split_heads(source.to_tokens(raw))]

    def change(out: Tensor) -> Tensor | None:
        # (model, head × width) -> (head, width, model)
        per_head = weight.reshape(len(weight), source.heads, -1).permute(1, 2, 0)
        if site.scale is not None:
            per_head = per_head * _tensor_named(module, site.scale)
        result = torch.einsum("bnhd,hdm->bnhm", heads.pop(), per_head).flatten(2)
        changed = visit(result)
        if changed is None:
            return None
        return out + (changed - result).reshape(*result.shape[:2], source.heads, -1).sum(2)

    return _Handles(
        hook_site(module, source, keep), hook_site(module, replace(site, take="output", weight=None), change)
    )


def _tensor_named(module: nn.Module, path: str) -> Tensor:
    owner, _, name = path.rpartition(".")
    tensor = getattr(module.get_submodule(owner), name)
    if not isinstance(tensor, Tensor):
        raise SiteError(f"the model's '{path}' is no weight")
    return tensor


def _first_keyword(target: nn.Module, kwargs: Mapping[str, Any], site: Site) -> str:
    """Return the keyword that is the first parameter of the module's ``forward``: callers may write them in any order."""
    for name in (*inspect.signature(target.forward).parameters, *kwargs):
        if isinstance(kwargs.get(name), Tensor):
            return name
    raise SiteError(f"site '{site.name}': module '{site.module}' is called without a tensor")


def _tensor_of(value: Any, site: Site) -> Tensor:
    if isinstance(value, Tensor):
        return value
    if isinstance(value, (tuple, list)) and value and isinstance(value[0], Tensor):
        return value[0]
    for name in _MAIN_FIELDS:
        found = getattr(value, name, None)
        if isinstance(found, Tensor):
            return found
    raise SiteError(f"site '{site.name}': module '{site.module}' hands over a {type(value).__name__}, not a tensor")


def _put_back(value: Any, replacement: Tensor) -> Any:
    """Return `value` with its main tensor replaced; the value itself, which others may hold, is left as it is."""
    if isinstance(value, Tensor):
        return replacement
    if isinstance(value, (tuple, list)):
        rest = [replacement, *value[1:]]
        return type(value)(*rest) if hasattr(value, "_fields") else type(value)(rest)
    changed = copy.copy(value)
    setattr(changed, next(n for n in _MAIN_FIELDS if isinstance(getattr(value, n, None), Tensor)), replacement)
    return changed


# Where a Hugging Face output keeps the tensor that the next module is given.
_MAIN_FIELDS = ("logits", "last_hidden_state")
