"""``py:FILE.py:FUNCTION``: a user's own ``nn.Module``, built by a function of theirs.

The function takes no arguments but those the spec gives (``py:FILE.py:build?classes=3``) and returns the module. These attributes, on the function or on the module, say what it
wants to be fed; all are optional:

=================  =======================================  =========================
``input_size``     ``224``, ``(height, width)`` or          found by trying
                   ``(channels, height, width)``; of a
                   volume ``(channels, depth, height,
                   width)``
``mean``, ``std``  one number, or one per channel           0 and 1
``value_range``    a pixel's value for black and for white  ``(0, 1)``
``layout``         ``"NCHW"`` or ``"NHWC"``                 ``"NCHW"``
``class_names``    one name per output                      ``class 0``, ``class 1``, …
``activation``     ``"softmax"``, or ``"sigmoid"`` where    seen in the module, else
                   every output is a finding of its own     ``"softmax"`` (of one output
                                                            ``"sigmoid"``)
=================  =======================================  =========================

The function usually loads its own weights, so the model counts as trained, unless ``--weights random`` is given.
"""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import torch
from torch import nn

from mechinterp.errors import ModelError, nearest
from mechinterp.models.fitting import load_into
from mechinterp.models.source import Loaded, Request
from mechinterp.models.tracing import probe_input
from mechinterp.models.vision_model import InputContract
from mechinterp.models.weights import first_line, read_state_dict, some

SIZES = (224, 256, 128, 64, 32, 28, 96, 299, 384, 512)
CHANNELS = (3, 1)
_OWN = "mechinterp_user_"


def load(request: Request) -> Loaded:
    """Run the user's function, load the weights it was given, and find its input contract.

    Raises
    ------
    ModelError
        If the file or the function is missing, either fails, or the function returns no ``nn.Module``.
    WeightsError
        If a weights file does not fit.

    """
    file, _, function_name = request.name.rpartition(":")
    if not file:
        raise ModelError(f"'{request.spec}': name the file and the function in it, as py:FILE.py:FUNCTION")
    with _neighbours_importable(Path(file)):
        function = _function(Path(file), function_name, request.spec)
        module = _build(function, request)
    notes = _kept_by_random(module) if request.random else ()
    if request.weights_file is not None:
        notes = load_into(module, read_state_dict(request.weights_file), str(request.weights))
    module.eval()
    declared = _Declared(function, module, request.spec)
    contract, found = _contract(module, declared, request)
    return Loaded(
        module=module,
        contract=contract,
        class_names=declared.names("class_names"),
        trained=not request.random,
        weights="random" if request.random else str(request.weights or "embedded"),
        notes=notes + found,
        activation=declared.get("activation"),
    )


def _function(path: Path, name: str, spec: str) -> Callable[..., object]:
    if not path.is_file():
        raise ModelError(f"'{spec}': there is no file '{path}'")
    namespace = _import(path, spec)
    function = getattr(namespace, name, None)
    if not callable(function):
        own = [
            k for k, v in vars(namespace).items() if callable(v) and getattr(v, "__module__", "") == namespace.__name__
        ]
        raise ModelError(f"'{spec}': {path} has no function '{name}', {nearest(name, own)}")
    checked: Callable[..., object] = function
    return checked


@contextmanager
def _neighbours_importable(path: Path) -> Iterator[None]:
    """Let a user's file import the files beside it, as it can when Python runs it.

    Installed packages go first. What was imported from there is forgotten afterwards, so that another folder's file of the
    same name is not taken for it; packages of an environment inside the folder stay.
    """
    folder = str(path.resolve().parent)
    before = set(sys.modules)
    sys.path.append(folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
        known = {name.partition(".")[0] for name in before}
        for name in set(sys.modules) - before:
            file, top = getattr(sys.modules[name], "__file__", None), name.partition(".")[0]
            if file and top not in known and _lies_in(Path(file), folder, top) and not name.startswith(_OWN):
                del sys.modules[name]


def _lies_in(file: Path, folder: str, top: str) -> bool:
    """Say whether a file is of the module or package `top` directly in a folder, not in an environment further down."""
    return file.is_relative_to(folder) and file.relative_to(folder).parts[0].partition(".")[0] == top


def _import(path: Path, spec: str) -> ModuleType:
    """Run a user's file under a name of its own."""
    name = f"{_OWN}{path.stem}_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]}"
    found = importlib.util.spec_from_file_location(name, path)
    if found is None or found.loader is None:
        raise ModelError(f"'{spec}': '{path}' is no Python file")
    namespace = importlib.util.module_from_spec(found)
    sys.modules[name] = namespace  # dataclasses and typing look a class's module up there
    try:
        found.loader.exec_module(namespace)
    except Exception as error:  # noqa: BLE001 - a user's file may raise anything
        del sys.modules[name]
        raise ModelError(
            f"'{spec}': {path} fails when it is run: {type(error).__name__}: {first_line(error)}"
        ) from None
    return namespace


def _build(function: Callable[..., object], request: Request) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(request.seed)
        try:
            module = function(**request.options)
        except Exception as error:  # noqa: BLE001 - a user's function may raise anything
            given = "with these arguments" if request.options else "without arguments"
            raise ModelError(
                f"'{request.spec}' fails when it is called {given}: {type(error).__name__}: {first_line(error)}"
            ) from None
        if not isinstance(module, nn.Module):
            raise ModelError(f"'{request.spec}' returned a {type(module).__name__}: it must return a torch.nn.Module")
        if isinstance(module, torch.jit.ScriptModule):
            raise ModelError(
                f"'{request.spec}' returned a compiled (TorchScript) module, which cannot be hooked: build the network from its "
                "source and load the weights (torch.jit.load(FILE).state_dict() has them)"
            )
        if request.random:
            for part in module.modules():
                reset = getattr(part, "reset_parameters", None)
                if callable(reset):
                    reset()
    return module


def _kept_by_random(module: nn.Module) -> tuple[str, ...]:
    """Return a note if parameters stand in modules that do not say how they are initialised."""
    kept = [
        f"{path}.{name}".lstrip(".")
        for path, part in module.named_modules()
        if not callable(getattr(part, "reset_parameters", None))
        for name, _ in part.named_parameters(recurse=False)
    ]
    return (f"{len(kept)} parameters keep the function's own values ({some(kept)})",) if kept else ()


class _Declared:
    """What the user's function or module says of itself; the module's word counts first."""

    def __init__(self, function: object, module: nn.Module, spec: str) -> None:
        self._holders = (module, function)
        self._spec = spec

    def get(self, name: str) -> Any:
        for holder in self._holders:
            value = getattr(holder, name, None)
            if value is not None and not callable(value):
                return value
        return None

    def numbers(self, name: str) -> tuple[float, ...] | None:
        value = self.get(name)
        if value is None:
            return None
        values = (value,) if isinstance(value, (int, float)) else value
        try:
            return tuple(float(v) for v in values)
        except (TypeError, ValueError):
            raise ModelError(f"'{self._spec}': {name} is {value!r}, not a number or a list of numbers") from None

    def names(self, name: str) -> tuple[str, ...] | None:
        value = self.get(name)
        if value is None:
            return None
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise ModelError(f"'{self._spec}': {name} is {value!r}, not a list of names")
        return tuple(str(v) for v in value)


def _contract(module: nn.Module, declared: _Declared, request: Request) -> tuple[InputContract, tuple[str, ...]]:
    stated = declared.numbers("input_size")
    if stated is not None and len(stated) == 1:
        stated = stated * 2
    if stated is not None and len(stated) not in {2, 3, 4}:
        raise ModelError(
            f"'{request.spec}': input_size is {stated}, not (height, width), (channels, height, width) or "
            "(channels, depth, height, width)"
        )
    layout: Literal["NCHW", "NHWC"] = declared.get("layout") or "NCHW"
    if layout not in {"NCHW", "NHWC"}:
        raise ModelError(f"'{request.spec}': layout is {layout!r}, not 'NCHW' or 'NHWC'")
    size = request.input_size
    if size is None and stated is not None:
        size = tuple(int(n) for n in (stated[1:] if len(stated) > 2 else stated))
    mean, std = declared.numbers("mean"), declared.numbers("std")
    channels = _channels(module, stated, mean, std)
    attempts = [
        _candidate(c, s, mean, std, declared.numbers("value_range"), layout, request.spec)
        for s in ([size] if size else [(n, n) for n in SIZES])
        for c in channels
    ]
    if len(attempts) == 1:
        return attempts[0], ()  # how it fails, if it does, is seen when its sites are looked for
    failure = ""
    for contract in attempts:
        problem = _failure(module, contract)
        if problem is None:
            notes = (
                ()
                if size
                else (f"input size {contract.height} × {contract.width} found by trying: set input_size to say it",)
            )
            return contract, notes
        failure = failure or problem
    tried = attempts[0]
    hint = "" if size else "; say its size by an attribute input_size on the function, or to load_model"
    raise ModelError(
        f"'{request.spec}' fails on a batch of two images of {tried.channels} × {tried.height} × {tried.width}: {failure}{hint}"
    )


def _channels(
    module: nn.Module, stated: tuple[float, ...] | None, mean: tuple[float, ...] | None, std: tuple[float, ...] | None
) -> tuple[int, ...]:
    """Return the numbers of channels to try: what is stated, what the first convolution takes, the usual ones."""
    if stated is not None and len(stated) > 2:
        return (int(stated[0]),)
    lengths = {len(v) for v in (mean, std) if v is not None and len(v) > 1}
    if lengths:
        return tuple(lengths)
    first = next((m for m in module.modules() if isinstance(m, (nn.Conv2d, nn.Conv3d))), None)
    return (first.in_channels,) if first is not None else CHANNELS


def _candidate(
    channels: int,
    size: tuple[int, ...],
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    value_range: tuple[float, ...] | None,
    layout: Literal["NCHW", "NHWC"],
    spec: str,
) -> InputContract:
    def per_channel(name: str, values: tuple[float, ...] | None, default: float) -> tuple[float, ...]:
        values = (default,) if values is None else values
        if len(values) not in {1, channels}:
            raise ModelError(f"'{spec}': {name} has {len(values)} numbers for {channels} channels")
        return values * channels if len(values) == 1 else values

    low_high = (0.0, 1.0) if value_range is None else value_range
    if len(low_high) != 2:
        raise ModelError(f"'{spec}': value_range is {low_high}, not the values of black and of white")
    return InputContract(
        height=size[-2],
        width=size[-1],
        depth=size[0] if len(size) == 3 else None,
        channels=channels,
        value_range=(low_high[0], low_high[1]),
        mean=per_channel("mean", mean, 0.0),
        std=per_channel("std", std, 1.0),
        layout=layout,
    )


def _failure(module: nn.Module, contract: InputContract) -> str | None:
    """Return how the module fails on two images, in one line; ``None`` if it does not."""
    x = probe_input(contract)
    try:
        with torch.no_grad():
            module(x.movedim(1, -1) if contract.layout == "NHWC" else x)
    except Exception as error:  # noqa: BLE001 - a user's module may raise anything
        return f"{type(error).__name__}: {first_line(error)}"
    return None
