r"""Layer-wise relevance propagation in any model: calls of torch are changed so that a backward pass carries relevance.

Every tensor's relevance is ``tensor × coefficient``; a backward pass carries the coefficients. Where torch's own gradient is a
rule already (sums, means, pooling, the softmax) nothing is done; elsewhere a call is replaced by one of the same value whose
gradient is the rule. So the model needs no canonical form, no class of module has to be known, and its weights are not touched.

=====================  ==================================================================================================
call                   rule
=====================  ==================================================================================================
linear, convolution    generalised gamma [1]_: what pulls with the output's sign counts :math:`1 + \gamma` times; 0 is epsilon
                       [2]_; a batch normalisation that follows is folded in first
the first convolution  z-box [3]_: pixels have a smallest and a largest value, and 0 means nothing
activation functions   identity: relevance passes as it is [4]_
normalisation          the spread is a constant [4]_ [5]_
product of two         each gets half [4]_: query × key, pattern × value, gates
softmax                torch's gradient × input, which is the Taylor rule of AttnLRP [4]_; or the pattern is a constant [5]_
=====================  ==================================================================================================

References
----------
.. [1] Andéol et al. Learning domain invariant representations by joint Wasserstein distance minimization. 2021, eq. 15;
   Montavon et al. Layer-wise relevance propagation: an overview. 2019.
.. [2] Bach et al. On pixel-wise explanations for non-linear classifier decisions by layer-wise relevance propagation.
   PLoS ONE 10, 2015.
.. [3] Montavon et al. Explaining nonlinear classification decisions with deep Taylor decomposition. 2017, section 4.
.. [4] Achtibat et al. AttnLRP: attention-aware layer-wise relevance propagation for transformers. ICML 2024
   (arXiv 2402.05602), section 3.
.. [5] Ali et al. XAI for transformers: better explanations through conservative propagation. ICML 2022.

"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from mechinterp.attention import attention_arguments, attention_pattern, attention_taken_apart
from mechinterp.errors import ConfigError, SiteError

AttentionRule = Literal["attnlrp", "constant"]
STABILISER = 1e-6

_CONVOLUTIONS = {functional.conv1d, functional.conv2d, functional.conv3d}
_ACTIVATIONS = {
    functional.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_, functional.gelu, functional.silu,
    functional.leaky_relu, functional.hardswish, functional.relu6, functional.elu, torch.tanh, Tensor.tanh,
}  # fmt: skip
_NORMS = {functional.layer_norm, functional.group_norm, functional.rms_norm}
_SOFTMAXES = {functional.softmax, torch.softmax, Tensor.softmax}
_PRODUCTS = {
    torch.matmul, torch.bmm, torch.einsum, torch.mul, Tensor.matmul, Tensor.__matmul__, Tensor.bmm, Tensor.mul,
    Tensor.__mul__, Tensor.__rmul__,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class LrpRules:
    """Which rules.

    Raises
    ------
    ConfigError
        If a gamma is negative, or there is no such rule for attention.

    """

    conv_gamma: Annotated[float, "gamma of convolutions; 0 is the epsilon rule"] = 0.25
    linear_gamma: Annotated[float, "gamma of linear layers; 0 is the epsilon rule"] = 0.05
    attention: Annotated[AttentionRule, "attnlrp sends relevance through the softmax, constant does not"] = "attnlrp"

    def __post_init__(self) -> None:
        for name in ("conv_gamma", "linear_gamma"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} is {getattr(self, name):g}: it must be 0 or more")
        if self.attention not in ("attnlrp", "constant"):
            raise ConfigError(f"attention is '{self.attention}': it must be attnlrp or constant")


class RelevanceMode(TorchFunctionMode):
    """While it is entered, gradients of what is computed are coefficients of relevance.

    Parameters
    ----------
    rules
        Which.
    bounds
        The smallest and the largest input, broadcastable to it: the first convolution gets the z-box rule. Without them it
        is treated as every other.

    """

    def __init__(self, rules: LrpRules | None = None, bounds: tuple[Tensor, Tensor] | None = None) -> None:
        super().__init__()
        self.rules = rules or LrpRules()
        self._bounds = bounds
        self._pixels: tuple[Tensor, Tensor, Tensor] | None = None
        self._first = True
        # a batch normalisation is folded into the convolution whose output it is given
        self._last: tuple[Tensor, _Affine] | None = None

    def relevance(self, outcome: Float[Tensor, " image"], x: Tensor) -> Tensor:
        """Return the relevance of the input, in its shape, for an outcome that was computed inside.

        Parameters
        ----------
        outcome
            One number per image; with rules that conserve, what its relevance sums to.
        x
            The input, which requires gradients.

        """
        if self._pixels is None or self._pixels[0].shape != x.shape:
            (coefficient,) = torch.autograd.grad(outcome.sum(), x)
            return (x * coefficient).detach()
        pulled = torch.autograd.grad(outcome.sum(), self._pixels)
        return sum((t * c for t, c in zip(self._pixels, pulled, strict=True)), torch.zeros_like(x)).detach()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Replace a call by its rule; pass on every other."""
        kwargs = kwargs or {}
        if not torch.is_grad_enabled() or not any(_live(t) for t in tree_leaves((args, kwargs))):
            return func(*args, **kwargs)
        if func is functional.linear or func in _CONVOLUTIONS:
            return self._weighted(func, args, kwargs)
        if func is functional.batch_norm:
            return self._batch_norm(args, kwargs)
        if func in _ACTIVATIONS:
            return _identity(func, args, kwargs)
        if func in _NORMS:
            return _normalised(func, args, kwargs)
        if func is functional.scaled_dot_product_attention:
            return self._attention(args, kwargs)
        if func is functional.multi_head_attention_forward:
            with self:  # functions called in here would not be changed otherwise
                taken_apart = attention_taken_apart(*args, **kwargs)
            if taken_apart is None:
                raise SiteError("this model's MultiheadAttention masks or mixes tensors: relevance has no rule for it")
            return taken_apart
        if func in _SOFTMAXES and self.rules.attention == "constant":
            output = func(*args, **kwargs)
            return output.detach() if output.dim() >= 3 else output
        if func in _PRODUCTS:
            return _shared(func, args, kwargs)
        return func(*args, **kwargs)

    def _weighted(self, func: Callable[..., Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        given = dict(zip(("input", "weight", "bias"), args, strict=False)) | kwargs
        x, weight, bias = given.pop("input"), given.pop("weight"), given.pop("bias", None)
        rest = args[3:]
        first, self._first = self._first, False
        if not _live(x) or (
            _live(weight) and not isinstance(weight, torch.nn.Parameter) and weight.grad_fn is not None
        ):
            return func(*args, **kwargs)
        if func is functional.linear:
            return _Affine(func, x, weight, bias, (), {}, self.rules.linear_gamma).output()
        bounds = self._box(x) if first and func is functional.conv2d else None
        made = _Affine(
            func, x if bounds is None else bounds[0], weight, bias, rest, given, self.rules.conv_gamma, bounds
        )
        output = made.output()
        self._last = (output, made)
        return output

    def _box(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
        """Return the pixels and their bounds, to be asked for their coefficients."""
        if self._bounds is None:
            return None
        low, high = (b.to(x).expand_as(x).clone().requires_grad_() for b in self._bounds)
        self._pixels = (x, low, high)
        return self._pixels

    def _batch_norm(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        names = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
        given = dict(zip(names, args, strict=False)) | kwargs
        output = functional.batch_norm(*args, **kwargs)
        if given.get("training") or self._last is None or self._last[0] is not given["input"]:
            return output
        mean, variance, eps = given["running_mean"], given["running_var"], given.get("eps", 1e-5)
        scale = (variance + eps).rsqrt()
        if given.get("weight") is not None:
            scale = scale * given["weight"]
        shift = -mean * scale
        if given.get("bias") is not None:
            shift = shift + given["bias"]
        folded = self._last[1].folded(scale.detach(), shift.detach())
        self._last = None
        return folded.output(output)

    def _attention(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        query, key, value, given = attention_arguments(args, kwargs)
        if given.get("enable_gqa"):
            value = value.repeat_interleave(query.shape[-3] // value.shape[-3], dim=-3)
        given["dropout_p"] = 0.0
        if self.rules.attention == "constant":
            with torch.no_grad():
                pattern = attention_pattern(query, key, **given)
            return pattern @ value
        pattern = attention_pattern(_scaled(query, 0.5), _scaled(key, 0.5), **given)
        return _scaled(pattern, 0.5) @ _scaled(value, 0.5)


@dataclass(frozen=True, eq=False)
class _Affine:
    """One call of a linear map or convolution, and its rule."""

    function: Callable[..., Tensor]
    x: Tensor
    weight: Tensor
    bias: Tensor | None
    rest: tuple[Any, ...]
    given: dict[str, Any]
    gamma: float
    box: tuple[Tensor, Tensor, Tensor] | None = None

    def folded(self, scale: Tensor, shift: Tensor) -> _Affine:
        """Return the same with each output multiplied by a factor and shifted."""
        weight = self.weight.detach() * scale.reshape(-1, *(1,) * (self.weight.dim() - 1))
        bias = shift if self.bias is None else self.bias.detach() * scale + shift
        return _Affine(self.function, self.x, weight, bias, self.rest, self.given, self.gamma, self.box)

    def output(self, value: Tensor | None = None) -> Tensor:
        """Return the call's value, with the rule for a gradient."""
        w, b = self.weight.detach(), None if self.bias is None else self.bias.detach()
        if value is None:
            with torch.no_grad():
                value = self._apply(self.x, w, b)
        value = value.detach()
        if self.box is not None:
            x, low, high = self.box
            carried = self._apply(x, w) - self._apply(low, w.clamp(min=0)) - self._apply(high, w.clamp(max=0))
            return _as(value, carried, carried)
        if self.gamma == 0:
            carried = self._apply(self.x, w)
            return _as(value, carried, carried if b is None else carried + _channels(b, carried))
        more, less = w + self.gamma * w.clamp(min=0), w + self.gamma * w.clamp(max=0)
        raised, lowered = self._towards(more, less), self._towards(less, more)
        with_bias = raised, lowered
        if b is not None:
            up, down = b + self.gamma * b.clamp(min=0), b + self.gamma * b.clamp(max=0)
            with_bias = raised + _channels(up, raised), lowered + _channels(down, lowered)
        positive = value > 0
        return _as(value, torch.where(positive, raised, lowered), torch.where(positive, *with_bias))

    def _towards(self, for_positive: Tensor, for_negative: Tensor) -> Tensor:
        """Apply one weight to positive inputs and another to negative ones."""
        if not bool((self.x < 0).any()):
            return self._apply(self.x, for_positive)
        return self._apply(self.x.clamp(min=0), for_positive) + self._apply(self.x.clamp(max=0), for_negative)

    def _apply(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return self.function(x, weight, bias, *self.rest, **self.given)


def _as(value: Tensor, carried: Tensor, whole: Tensor) -> Tensor:
    """Return `value`, whose relevance goes to what `carried` was computed from, in proportion to its share of `whole`."""
    whole = whole.detach()
    ratio = value / torch.where(whole < 0, whole - STABILISER, whole + STABILISER)
    passed = carried * ratio
    return passed + (value - passed).detach()


def _channels(bias: Tensor, like: Tensor) -> Tensor:
    """Return a bias in the shape of what it is added to: the last axis of a linear map's output, the channels of a map."""
    return bias if like.shape[-1] == len(bias) and like.dim() in {2, 3} else bias.reshape(-1, *(1,) * (like.dim() - 2))


def _live(value: Any) -> bool:
    return isinstance(value, Tensor) and value.requires_grad


def _scaled(tensor: Tensor, share: float) -> Tensor:
    """Return a tensor that passes back a share of its gradient."""
    return share * tensor + ((1 - share) * tensor).detach() if tensor.requires_grad else tensor


def _shared(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Give every factor that depends on the input the same share."""
    factors = sum(_live(t) and not isinstance(t, torch.nn.Parameter) for t in tree_leaves((args, kwargs)))
    output = func(*args, **kwargs)
    return _scaled(output, 1 / factors) if factors > 1 else output


def _identity(func: Callable[..., Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """Pass relevance on as it is: multiply with the ratio of output and input."""
    x = args[0] if args else kwargs["input"]
    with torch.no_grad():
        out = func(x.clone(), *args[1:], **kwargs) if args else func(**{**kwargs, "input": x.clone()})
        ratio = torch.where(x == 0, torch.zeros_like(out), out / torch.where(x == 0, torch.ones_like(x), x))
    passed: Tensor = x * ratio
    return passed


def _normalised(func: Callable[..., Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """Normalise by a constant spread; centring stays live, since it is linear."""
    x = args[0] if args else kwargs["input"]
    names = {
        functional.layer_norm: ("normalized_shape", "weight", "bias", "eps"),
        functional.group_norm: ("num_groups", "weight", "bias", "eps"),
        functional.rms_norm: ("normalized_shape", "weight", "eps"),
    }[func]
    given = dict(zip(names, args[1:], strict=False)) | {n: v for n, v in kwargs.items() if n != "input"}
    grouped = x.reshape(len(x), given["num_groups"], -1) if func is functional.group_norm else x
    axes = (2,) if func is functional.group_norm else tuple(range(-len(given["normalized_shape"]), 0))
    centred = grouped if func is functional.rms_norm else grouped - grouped.mean(axes, keepdim=True)
    eps = given.get("eps")
    eps = (torch.finfo(x.dtype).eps if func is functional.rms_norm else 1e-5) if eps is None else eps
    spread = (centred.square().mean(axes, keepdim=True) + eps).rsqrt().detach()
    out: Tensor = (centred * spread).reshape(x.shape)
    shape = (1, -1, *(1,) * (x.dim() - 2)) if func is functional.group_norm else ()
    for name in ("weight", "bias"):
        factor = given.get(name)
        if factor is not None:
            factor = factor.detach().reshape(shape) if shape else factor.detach()
            out = out * factor if name == "weight" else out + factor
    return out
