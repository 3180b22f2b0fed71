"""Run only what comes after a site, from activations that are already there.

Exact effects need thousands of forward passes that differ at one site only. Everything a model computes before that site is
skipped by putting a stub in place of every module that has finished by then. The stubs return NaN: if anything of theirs
reaches the logits (a skip connection around the site, say), the check at construction sees it, and whole forward passes are
run instead. So a tail is either proved equal to the full model, or is the full model.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mechinterp.errors import SiteError
from mechinterp.hooks import hook_site
from mechinterp.interventions import intervene
from mechinterp.models.vision_model import VisionModel
from mechinterp.sites import Site

_TOLERANCE = 1e-5


class Tail:
    """What a model computes after one site.

    Parameters
    ----------
    model
        The model.
    site
        Name of the site.
    x
        A few prepared images, on which the tail is checked against the whole model.

    Attributes
    ----------
    exact : bool
        True when only the tail is run. False when something bypasses the site: then :meth:`logits` needs the images.

    """

    def __init__(self, model: VisionModel, site: str, x: Float[Tensor, "batch channel height width"]) -> None:
        self.model = model
        self.site: Site = model.site(site)
        with torch.no_grad():
            self._raw, stubs, logits = _trace(model, self.site, x)
            self._input_shape = x.shape[1:]
            self._stubs: dict[str, tuple[int, ...]] = stubs
            self.exact = bool(stubs)
            if self.exact:
                self.exact = self._agrees(logits)

    def _agrees(self, logits: Tensor) -> bool:
        try:
            got = self.logits(self.site.to_tokens(self._raw))
        except RuntimeError:  # an in-place operation on a stub, or a shape computed from one: run the whole model
            return False
        return bool((got - logits).abs().max() <= _TOLERANCE * logits.abs().max().clamp_min(1e-12))

    def logits(
        self,
        acts_bnd: Float[Tensor, "batch token width"],
        x: Float[Tensor, "batch channel height width"] | None = None,
    ) -> Float[Tensor, "batch class"]:
        """Return the logits that the model gives when the site holds `acts_bnd`.

        Parameters
        ----------
        acts_bnd
            The site's tokens. Gradients flow if they are enabled.
        x
            The images they belong to; needed only when :attr:`exact` is false.

        Raises
        ------
        SiteError
            If the images are needed and not given.

        """
        if self.exact:
            x = torch.zeros((), device=self.model.device).expand(len(acts_bnd), *self._input_shape)
        elif x is None:
            raise SiteError(
                f"something bypasses site '{self.site.name}': its effects need whole forward passes, so pass the images"
            )
        with ExitStack() as stack:
            if self.exact:
                stack.enter_context(_stubbed(self.model.module, self._stubs, len(acts_bnd)))
            stack.enter_context(intervene(self.model, {self.site.name: lambda _: acts_bnd}))
            return self.model.logits(x)


def _trace(model: VisionModel, site: Site, x: Tensor) -> tuple[Tensor, dict[str, tuple[int, ...]], Tensor]:
    """Return the site's raw activation, shapes of what can be skipped, and the logits.

    What can be skipped are the outermost modules that finish before the site is reached and return one floating tensor
    with the batch first; others are left to run (a shape computation, say).
    """
    finished: dict[str, tuple[int, ...] | None] = {}
    calls: dict[str, int] = {}
    raw: list[Tensor] = []

    def on_leave(name: str) -> Any:
        def hook(_module: nn.Module, _args: Any, output: Any) -> None:
            calls[name] = calls.get(name, 0) + 1
            if raw and not (name == site.module and site.take == "output"):
                return
            plain = (
                isinstance(output, Tensor) and output.is_floating_point() and output.dim() > 1 and len(output) == len(x)
            )
            finished[name] = tuple(output.shape[1:]) if plain else None

        return hook

    with ExitStack() as undo:
        for name, module in model.module.named_modules():
            if name:
                undo.callback(module.register_forward_hook(on_leave(name)).remove)
        undo.callback(hook_site(model.module, site, lambda t: raw.append(t.detach().clone())).remove)
        logits = model.logits(x)
    if not raw:
        raise SiteError(f"site '{site.name}' was not reached in a forward pass")
    # a module called twice would be skipped after the site as well
    skippable = {n: s for n, s in finished.items() if s is not None and calls[n] == 1}
    return raw[0], {n: s for n, s in skippable.items() if not _inside(n, skippable)}, logits


def _inside(name: str, others: dict[str, tuple[int, ...]]) -> bool:
    parts = name.split(".")
    return any(".".join(parts[:i]) in others for i in range(1, len(parts)))


@contextmanager
def _stubbed(module: nn.Module, shapes: dict[str, tuple[int, ...]], batch: int) -> Iterator[None]:
    """Let some submodules return NaN of the right shape (one number in memory) instead of computing."""
    poison = torch.full((), float("nan"), device=next((p.device for p in module.parameters()), torch.device("cpu")))
    stubbed: list[tuple[nn.Module, Any]] = []
    try:
        for name, shape in shapes.items():
            target = module.get_submodule(name)
            result = poison.expand(batch, *shape)
            # an attribute of the instance hides the class's method and is deleted again; the class is not touched
            stubbed.append((target, target.__dict__.get("forward")))
            object.__setattr__(target, "forward", lambda *_args, _result=result, **_kwargs: _result)
        yield
    finally:
        for target, own in stubbed:
            object.__delattr__(target, "forward")
            if own is not None:
                object.__setattr__(target, "forward", own)
