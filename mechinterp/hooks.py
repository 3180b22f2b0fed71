"""Reach a site's activation inside a running model: the one place that knows how a module hands it over."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from mechinterp.errors import SiteError
from mechinterp.sites import Site


def hook_site(module: nn.Module, site: Site, visit: Callable[[Tensor], Tensor | None]) -> RemovableHandle:
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
    RemovableHandle
        Its ``remove()`` undoes the hook.

    Raises
    ------
    SiteError
        If the module has no such submodule, or (in the forward pass) the site hands over no tensor.

    """
    try:
        target = module.get_submodule(site.module)
    except AttributeError:
        raise SiteError(f"site '{site.name}': the model has no module '{site.module}'") from None

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
