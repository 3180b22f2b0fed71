"""``monai:NAME``: a network of MONAI, of images or of volumes, with random weights or those of a file.

``monai:ViT?img_size=96,96,96&patch_size=16`` is built with these arguments; ``monai:UNETR.vit`` is a part of a network, here the
encoder of a UNETR, filled from a checkpoint of the whole.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from mechinterp.errors import MissingDependencyError, ModelError, WeightsError, nearest
from mechinterp.models.building import build_and_fill
from mechinterp.models.options import Option
from mechinterp.models.source import Loaded, Request
from mechinterp.models.vision_model import InputContract

# MONAI's own networks of images and of volumes are trained on such crops
SIZES: Mapping[int, tuple[int, ...]] = {2: (224, 224), 3: (96, 96, 96)}
FAMILIES = ("resnet", "MedNeXt")  # networks that MONAI builds by a function


def load(request: Request) -> Loaded:
    """Build a network of MONAI and load its weights.

    What a constructor needs and the spec leaves out is one channel, two classes, patches of 16, and as many axes as the input
    size has; three without one.

    Raises
    ------
    ModelError
        If MONAI has no such network or part, or it cannot be built with the options.
    WeightsError
        If no weights were named, or they do not fit.
    MissingDependencyError
        If MONAI is not installed.

    """
    name, _, part = request.name.partition(".")
    make = _constructor(request, name)
    if request.weights is None:
        raise WeightsError(
            f"'{request.spec}' has no weights of its own: give --weights FILE, or --weights random for an untrained model"
        )
    known = inspect.signature(make).parameters
    classes = "out_channels" if "out_channels" in known and "num_classes" not in known else "num_classes"

    def build(options: Mapping[str, Option]) -> nn.Module:
        module: nn.Module = make(**_arguments(known, request, options))
        return module

    module, weights, notes = build_and_fill(request, build, classes)
    if part:
        module = _part(request, module, part)
    return Loaded(
        module=module,
        contract=_contract(request, module),
        trained=not request.random,
        weights=weights,
        notes=(*notes, "states no normalisation: pixels are fed from 0 to 1"),
    )


def _constructor(request: Request, name: str) -> Callable[..., Any]:
    try:
        from monai.networks import nets
    except ImportError:
        raise MissingDependencyError("monai", "monai") from None
    found = {
        key: value
        for key, value in vars(nets).items()
        if (inspect.isclass(value) and issubclass(value, nn.Module) and key == value.__name__)
        or (inspect.isfunction(value) and key.startswith(FAMILIES))
    }
    if name not in found:
        raise ModelError(f"'{request.spec}': MONAI has no network '{name}', {nearest(name, found)}")
    make: Callable[..., Any] = found[name]
    return make


def _arguments(
    known: Mapping[str, inspect.Parameter], request: Request, options: Mapping[str, Option]
) -> dict[str, Any]:
    """Return a constructor's arguments: the spec's, and the usual ones for what it needs and the spec leaves out."""
    given = dict(options)
    size = request.input_size or given.get("img_size")
    dims = given.get("spatial_dims") or (len(size) if isinstance(size, tuple) else 3)
    size = size or SIZES[2 if dims == 2 else 3]
    anything = any(p.kind is p.VAR_KEYWORD for p in known.values())
    needed = {"spatial_dims": dims, "img_size": size, "patch_size": 16, "in_channels": 1, "out_channels": 2}
    for key, value in needed.items():
        if key in known and (known[key].default is inspect.Parameter.empty or key in {"spatial_dims", "img_size"}):
            given.setdefault(key, value)
    if dims != 3 and anything:  # a function hands it on
        given.setdefault("spatial_dims", dims)
    if "pretrained" in known:  # some would fetch weights by default
        given["pretrained"] = False
    return given


def _part(request: Request, module: nn.Module, path: str) -> nn.Module:
    try:
        return module.get_submodule(path)
    except AttributeError:
        parts = [name for name, _ in module.named_children()]
        raise ModelError(f"'{request.spec}' has no part '{path}', {nearest(path, parts)}") from None


def _contract(request: Request, module: nn.Module) -> InputContract:
    """Return the input contract: axes and channels are those of the first convolution."""
    first = next((m for m in module.modules() if isinstance(m, (nn.Conv2d, nn.Conv3d))), None)
    if first is None:
        raise ModelError(
            f"'{request.spec}' has no convolution that says what it is fed: load it by py:FILE.py:FUNCTION"
        )
    axes = len(first.kernel_size)
    stated = request.options.get("img_size")
    size = request.input_size or ((stated,) * axes if isinstance(stated, int) else stated) or SIZES[axes]
    if not isinstance(size, tuple) or len(size) != axes or not all(isinstance(n, int) for n in size):
        what = "images: give its size as HEIGHT,WIDTH" if axes == 2 else "volumes: give its size as DEPTH,HEIGHT,WIDTH"
        raise ModelError(f"'{request.spec}' takes {what}")
    sides = [int(n) for n in size if n is not None]
    channels = first.in_channels
    return InputContract(
        height=sides[-2],
        width=sides[-1],
        depth=sides[0] if axes == 3 else None,
        channels=channels,
        mean=(0.0,) * channels,
        std=(1.0,) * channels,
    )
