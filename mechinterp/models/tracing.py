"""Run a module once and write down what passes through each of its parts."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mechinterp.errors import ModelError
from mechinterp.models.vision_model import InputContract
from mechinterp.models.weights import first_line
from mechinterp.receptive_field import Laid, ReceptiveFields, following

ONE_AT_A_TIME = "it takes one image at a time, give it a batch axis (an ONNX file: export it with a dynamic one)"
Squash = Literal["softmax", "sigmoid"]
SQUASHES: dict[str, Squash] = {"_softmax": "softmax", "_safe_softmax": "softmax", "sigmoid": "sigmoid"}


@dataclass(frozen=True)
class Passed:
    """One tensor that entered or left a module.

    Parameters
    ----------
    shape
        Its shape; the first axis is the batch.
    laid
        How it lies over the image, where its cells have a place.
    misplaced
        Whether its cells lie along axes where no layout of a site has them (windows in the batch axis, attention heads).
    projection
        For tensors of three axes, the first image's tokens projected onto a fixed random direction. Sums of tensors have
        sums of projections, so that a residual stream can be checked without keeping every activation.

    """

    shape: tuple[int, ...]
    laid: Laid | None
    misplaced: bool
    projection: Float[Tensor, " token"] | None


@dataclass
class Part:
    """What one module did in the forward pass.

    Parameters
    ----------
    path
        Dotted path.
    bit
        Number of its mark in the receptive fields' bit sets.
    calls
        How often it was called.
    input, output
        What it was given and gave in its last call; ``None`` where that was no floating-point tensor.
    squashes
        For a module whose output is the model's and nothing but the softmax or sigmoid of its input: which.
    each
        Input and output of every call.

    """

    path: str
    bit: int
    calls: int = 0
    input: Passed | None = None
    output: Passed | None = None
    squashes: Squash | None = None
    each: list[tuple[Passed | None, Passed | None]] = field(default_factory=list)


@dataclass(frozen=True)
class Trace:
    """A forward pass over a batch of two random images.

    Parameters
    ----------
    parts
        By dotted path, in the order in which they completed; modules that were not called are absent.
    output
        What the model returned, or the first tensor of it.
    squash
        Whether a softmax or a sigmoid was the last thing that happened to the output, in a module or not.
    on_every_path
        Bit set of the parts through which everything flows from the images to the output.
    x
        The images, NCHW (volumes: NCDHW).
    module
        The model that was run.
    layout
        Order of the axes that it wants.

    """

    parts: dict[str, Part]
    output: Tensor
    squash: Squash | None
    on_every_path: int
    x: Float[Tensor, "batch channel height width"]
    module: nn.Module
    layout: Literal["NCHW", "NHWC"] = "NCHW"


def probe_input(contract: InputContract, batch: int = 2, seed: int = 0) -> Float[Tensor, "batch channel height width"]:
    """Return random images as the contract wants them: uniform in the value range, then normalised."""
    generator = torch.Generator().manual_seed(seed)
    u = torch.rand(batch, contract.channels, *contract.size, generator=generator)
    low, high = contract.value_range
    mean, std = (torch.tensor(v).view(1, -1, *(1 for _ in contract.size)) for v in (contract.mean, contract.std))
    return (u * (high - low) + low - mean) / std


def first_tensor(value: Any) -> Tensor | None:
    """Return what a model answers: a tensor, the first of a tuple, or the logits of a Hugging Face output."""
    logits = getattr(value, "logits", None)
    return logits if isinstance(logits, Tensor) else hooked_tensor(value)


def hooked_tensor(value: Any) -> Tensor | None:
    """Return what a site's hook reaches: a tensor, the first of a tuple, or a Hugging Face output's hidden state."""
    if isinstance(value, Tensor):
        return value
    if isinstance(value, (tuple, list)) and value and isinstance(value[0], Tensor):
        return value[0]
    hidden = getattr(value, "last_hidden_state", None)
    return hidden if isinstance(hidden, Tensor) else None


def trace_module(module: nn.Module, contract: InputContract, spec: str = "the model", seed: int = 0) -> Trace:
    """Run a module on two random images with a hook on every submodule.

    Parameters
    ----------
    module
        In evaluation mode.
    contract
        What it wants to be fed.
    spec
        The model's name, for messages.
    seed
        Of the images.

    Raises
    ------
    ModelError
        If it fails on the images, or returns no tensor.

    """
    with torch.inference_mode(mode=False):  # whatever the caller's mode: what is written in place is seen by versions
        return _traced(module, contract, spec, seed)


def _traced(module: nn.Module, contract: InputContract, spec: str, seed: int) -> Trace:
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    x = probe_input(contract, seed=seed).to(device)
    fed = x.movedim(1, -1).contiguous() if contract.layout == "NHWC" else x
    with following(fed, contract.layout) as fields, _Recorder(module, fields) as recorder:
        try:
            returned = module(fed)
        except Exception as error:  # noqa: BLE001 - a foreign module may raise anything
            raise ModelError(f"'{spec}' {_failure(module, fed, contract, error)}") from None
        output = first_tensor(returned)
        if output is None:
            raise ModelError(f"'{spec}' returns a {type(returned).__name__} without a tensor: wrap it to return logits")
        if len(output) != len(x):
            raise ModelError(f"'{spec}' returns {len(output)} rows for {len(x)} images: {ONE_AT_A_TIME}")
        recorder.find_squashes(output)
        seen = fields.seen(output)
    return Trace(
        parts=recorder.parts,
        output=output,
        squash=SQUASHES.get(seen.maker) if seen else None,
        on_every_path=seen.passed if seen else 0,
        x=x,
        module=module,
        layout=contract.layout,
    )


def _failure(module: nn.Module, fed: Tensor, contract: InputContract, error: Exception) -> str:
    """Return in one line how a module fails on two images, and whether it would take one."""
    try:
        module(fed[:1])
    except Exception:  # noqa: BLE001 - whatever it raises, it does not take one image either
        size = " × ".join(str(n) for n in (contract.channels, *contract.size))
        return f"fails on a batch of two images of {size}: {type(error).__name__}: {first_line(error)}"
    return f"fails on a batch of two images: {ONE_AT_A_TIME}"


class _Recorder(ExitStack):
    """Hooks on every submodule that write down what passes."""

    def __init__(self, module: nn.Module, fields: ReceptiveFields) -> None:
        super().__init__()
        self.parts: dict[str, Part] = {}
        self._fields = fields
        self._last: dict[str, tuple[Tensor | None, Tensor]] = {}
        self._given: dict[str, tuple[Tensor | None, int]] = {}
        for bit, (path, submodule) in enumerate(module.named_modules()):
            part = Part(path, bit)
            self.callback(submodule.register_forward_pre_hook(self._entering(part), with_kwargs=True).remove)
            self.callback(submodule.register_forward_hook(self._leaving(part)).remove)

    def _entering(self, part: Part) -> Any:
        def enter(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            tensors = (v for v in kwargs.values() if isinstance(v, Tensor))
            given = hooked_tensor(args[0]) if args else next(tensors, None)
            part.input = self._passed(given)
            self._given[part.path] = (given if args else None, -1 if given is None else given._version)

        return enter

    def _leaving(self, part: Part) -> Any:
        def leave(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
            part.calls += 1
            self.parts.pop(part.path, None)
            self.parts[part.path] = part
            tensor = hooked_tensor(output)
            part.output = self._passed(tensor)
            part.each.append((part.input, part.output))
            given, version = self._given.pop(part.path, (None, -1))
            if tensor is None:
                return
            # a module that hands its input through untouched is no place of its own: others may use that input too
            if tensor is not given or tensor._version != version:
                self._fields.mark(tensor, part.bit)
            if tensor.dim() == 2:
                self._last[part.path] = (given, tensor)

        return leave

    def find_squashes(self, output: Tensor) -> None:
        """Note which modules compute the model's very output by a softmax or a sigmoid of their input."""
        for path, (given, gave) in self._last.items():
            if gave is output and given is not None and given.shape == gave.shape:
                self.parts[path].squashes = _squash(given, gave)

    def _passed(self, tensor: Tensor | None) -> Passed | None:
        if tensor is None or not tensor.is_floating_point():
            return None
        if self._fields.seen(tensor) is None:  # a table of positions, whose first axis is no batch
            return None
        laid = self._fields.laid_out(tensor)
        misplaced = laid is None and self._fields.misplaced(tensor)
        return Passed(tuple(tensor.shape), laid, misplaced, _projection(tensor))


def _projection(tensor: Tensor) -> Tensor | None:
    if tensor.dim() != 3:
        return None
    generator = torch.Generator().manual_seed(tensor.shape[-1])
    direction = torch.randn(tensor.shape[-1], generator=generator, dtype=torch.float64)
    return tensor[0].detach().cpu().double() @ direction


def _squash(given: Tensor, gave: Tensor) -> Squash | None:
    if torch.allclose(given.softmax(-1), gave, atol=1e-6):
        return "softmax"
    return "sigmoid" if torch.allclose(given.sigmoid(), gave, atol=1e-6) else None
