"""Run only what comes after a site, from activations that are already there.

Exact effects need thousands of forward passes that differ at one site only. Everything a model computes before that site is
skipped by putting a stub in place of every module that has finished by then. The stubs return NaN, and the images are NaN:
if anything of them reaches the logits (a skip connection around the site, say), the check at construction sees it, and whole
forward passes are run instead. So a tail is either proved equal to the full model, or is the full model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mechinterp.errors import ShapeError, SiteError
from mechinterp.hooks import hook_site
from mechinterp.models.vision_model import VisionModel
from mechinterp.sites import Site

_TOLERANCE = 1e-5
_WAYS = ((torch.channels_last, True), (torch.contiguous_format, True), (torch.contiguous_format, False))


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

    Raises
    ------
    SiteError
        If the site does not exist, is not reached, or is reached more than once in a forward pass.

    """

    def __init__(self, model: VisionModel, site: str, x: Float[Tensor, "batch channel height width"]) -> None:
        self.model = model
        self.site: Site = model.site(site)
        with torch.no_grad():
            trace = _trace(model, self.site, x)
            self._stubs = trace.stubs
            self._image = _Stub(tuple(x.shape[1:]), x.dtype, model.device)
            # Tokens lie in memory as a channels-last map does: handed on like that they need no transposed copy, and pooling
            # is several times faster. An expanded number takes no memory. Models that cannot work on such tensors (views of
            # a fixed layout, in-place work on a stub) get plain ones.
            ways = _WAYS if self.site.layout == "map" else _WAYS[1:]
            for self._memory_format, self._expanded in ways:
                self.exact = self._agrees(trace)
                if self.exact:
                    break

    def _agrees(self, trace: _Trace) -> bool:
        # one row more than the trace had: what depends on the number of images must not be frozen in a stub's shape
        acts = self.site.to_tokens(torch.cat([trace.raw, trace.raw[:1]]))
        expected = torch.cat([trace.logits, trace.logits[:1]])
        try:
            got = self._run_tail(acts)
        except Exception:  # noqa: BLE001  whatever a model's own code raises when it is fed a stub: it cannot be skipped
            return False
        return got.shape == expected.shape and bool(
            (got - expected).abs().max() <= _TOLERANCE * expected.abs().max().clamp_min(1e-12)
        )

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
        ShapeError
            If the activations are not the site's, or not as many as the images.

        """
        expected = (self.site.tokens, self.site.width)
        if acts_bnd.dim() != 3 or tuple(acts_bnd.shape[1:]) != expected:
            raise ShapeError(
                f"activations of shape {tuple(acts_bnd.shape)} are none of site '{self.site.name}': it has {expected[0]} "
                f"tokens {expected[1]} wide"
            )
        if self.exact:
            return self._run_tail(acts_bnd)
        if x is None:
            raise SiteError(
                f"something bypasses site '{self.site.name}': its effects need whole forward passes, so pass the images"
            )
        if len(x) != len(acts_bnd):
            raise ShapeError(f"activations of {len(acts_bnd)} images but {len(x)} images: pass those they belong to")
        with self._holding(acts_bnd):
            return self.model.logits(x)

    def _run_tail(self, acts_bnd: Tensor) -> Tensor:
        n = len(acts_bnd)
        with _stubbed(self.model.module, self._stubs, n, expanded=self._expanded), self._holding(acts_bnd):
            return self.model.logits(self._image.filled(n, expanded=self._expanded))

    @contextmanager
    def _holding(self, acts_bnd: Tensor) -> Iterator[None]:
        def visit(raw: Tensor) -> Tensor:
            # a copy: the next module may work in place, and the caller's activations are not the model's to change
            if self._memory_format is torch.channels_last:
                own = acts_bnd.to(raw).clone(memory_format=torch.contiguous_format)
                return own.mT.reshape(len(own), *raw.shape[1:])  # a view: the tokens are the map, channels last
            return self.site.from_tokens(acts_bnd, raw).clone(memory_format=torch.contiguous_format)

        handle = hook_site(self.model.module, self.site, visit)
        try:
            yield
        finally:
            handle.remove()


@dataclass(frozen=True)
class _Stub:
    """What stands in for a tensor that is not computed: the shape of one image's part, filled with NaN."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    def filled(self, batch: int, *, expanded: bool) -> Tensor:
        one = torch.full((), float("nan"), dtype=self.dtype, device=self.device).expand(batch, *self.shape)
        return one if expanded else one.contiguous()


@dataclass(frozen=True)
class _Trace:
    """The site's raw activation, what can be skipped, and the logits of one forward pass."""

    raw: Tensor
    stubs: dict[str, _Stub]
    logits: Tensor


def _trace(model: VisionModel, site: Site, x: Tensor) -> _Trace:
    """Run the whole model once and note what has finished before the site is reached.

    What can be skipped are the outermost modules that finish by then, are called once, and return one floating tensor with
    the batch first; others are left to run (a shape computation, say).
    """
    finished: dict[str, _Stub | None] = {}
    calls: dict[str, int] = {}
    raw: list[Tensor] = []

    def on_leave(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _args: Any, output: Any) -> None:
            calls[name] = calls.get(name, 0) + 1
            if raw and not (name == site.module and site.take == "output"):
                return
            plain = (
                isinstance(output, Tensor) and output.is_floating_point() and output.dim() > 1 and len(output) == len(x)
            )
            finished[name] = _Stub(tuple(output.shape[1:]), output.dtype, output.device) if plain else None

        return hook

    with ExitStack() as undo:
        for name, module in model.module.named_modules():
            if name:
                undo.callback(module.register_forward_hook(on_leave(name)).remove)
        undo.callback(hook_site(model.module, site, lambda t: raw.append(t.detach().clone())).remove)
        logits = model.logits(x)
    if len(raw) != 1:
        how = "was not reached" if not raw else f"was reached {len(raw)} times"
        raise SiteError(f"site '{site.name}' {how} in a forward pass of '{model.spec}': take another site")
    # a module called twice would be skipped after the site as well
    skippable = {n: s for n, s in finished.items() if s is not None and calls[n] == 1}
    return _Trace(raw[0], {n: s for n, s in skippable.items() if not _inside(n, skippable)}, logits)


def _inside(name: str, others: dict[str, _Stub]) -> bool:
    parts = name.split(".")
    return any(".".join(parts[:i]) in others for i in range(1, len(parts)))


@contextmanager
def _stubbed(module: nn.Module, stubs: dict[str, _Stub], batch: int, *, expanded: bool = True) -> Iterator[None]:
    """Let some submodules return NaN of the right shape instead of computing."""
    stubbed: list[tuple[nn.Module, Any]] = []
    try:
        for name, stub in stubs.items():
            target = module.get_submodule(name)
            # an attribute of the instance hides the class's method and is deleted again; the class is not touched
            stubbed.append((target, target.__dict__.get("forward")))
            object.__setattr__(
                target,
                "forward",
                lambda *_args, _stub=stub, **_kwargs: _stub.filled(batch, expanded=expanded),
            )
        yield
    finally:
        for target, own in stubbed:
            object.__delattr__(target, "forward")
            if own is not None:
                object.__setattr__(target, "forward", own)
