r"""Hold attention patterns, normalisation and gates at what they were, so that the rest of a model is linear.

A change of an activation acts on a later one along two ways: through the values that attention moves, and through the
patterns that say where to. With the patterns and the denominators of normalisation held at those of the unchanged run [1]_,
only the first remains; with every non-linearity's gate held too, the model is an affine function of any of its activations,
and an edge's attribution is exactly what changing its source does.

The calls are caught where they reach torch, so a model need not be known: ``scaled_dot_product_attention``, ``softmax``,
``layer_norm``, ``group_norm``, ``rms_norm``, and the activation functions.

References
----------
.. [1] Ameisen et al. Circuit tracing: revealing computational graphs in language models. 2025, "attribution graphs".

"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from mechinterp.attention import attention_arguments, attention_pattern
from mechinterp.errors import SiteError

Frozen = Literal["attention", "norm", "gates"]
LIVE: frozenset[Frozen] = frozenset()

_ATTENTION = {functional.scaled_dot_product_attention}
_SOFTMAX = {functional.softmax, torch.softmax, Tensor.softmax}
_NORMS = {functional.layer_norm, functional.group_norm, functional.rms_norm}
_GATES = {
    functional.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_, functional.gelu, functional.silu,
    functional.leaky_relu, functional.hardswish, functional.relu6, functional.elu,
}  # fmt: skip


@dataclass(eq=False)
class FrozenCalls:
    """What a model's attention, normalisation and gates were in one batch.

    Parameters
    ----------
    what
        Which of them are held.

    """

    what: frozenset[Frozen]
    calls: list[tuple[str, Tensor]] = field(default_factory=list)

    @property
    def counts(self) -> dict[str, int]:
        """How many calls of each kind are held: none of a kind means that the model has none that could be caught."""
        return {kind: sum(name == kind for name, _ in self.calls) for kind in sorted(self.what)}

    def of_image(self, image: int) -> FrozenCalls:
        """Return what was noted of one image of the batch."""
        return FrozenCalls(self.what, [(kind, held[image : image + 1]) for kind, held in self.calls])

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Note the calls of the forward pass inside; run the unchanged model in it, once."""
        self.calls.clear()
        if not self.what:
            yield
            return
        with _Mode(self, None):
            yield

    @contextmanager
    def replaying(self, repeats: int = 1) -> Iterator[None]:
        """Hold the calls of every forward pass inside at what was noted.

        Parameters
        ----------
        repeats
            How often the batch holds all images, one whole round after another.

        """
        if not self.what:
            yield
            return
        with _Mode(self, repeats):
            yield


class _Mode(TorchFunctionMode):
    """Catch the calls; record (`repeats` is ``None``) or replay them in order."""

    def __init__(self, frozen: FrozenCalls, repeats: int | None) -> None:
        super().__init__()
        self.frozen, self.repeats, self.next = frozen, repeats, 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Pass on every call that is not held."""
        kwargs = kwargs or {}
        if func is functional.multi_head_attention_forward and "attention" in self.frozen.what:
            raise SiteError(
                "this model attends by torch.nn.MultiheadAttention, whose pattern cannot be held: leave attention live"
            )
        for kind, functions, hold in _HOLDS:
            if kind in self.frozen.what and func in functions:
                return hold(self, func, args, kwargs)
        return func(*args, **kwargs)

    def take(self, kind: str, make: Callable[[], Tensor]) -> Tensor:
        """Return the held tensor of this call."""
        if self.repeats is None:
            with torch.no_grad():
                made = make().detach()
            self.frozen.calls.append((kind, made))
            return made
        noted = self.frozen.calls
        if not noted:
            raise SiteError("nothing was recorded to be held: run the unchanged images first")
        name, held = noted[self.next % len(noted)]
        self.next += 1
        if name != kind:
            raise SiteError(
                f"the model made other calls than when its {name} was recorded: it branches, and cannot be frozen"
            )
        return held if self.repeats == 1 else held.repeat(self.repeats, *(1,) * (held.dim() - 1))


def _hold_attention(mode: _Mode, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    query, key, value, given = attention_arguments(args, kwargs)
    pattern = mode.take("attention", lambda: attention_pattern(query, key, **given))
    moved: Tensor = pattern @ value
    return moved


def _hold_softmax(mode: _Mode, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    if (args[0] if args else kwargs["input"]).dim() < 3:  # over classes, not over tokens
        return cast(Tensor, func(*args, **kwargs))
    return mode.take("attention", lambda: func(*args, **kwargs))


def _hold_norm(mode: _Mode, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """Normalise with the recorded spread: centring stays live, since it is linear."""
    x = args[0] if args else kwargs["input"]
    names = {
        functional.layer_norm: ("normalized_shape", "weight", "bias", "eps"),
        functional.group_norm: ("num_groups", "weight", "bias", "eps"),
        functional.rms_norm: ("normalized_shape", "weight", "eps"),
    }[func]
    given = dict(zip(names, args[1:], strict=False)) | {n: v for n, v in kwargs.items() if n != "input"}
    grouped = x
    if func is functional.group_norm:
        grouped = x.reshape(len(x), given["num_groups"], -1)
        axes: tuple[int, ...] = (2,)
    else:
        axes = tuple(range(-len(given["normalized_shape"]), 0))
    centred = grouped if func is functional.rms_norm else grouped - grouped.mean(axes, keepdim=True)
    eps = given.get("eps")
    eps = (torch.finfo(x.dtype).eps if func is functional.rms_norm else 1e-5) if eps is None else eps
    inverse = mode.take("norm", lambda: (centred.square().mean(axes, keepdim=True) + eps).rsqrt())
    out: Tensor = (centred * inverse).reshape(x.shape)
    shape = (1, -1, *(1,) * (x.dim() - 2)) if func is functional.group_norm else ()
    for name in ("weight", "bias"):
        factor = given.get(name)
        if factor is not None:
            factor = factor.reshape(shape) if shape else factor
            out = out * factor if name == "weight" else out + factor
    return out


def _hold_gate(mode: _Mode, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """Multiply with the recorded ratio of output and input."""
    x = args[0] if args else kwargs["input"]

    def ratio() -> Tensor:
        out = func(x.clone(), *args[1:], **kwargs) if args else func(**{**kwargs, "input": x.clone()})
        return torch.where(x == 0, torch.zeros_like(out), out / torch.where(x == 0, torch.ones_like(x), x))

    passed: Tensor = x * mode.take("gates", ratio)
    return passed


_HOLDS: tuple[tuple[Frozen, set[Any], Callable[..., Tensor]], ...] = (
    ("attention", _ATTENTION, _hold_attention),
    ("attention", _SOFTMAX, _hold_softmax),
    ("norm", _NORMS, _hold_norm),
    ("gates", _GATES, _hold_gate),
)
