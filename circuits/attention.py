"""Where attention looks, and what it moves, patch by patch: patterns, rollout, OV and QK."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from circuits.frozen import FrozenCalls
from mechinterp.attention import attention_arguments, attention_pattern
from mechinterp.errors import ConfigError, SiteError
from mechinterp.models.vision_model import VisionModel


@dataclass(frozen=True, eq=False)
class AttentionCall:
    """One attention of one forward pass.

    Parameters
    ----------
    query, key, value
        Per head.
    scale
        What scores are multiplied by.
    pattern
        The softmax of the scores; part of the graph where gradients are on.

    """

    query: Float[Tensor, "image head token width"]
    key: Float[Tensor, "image head token width"]
    value: Float[Tensor, "image head token width"]
    scale: float
    pattern: Float[Tensor, "image head query key"]

    def scores(self) -> Float[Tensor, "image head query key"]:
        """Return how much each query wants each key, before the softmax: QK in the patch basis."""
        return self.query @ self.key.transpose(-2, -1) * self.scale


class AttentionWatch(TorchFunctionMode):
    """Note every call of ``scaled_dot_product_attention`` in the forward passes inside, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[AttentionCall] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Compute the pattern where attention is called; pass on everything else."""
        if func is not functional.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        query, key, value, given = attention_arguments(args, kwargs or {})
        pattern = attention_pattern(query, key, **given)
        scale = given.get("scale")
        call = AttentionCall(query, key, value, 1 / math.sqrt(query.shape[-1]) if scale is None else scale, pattern)
        self.calls.append(call)
        return self.used(pattern) @ value

    def used(self, pattern: Tensor) -> Tensor:
        """Return what the values are multiplied with: the pattern."""
        return pattern


@contextmanager
def watching_attention() -> Iterator[list[AttentionCall]]:
    """Note every call of ``scaled_dot_product_attention`` in the forward passes inside, in order."""
    with AttentionWatch() as watch:
        yield watch.calls


def attention_patterns(
    model: VisionModel, x: Float[Tensor, "image channel height width"]
) -> list[Float[Tensor, "image head query key"]]:
    """Return every block's attention pattern.

    Raises
    ------
    SiteError
        If no attention could be caught: the model has none, or computes it in one fused call of its own.

    """
    calls = FrozenCalls(frozenset({"attention"}))
    with torch.no_grad(), calls.recording():
        model.run(x)
    if not calls.calls:
        raise SiteError(
            f"'{model.spec}' calls neither scaled_dot_product_attention nor softmax over tokens: no pattern"
        )
    return [pattern for _, pattern in calls.calls]


def rollout(
    patterns: Sequence[Float[Tensor, "image head query key"]], *, residual: float = 0.5
) -> Float[Tensor, "image query key"]:
    """Follow attention through the blocks [1]_: heads averaged, the skip connection counted as looking at oneself.

    A picture of where information could have come from, not an effect: nothing is changed.

    Parameters
    ----------
    patterns
        From :func:`attention_patterns`, first block first.
    residual
        Weight of the skip connection.

    Raises
    ------
    ConfigError
        If there is no pattern, or the weight is no share.

    References
    ----------
    .. [1] Abnar, Zuidema. Quantifying attention flow in transformers. 2020 (arXiv 2005.00928).

    """
    if not patterns or not 0 <= residual <= 1:
        raise ConfigError(
            f"rollout of {len(patterns)} patterns with residual {residual:g}: give patterns, and a share of 0 to 1"
        )
    tokens = patterns[0].shape[-1]
    eye = torch.eye(tokens, dtype=patterns[0].dtype, device=patterns[0].device)
    total = eye.expand(len(patterns[0]), tokens, tokens)
    for pattern in patterns:
        mixed = residual * eye + (1 - residual) * pattern.mean(1)
        total = mixed / mixed.sum(-1, keepdim=True) @ total
    return total


def moved_by_patch(
    call: AttentionCall, gradient_z: Float[Tensor, "image token width"]
) -> Float[Tensor, "image head key"]:
    """Return what each patch adds to a metric through each head's OV, with the pattern as it is.

    Parameters
    ----------
    call
        One block's attention.
    gradient_z
        The metric's gradient at the block's ``hook_z``: summed over patches, the result is each head's gradient × value.

    """
    image, head, token, width = call.value.shape
    gradient = gradient_z.reshape(image, token, head, width).transpose(1, 2)
    return torch.einsum("bhqk,bhkd,bhqd->bhk", call.pattern, call.value, gradient)
