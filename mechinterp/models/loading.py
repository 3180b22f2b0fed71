"""``load_model``: from a spec such as ``timm:resnet18`` to a model with its input contract, classes and sites."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, cast, get_args

import torch

from mechinterp.errors import ConfigError, ModelError, nearest
from mechinterp.models.checking import check_model
from mechinterp.models.discovery import sites_of
from mechinterp.models.options import Option, split_spec
from mechinterp.models.source import Loaded, Request
from mechinterp.models.tracing import Squash, Trace, trace_module
from mechinterp.models.vision_model import InputContract, VisionModel
from mechinterp.models.weights import first_line, some
from mechinterp.sites import Site

SOURCES = {
    "timm": "timm_models",
    "hf": "huggingface",
    "torchvision": "torchvision_models",
    "xrv": "torchxrayvision_models",
    "monai": "monai_models",
    "open-clip": "open_clip_models",
    "onnx": "onnx_file",
    "py": "python_file",
}
EXAMPLES = {
    "timm": "timm:resnet18",
    "hf": "hf:FOLDER",
    "torchvision": "torchvision:resnet50",
    "xrv": "xrv:densenet121-res224-all",
    "monai": "monai:DenseNet121?spatial_dims=3",
    "open-clip": "open-clip:ViT-B-32",
    "onnx": "onnx:FILE.onnx",
    "py": "py:FILE.py:FUNCTION",
}
# how weights are asked for is the same for every source
RESERVED = {
    "weights": "--weights FILE",
    "pretrained": "--weights FILE",
    "pretrained_cfg": "--weights FILE",
    "checkpoint_path": "--weights FILE",
}


def load_model(
    spec: str,
    weights: str | Path | None = None,
    *,
    download: bool = False,
    class_names: Sequence[str] | None = None,
    input_size: int | tuple[int, ...] | None = None,
    device: str | torch.device = "cpu",
    seed: int = 0,
) -> VisionModel:
    """Load a model as it is, find its sites, and check that it does what its description says.

    Parameters
    ----------
    spec
        ``SOURCE:NAME``, as in `EXAMPLES`; behind a ``?`` stand the keyword arguments to build the model with, as
        ``timm:vit_large_patch16_224?init_values=1e-5&dynamic_img_size=true``. Any source takes ``input_size``, ``mean`` and
        ``std`` of the normalisation that a checkpoint was trained with, one number or one for each channel, and
        ``activation``: ``sigmoid`` where every output is a finding of its own, ``softmax`` where one excludes the others.
    weights
        A ``.safetensors`` file or a checkpoint of tensors; ``"random"`` for an untrained network, which every result made
        from it will say; ``None`` for the source's own weights, if they are on this machine.
    download
        Whether the network may be used for weights that are not. Without it nothing is ever fetched.
    class_names
        Names of the outputs, where the source knows none or others are wanted.
    input_size
        Side, (height, width) or (depth, height, width) of the input, for models that take several.
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
    kind, name, options = split_spec(spec)
    if kind not in SOURCES or not name:
        example = f"write {EXAMPLES[kind]}" if kind in EXAMPLES else nearest(kind, EXAMPLES.values())
        if Path(spec).is_file():
            example = (
                "it is a file; weights are given by --weights, beside a --model that says which network they are of, a Python "
                f"file as py:{spec}:FUNCTION, a graph as onnx:{spec}"
            )
        raise ModelError(f"'{spec}' names no model: {example}")
    for option in options.keys() & RESERVED.keys():
        raise ConfigError(f"'{spec}': '{option}' is no option of a model, use {RESERVED[option]}")
    stated, mean, std, said = (options.pop(name, None) for name in ("input_size", "mean", "std", "activation"))
    request = Request(
        spec=spec,
        name=name,
        weights=weights,
        download=download,
        classes=len(class_names) if class_names is not None else None,
        input_size=_size(stated if input_size is None else input_size, spec),
        seed=seed,
        options=options,
    )
    loaded: Loaded = importlib.import_module(f"mechinterp.models.{SOURCES[kind]}").load(request)
    contract = _normalised(loaded.contract, {"mean": mean, "std": std}, spec)
    module = loaded.module.eval().to(_device(device))
    trace = trace_module(module, contract, spec)
    output, logits_module, output_notes = _what_comes_out(trace)
    sites = sites_of(trace, loaded.stages)
    model = VisionModel(
        module=module,
        spec=spec,
        contract=contract,
        class_names=_class_names(class_names, loaded, trace, spec),
        output=output,
        sites=sites,
        trained=loaded.trained,
        weights=loaded.weights,
        logits_module=logits_module,
        activation=_activation(said, loaded, trace, spec),
        licence=loaded.licence,
        notes=(*loaded.notes, *output_notes, *_repeated(trace), *_unplaced(sites)),
    )
    if not model.sites:
        raise ModelError(
            f"'{spec}' has no part that can be hooked: a compiled (TorchScript) module must be given as its source"
        )
    check_model(model, trace.output)
    return model


def _size(size: object, spec: str) -> tuple[int, ...] | None:
    if size is None:
        return None
    sides = (size, size) if isinstance(size, int) else size
    if not isinstance(sides, tuple) or len(sides) not in {2, 3} or not all(isinstance(n, int) for n in sides):
        raise ConfigError(f"'{spec}': input size {size!r} is no size: give SIDE, HEIGHT,WIDTH or DEPTH,HEIGHT,WIDTH")
    if min(sides) < 1:
        raise ConfigError(f"input size {' × '.join(map(str, sides))} is no size: every side must be at least 1")
    return sides


def _normalised(contract: InputContract, stated: Mapping[str, Option], spec: str) -> InputContract:
    """Return the contract with the mean and std that a spec states."""
    found: dict[str, tuple[float, ...]] = {"mean": contract.mean, "std": contract.std}
    for name, value in stated.items():
        if value is None:
            continue
        values = value if isinstance(value, tuple) else (value,) * contract.channels
        numbers = tuple(float(v) for v in values if isinstance(v, (int, float)) and not isinstance(v, bool))
        if len(numbers) != len(values) or len(numbers) != contract.channels:
            raise ConfigError(f"'{spec}': {name} must be one number, or {contract.channels} (one for each channel)")
        found[name] = numbers
    if min(found["std"]) <= 0:
        raise ConfigError(f"'{spec}': std must be above 0")
    return replace(contract, mean=found["mean"], std=found["std"])


def _activation(said: Option, loaded: Loaded, trace: Trace, spec: str) -> Squash:
    """Return what turns logits into probabilities: what is seen in the module, said, known, or usual, in this order."""
    stated = said if said is not None else loaded.activation
    if stated not in {None, *get_args(Squash)}:
        raise ConfigError(f"'{spec}': activation is '{stated}': {nearest(str(stated), get_args(Squash))}")
    if trace.squash is not None and said not in {None, trace.squash}:
        raise ConfigError(f"'{spec}' ends in a {trace.squash}, but activation={said} is said: leave it out")
    # the softmax of a single output is 1 whatever it says
    usual: Squash = "sigmoid" if trace.output.shape[-1] == 1 else "softmax"
    return trace.squash or cast("Squash | None", stated) or usual


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


def _unplaced(sites: Mapping[str, Site]) -> tuple[str, ...]:
    """Return a note if places that a user would look at hold several tokens, and it is not known where these lie."""
    named = [s for s in sites.values() if s.name != s.module and s.tokens > 1] or [
        s for s in sites.values() if s.tokens > 1
    ]
    without = [s.name for s in named if s.grid is None]
    if not without:
        return ()
    return (
        f"no grid: how the tokens lie over the image could not be followed at {len(without)} of {len(named)} places "
        f"({some(without)})",
    )
