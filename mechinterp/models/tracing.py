"""Run a module once and write down what passes through each of its parts."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mechinterp.models.vision_model import InputContract

Shape = tuple[int, ...]


@dataclass
class Passed:
    """One tensor that entered or left a module.

    Parameters
    ----------
    shape
        Its shape; the first axis is the batch.
    print
        The projection of the first image's last axis onto a fixed random direction, for tensors of three axes: sums of
        tensors have sums of prints, so that residual streams can be checked without keeping every activation.

    """

    shape: Shape
    print: Float[Tensor, " token"] | None = None


@dataclass
class Part:
    """What one module did in the forward pass.

    Parameters
    ----------
    path
        Dotted path.
    calls
        How often it was called.
    input, output
        What it was given and gave in its last call; ``None`` where that was no floating-point tensor.
    order
        Position in the order of completion.
    is_final
        Whether its output is the very tensor the model returned.
    undone_by
        For a module whose output is the model's: ``softmax`` or ``sigmoid`` when it is just that of its input.

    """

    path: str
    calls: int = 0
    input: Passed | None = None
    output: Passed | None = None
    order: int = -1
    is_final: bool = False
    is_exactly: str | None = None


@dataclass
class Trace:
    """A forward pass over a batch of two random images.

    Parameters
    ----------
    parts
        By dotted path, in the order of completion.
    output
        What the model returned (its first tensor).
    x
        What it was given, NCHW.

    """

    parts: dict[str, Part]
    output: Tensor
    x: Float[Tensor, "batch channel height width"]
    called: Mapping[str, int] = field(default_factory=dict)


def probe_input(contract: InputContract, batch: int = 2, seed: int = 0) -> Float[Tensor, "batch channel height width"]:
    """Return random images as the contract wants them: uniform in the value range, then normalised."""
    generator = torch.Generator().manual_seed(seed)
    u = torch.rand(batch, contract.channels, contract.height, contract.width, generator=generator)
    low, high = contract.value_range
    mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (contract.mean, contract.std))
    return (u * (high - low) + low - mean) / std


def first_tensor(value: Any) -> Tensor | None:
    """Return what a site hooks: a tensor, the first of a tuple, or a Hugging Face output's main tensor."""
    if isinstance(value, Tensor):
        return value
    if isinstance(value, (tuple, list)) and value and isinstance(value[0], Tensor):
        return value[0]
    for name in ("logits", "last_hidden_state"):
        found = getattr(value, name, None)
        if isinstance(found, Tensor):
            return found
    return None


def trace_module(module: nn.Module, contract: InputContract, seed: int = 0) -> Trace:
    """Run `module` once on two random images with a hook on every submodule."""
    x = probe_input(contract, seed=seed).to(next((p.device for p in module.parameters()), torch.device("cpu")))
    parts: dict[str, Part] = {}
    outputs: dict[str, Tensor] = {}
    inputs: dict[str, Tensor] = {}
    with ExitStack() as undo, torch.no_grad():
        for path, submodule in module.named_modules():
            part = Part(path)

            def enter(_m: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], part: Part = part) -> None:
                given = (
                    first_tensor(args[0]) if args else next((v for v in kwargs.values() if isinstance(v, Tensor)), None)
                )
                part.input = _passed(given)

            def leave(_m: nn.Module, args: tuple[Any, ...], output: Any, part: Part = part) -> None:
                part.calls += 1
                tensor = first_tensor(output)
                part.output = _passed(tensor)
                parts.pop(part.path, None)
                part.order = len(parts)
                parts[part.path] = part
                if tensor is not None and tensor.dim() == 2:
                    outputs[part.path] = tensor
                    if args and isinstance(args[0], Tensor):
                        inputs[part.path] = args[0]

            undo.callback(submodule.register_forward_pre_hook(enter, with_kwargs=True).remove)
            undo.callback(submodule.register_forward_hook(leave).remove)
        fed = x.permute(0, 2, 3, 1) if contract.layout == "NHWC" else x
        returned = first_tensor(module(fed))
    for path, tensor in outputs.items():
        if tensor is returned:
            parts[path].is_final = True
            parts[path].is_exactly = _is_exactly(inputs.get(path), tensor)
    return Trace(parts=parts, output=returned, x=x)


def _passed(tensor: Tensor | None) -> Passed | None:
    if tensor is None or not tensor.is_floating_point():
        return None
    return Passed(tuple(tensor.shape), _print(tensor))


def _print(tensor: Tensor) -> Tensor | None:
    if tensor.dim() != 3:
        return None
    generator = torch.Generator().manual_seed(tensor.shape[-1])
    direction = torch.randn(tensor.shape[-1], generator=generator, dtype=torch.float64)
    return tensor[0].detach().cpu().double() @ direction


def _is_exactly(given: Tensor | None, gave: Tensor) -> str | None:
    if given is None or given.shape != gave.shape:
        return None
    for name, function in (("softmax", lambda t: t.softmax(-1)), ("sigmoid", torch.sigmoid)):
        if torch.allclose(function(given), gave, atol=1e-6):
            return name
    return None
