"""Reach a site's activation inside a running model: the one place that knows how a module hands it over."""

from __future__ import annotations

from collections.abc import Callable
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
        If the module has no such submodule, or the site hands over no tensor.

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
            return None if replacement is None else ((replacement, *args[1:]), kwargs)
        name = next((k for k, v in kwargs.items() if isinstance(v, Tensor)), None)
        if name is None:
            raise SiteError(f"site '{site.name}': module '{site.module}' is called without a tensor")
        replacement = visit(kwargs[name])
        return None if replacement is None else (args, {**kwargs, name: replacement})

    if site.take == "output":
        return target.register_forward_hook(on_output)
    return target.register_forward_pre_hook(on_input, with_kwargs=True)


def _tensor_of(value: Any, site: Site) -> Tensor:
    if isinstance(value, Tensor):
        return value
    if isinstance(value, (tuple, list)) and value and isinstance(value[0], Tensor):
        return value[0]
    hidden = getattr(value, "last_hidden_state", None)
    if isinstance(hidden, Tensor):
        return hidden
    raise SiteError(f"site '{site.name}': module '{site.module}' hands over a {type(value).__name__}, not a tensor")


def _put_back(output: Any, replacement: Tensor) -> Any:
    if isinstance(output, Tensor):
        return replacement
    if isinstance(output, (tuple, list)):
        return type(output)([replacement, *output[1:]])
    output.last_hidden_state = replacement
    return output
