"""``load_model``: from a spec such as ``timm:resnet18`` to a model with its input contract, classes and sites."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch

from mechinterp.errors import ConfigError, ModelError, nearest
from mechinterp.models.checking import check_model
from mechinterp.models.discovery import sites_of
from mechinterp.models.source import Loaded, Request
from mechinterp.models.tracing import Trace, trace_module
from mechinterp.models.vision_model import VisionModel
from mechinterp.models.weights import first_line, some

SOURCES = {"timm": "timm_models", "hf": "huggingface", "onnx": "onnx_file", "py": "python_file"}
EXAMPLES = {"timm": "timm:resnet18", "hf": "hf:FOLDER", "onnx": "onnx:FILE.onnx", "py": "py:FILE.py:FUNCTION"}


def load_model(
    spec: str,
    weights: str | Path | None = None,
    *,
    download: bool = False,
    class_names: Sequence[str] | None = None,
    input_size: int | tuple[int, int] | None = None,
    device: str | torch.device = "cpu",
    seed: int = 0,
) -> VisionModel:
    """Load a model as it is, find its sites, and check that it does what its description says.

    Parameters
    ----------
    spec
        ``timm:NAME``, ``hf:NAME_OR_FOLDER``, ``onnx:FILE``, or ``py:FILE.py:FUNCTION``, a function without arguments that
        returns an ``nn.Module`` (see :mod:`mechinterp.models.python_file`).
    weights
        A ``.safetensors`` file or a checkpoint of tensors; ``"random"`` for an untrained network, which every result made
        from it will say; ``None`` for the source's own weights, if they are on this machine.
    download
        Whether the network may be used for weights that are not. Without it nothing is ever fetched.
    class_names
        Names of the outputs, where the source knows none or others are wanted.
    input_size
        Side, or (height, width), of the input, for models that take several.
    device
        Where the module shall run.
    seed
        Of random weights.

    Returns
    -------
    VisionModel
        The module in evaluation mode, weights untouched.

    Raises
    ------
    ModelError
        If there is no such model, it cannot be run, or it is not deterministic.
    WeightsError
        If the weights are missing or do not fit.
    MissingDependencyError
        If the source needs a package that is not installed.

    Examples
    --------
    >>> model = load_model("timm:vit_tiny_patch16_224", weights="random")
    >>> model.site("blocks.3.hook_resid_post").grid.stride
    (16.0, 16.0)

    """
    kind, _, name = spec.partition(":")
    if kind not in SOURCES or not name:
        example = f"write {EXAMPLES[kind]}" if kind in EXAMPLES else nearest(kind, EXAMPLES.values())
        raise ModelError(f"'{spec}' names no model: {example}")
    request = Request(
        spec=spec,
        name=name,
        weights=weights,
        download=download,
        classes=len(class_names) if class_names is not None else None,
        input_size=_height_and_width(input_size),
        seed=seed,
    )
    loaded: Loaded = importlib.import_module(f"mechinterp.models.{SOURCES[kind]}").load(request)
    module = loaded.module.eval().to(_device(device))
    trace = trace_module(module, loaded.contract, spec)
    output, logits_module, output_notes = _what_comes_out(trace)
    model = VisionModel(
        module=module,
        spec=spec,
        contract=loaded.contract,
        class_names=_class_names(class_names, loaded, trace, spec),
        output=output,
        sites=sites_of(trace, loaded.stages),
        trained=loaded.trained,
        weights=loaded.weights,
        logits_module=logits_module,
        activation=trace.squash or "softmax",
        licence=loaded.licence,
        notes=(*loaded.notes, *output_notes, *_repeated(trace)),
    )
    if not model.sites:
        raise ModelError(
            f"'{spec}' has no part that can be hooked: a compiled (TorchScript) module must be given as its source"
        )
    check_model(model, trace.output)
    return model


def _height_and_width(size: int | tuple[int, int] | None) -> tuple[int, int] | None:
    if size is None:
        return None
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < 1:
        raise ConfigError(f"input size {height} × {width} is no size: both must be at least 1")
    return height, width


def _device(device: str | torch.device) -> torch.device:
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(f"device '{device}' cannot be used: {first_line(error)}") from None


def _what_comes_out(trace: Trace) -> tuple[Literal["logits", "probabilities"], str | None, tuple[str, ...]]:
    """Return what the output is, the module whose input are the logits, and a note where there is none."""
    if trace.squash is None:
        return "logits", None, ()
    # the innermost one completes first; a wrapper around it would do as well
    path = next((p.path for p in trace.parts.values() if p.squashes and p.calls == 1), None)
    if path is not None:
        return "probabilities", path, ()
    return (
        "probabilities",
        None,
        (f"ends in a {trace.squash} that is no module: logits are taken back from the probabilities",),
    )


def _class_names(given: Sequence[str] | None, loaded: Loaded, trace: Trace, spec: str) -> tuple[str, ...]:
    outputs = int(trace.output.shape[-1]) if trace.output.dim() == 2 else 0
    names = tuple(given) if given is not None else loaded.class_names
    if names is None:
        return tuple(f"class {i}" for i in range(outputs))
    if len(names) != outputs:
        raise ModelError(f"'{spec}' has {outputs} outputs, but {len(names)} class names are given ({some(names)})")
    if len(set(names)) != len(names):
        raise ModelError(f"'{spec}': a class name stands twice ({some([n for n in names if names.count(n) > 1])})")
    return names


def _repeated(trace: Trace) -> tuple[str, ...]:
    names = [path for path, part in trace.parts.items() if part.calls > 1]
    return (f"{len(names)} modules run more than once and are no sites ({some(names)})",) if names else ()
