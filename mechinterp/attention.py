"""Reach inside an attention while it runs: its pattern, and linear maps that it computes without calling a submodule.

Fused kernels never hold the pattern, and ``nn.MultiheadAttention`` calls none of its parts. So while a module with a tap runs,
and only then and only there, the functions that it calls are watched by a ``TorchFunctionMode``: for one that asks for the
pattern, ``softmax(q kᵀ scale + mask)`` is computed beside the fused kernel. As long as nothing is put in the pattern's place, the
kernel's own result goes on, so that capturing changes no bit; where something is, the output is the explicit product with the
values, which agrees with the kernel up to rounding.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

Visit = Callable[[Tensor], Tensor | None]
# it is built in, and has no signature to ask
_SDPA = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa")
_SOFTMAXES = (torch.softmax, Tensor.softmax, functional.softmax)


@dataclass(frozen=True, eq=False)
class Tap:
    """What is asked of a module while it runs.

    Parameters
    ----------
    what
        The attention pattern (batch, head, query, key), or the input or output of a linear map.
    visit
        Gets the tensor; what it returns, unless ``None``, takes the tensor's place.
    weight
        The linear map's weight; it is known by it.

    """

    what: Literal["pattern", "input", "output"]
    visit: Visit
    weight: Tensor | None = None


class TapHandle:
    """Takes a tap off again."""

    def __init__(self, inside: _Inside, tap: Tap) -> None:
        self._inside, self._tap = inside, tap

    def remove(self) -> None:
        """Undo the tap; a second time does nothing."""
        self._inside.take_off(self._tap)


def tap_inside(target: nn.Module, tap: Tap) -> TapHandle:
    """Put a tap on a module until the handle is removed; the module's class, weights and settings are not touched."""
    inside = target.__dict__.get("forward")
    if not isinstance(inside, _Inside):
        inside = _Inside(target)
    inside.taps.append(tap)
    return TapHandle(inside, tap)


class _Inside:
    """Stands in for one module's ``forward`` as long as there are taps on it."""

    def __init__(self, target: nn.Module) -> None:
        self.taps: list[Tap] = []
        self._target = target
        self._own = target.__dict__.get("forward")
        self._forward = target.forward
        functools.update_wrapper(self, self._forward)
        # an attribute of the instance hides the class's method; nothing is ever entered that an exception could leave open
        object.__setattr__(target, "forward", self)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not self.taps:
            return self._forward(*args, **kwargs)
        mode = _Watching(self.taps)
        with mode:
            output = self._forward(*args, **kwargs)
        if isinstance(self._target, nn.MultiheadAttention) and not mode.changed:
            # it was taken apart to be watched: what goes on is what its own kernel gives
            return self._forward(*args, **kwargs)
        return output

    def take_off(self, tap: Tap) -> None:
        if tap in self.taps:
            self.taps.remove(tap)
        if not self.taps and self._target.__dict__.get("forward") is self:
            object.__delattr__(self._target, "forward")
            if self._own is not None:
                object.__setattr__(self._target, "forward", self._own)


class _Watching(TorchFunctionMode):  # type: ignore[no-untyped-call, unused-ignore]
    """Hands what passes through the watched functions to the taps."""

    def __init__(self, taps: list[Tap]) -> None:
        super().__init__()  # type: ignore[no-untyped-call, unused-ignore]
        self._patterns = [t for t in taps if t.what == "pattern"]
        self._linears = [t for t in taps if t.what != "pattern"]
        self.changed = False

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is functional.multi_head_attention_forward:
            with self:  # functions called in here would not be watched otherwise
                taken_apart = attention_taken_apart(*args, **kwargs)
            return func(*args, **kwargs) if taken_apart is None else taken_apart
        if self._linears and func is functional.linear:
            return self._linear(*args, **kwargs)
        if self._patterns and func is functional.scaled_dot_product_attention:
            return self._attend(*args, **kwargs)
        output = func(*args, **kwargs)
        if self._patterns and func in _SOFTMAXES and output.dim() == 4:
            replacement = self._shown(self._patterns, output)
            return output if replacement is None else replacement
        return output

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        replacement = self._shown(self._patterns, attention_pattern(query, key, *args, **kwargs))
        if replacement is None:
            return functional.scaled_dot_product_attention(query, key, value, *args, **kwargs)
        dropout = kwargs.get("dropout_p", args[1] if len(args) > 1 else 0.0)
        groups = query.shape[-3] // value.shape[-3] if kwargs.get("enable_gqa") else 1
        return functional.dropout(replacement, dropout) @ value.repeat_interleave(groups, dim=-3)

    def _linear(self, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:  # noqa: A002
        taps = [t for t in self._linears if t.weight is weight]
        replacement = self._shown([t for t in taps if t.what == "input"], input)
        output = functional.linear(input if replacement is None else replacement, weight, bias)
        replacement = self._shown([t for t in taps if t.what == "output"], output)
        return output if replacement is None else replacement

    def _shown(self, taps: list[Tap], tensor: Tensor) -> Tensor | None:
        """Show a tensor to taps, one after the other; return what the last of them put in its place."""
        replacement: Tensor | None = None
        for tap in taps:
            given = tap.visit(tensor if replacement is None else replacement)
            replacement = replacement if given is None else given
        self.changed |= replacement is not None
        return replacement


def attention_arguments(
    args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[Tensor, Tensor, Tensor, dict[str, Any]]:
    """Return query, key, value and the other arguments of a call of ``scaled_dot_product_attention``, by name."""
    given = dict(zip(_SDPA, args, strict=False)) | dict(kwargs)
    return given.pop("query"), given.pop("key"), given.pop("value"), given


def attention_pattern(
    query: Float[Tensor, "*batch head query width"],
    key: Float[Tensor, "*batch head key width"],
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Float[Tensor, "*batch head query key"]:
    """Return the pattern that ``scaled_dot_product_attention`` multiplies the values with, given the same arguments."""
    if enable_gqa:
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], dim=-3)
    scores = query @ key.mT * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if attn_mask is not None:
        scores = (
            scores.masked_fill(~attn_mask, -math.inf)
            if attn_mask.dtype == torch.bool
            else scores + attn_mask.to(scores)
        )
    return torch.softmax(scores, dim=-1)


def attention_taken_apart(*args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None] | None:
    """Compute ``functional.multi_head_attention_forward`` from its parts, (batch, token, width) throughout.

    ``None`` for what no image encoder's block does: attention between different tensors, extra keys, padding masks.
    """
    bound = _MULTI_HEAD.bind(*args, **kwargs)
    bound.apply_defaults()
    given = bound.arguments
    query = given["query"]
    plain = query is given["key"] and query is given["value"] and query.dim() == 3 and not given["add_zero_attn"]
    extras = ("bias_k", "bias_v", "key_padding_mask", "static_k", "static_v")
    if not plain or given["use_separate_proj_weight"] or any(given[name] is not None for name in extras):
        return None
    heads, mask = int(given["num_heads"]), given["attn_mask"]
    packed = functional.linear(query.transpose(0, 1), given["in_proj_weight"], given["in_proj_bias"])
    batch, tokens, _ = packed.shape
    # (batch, token, 3, head, width) -> 3 × (batch, head, token, width)
    q, k, v = packed.reshape(batch, tokens, 3, heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
    if mask is not None and mask.dim() == 3:
        mask = mask.reshape(-1, heads, tokens, tokens)
    dropout = given["dropout_p"] if given["training"] else 0.0
    weights = None
    if given["need_weights"]:
        weights = attention_pattern(q, k, mask)
        z = functional.dropout(weights, dropout) @ v
        weights = weights.mean(1) if given["average_attn_weights"] else weights
    else:
        z = functional.scaled_dot_product_attention(q, k, v, mask, dropout)
    out = functional.linear(z.transpose(1, 2).flatten(2), given["out_proj_weight"], given["out_proj_bias"])
    return out.transpose(0, 1), weights


_MULTI_HEAD = inspect.signature(functional.multi_head_attention_forward)
