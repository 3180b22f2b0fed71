"""``xrv:NAME``: a chest X-ray classifier of torchxrayvision, with weights from a file or its cache, or random.

Its own loader fetches what is missing, whatever was asked for: here networks are built bare, and filled from files only.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mechinterp.errors import MissingDependencyError, ModelError, WeightsError, nearest
from mechinterp.models.building import build_and_fill
from mechinterp.models.options import Option
from mechinterp.models.source import Loaded, Request
from mechinterp.models.vision_model import InputContract
from mechinterp.models.weights import StateDict, read_state_dict

DENSENETS = ("densenet121", "densenet161", "densenet169", "densenet201")
RESNETS = {"resnet50": "resnet50", "resnet101": "resnet101"}
# Operating points rescale probabilities so that each finding's threshold is 0.5; effects are measured on logits.
OPERATING_POINTS = "op_threshs"


def load(request: Request) -> Loaded:
    """Build a classifier of chest X-rays and load its weights.

    The network gives logits, one for each finding: the operating points that torchxrayvision applies to its own weights are
    left out.

    Raises
    ------
    ModelError
        If torchxrayvision has no such model, or it cannot be built with the options.
    WeightsError
        If there are no weights, or they do not fit.
    MissingDependencyError
        If torchxrayvision is not installed.

    """
    library = _library()
    published: Mapping[str, Any] = {n: e for n, e in library.model_urls.items() if n.startswith(("densenet", "resnet"))}
    name = request.name
    known = [*published, *DENSENETS, *RESNETS]
    if name not in known:
        raise ModelError(f"'{request.spec}': torchxrayvision has no classifier '{name}', {nearest(name, known)}")
    architecture, entry = name.partition("-")[0], published.get(name)

    def build(options: Mapping[str, Option]) -> nn.Module:
        if architecture in RESNETS:
            return _resnet(library, architecture, **options)
        module: nn.Module = library.DenseNet(**{**library.get_densenet_params(architecture), **options})
        return module

    if request.weights is None:
        request = replace(request, weights=_cached(request, library, entry))
    module, weights, notes = build_and_fill(request, build, "num_classes", read=_reader(library))
    outputs = int(module.state_dict()[_head(architecture)].shape[0])
    labels = tuple(entry["labels"] if entry else library.DenseNet.targets)
    resolution = int(entry.get("input_resolution", 224)) if entry else 224
    height, width = request.height_and_width or (resolution, resolution)
    return Loaded(
        module=module,
        contract=InputContract(
            height=height,
            width=width,
            channels=_channels(module),
            value_range=(-1024.0, 1024.0),
            mean=(0.0,) * _channels(module),
            std=(1.0,) * _channels(module),
            resize="crop",
        ),
        # a finding that a set of weights was not trained for has no name
        class_names=tuple(label or f"class {i}" for i, label in enumerate(labels)) if len(labels) == outputs else None,
        trained=not request.random,
        weights=weights,
        notes=notes,
        activation="sigmoid",
    )


def _library() -> Any:
    try:
        with warnings.catch_warnings():  # it silences every warning of the process when it is imported
            import torchxrayvision.models as library
    except ImportError:
        raise MissingDependencyError("torchxrayvision", "xrv") from None
    return library


def _resnet(library: Any, architecture: str, num_classes: Any = 18, in_channels: Any = 1) -> nn.Module:
    """Return torchxrayvision's ResNet, whose own constructor wants published weights."""
    from torchvision import models

    class ResNet(library.ResNet):  # type: ignore[misc, name-defined, unused-ignore]
        def __init__(self) -> None:
            nn.Module.__init__(self)
            self.weights, self.apply_sigmoid = None, False
            self.model = models.get_model(architecture, weights=None, num_classes=num_classes)
            self.model.conv1 = nn.Conv2d(in_channels, 64, kernel_size=7, stride=2, padding=3, bias=False)

    return ResNet()


def _head(architecture: str) -> str:
    return "model.fc.weight" if architecture in RESNETS else "classifier.weight"


def _channels(module: nn.Module) -> int:
    return next(m.in_channels for m in module.modules() if isinstance(m, nn.Conv2d))


def _cached(request: Request, library: Any, entry: Mapping[str, Any] | None) -> Path:
    """Return the published file in torchxrayvision's cache."""
    if entry is None:
        raise WeightsError(
            f"'{request.spec}' names an architecture without weights: give --weights FILE, or --weights random for an untrained model"
        )
    file: Path = Path(library.utils.get_cache_dir()) / str(entry["weights_url"]).rpartition("/")[2]
    if not file.is_file():
        raise WeightsError(
            f"'{request.spec}' has no weights on this machine: give --weights FILE, put {entry['weights_url']} into "
            f"'{file.parent}', or ask for an untrained model by --weights random"
        )
    return file


def _reader(library: Any) -> Callable[[Path], StateDict]:
    """Return a reader that also takes torchxrayvision's published files, which hold a whole network.

    Only its own layers and torch's are made from such a file, and nothing in it is run.
    """
    layers = [library.DenseNet, library._DenseLayer, library._DenseBlock, library._Transition, OrderedDict]
    layers += [nn.Sequential, nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.MaxPool2d, nn.AvgPool2d, nn.Linear]

    def read(file: Path) -> StateDict:
        try:
            state = read_state_dict(file)
        except WeightsError as refused:
            try:
                with torch.serialization.safe_globals(layers):
                    network = torch.load(file, map_location="cpu", weights_only=True)
            except Exception:  # noqa: BLE001 - whatever is wrong with it, it was named before
                raise refused from None
            if not isinstance(network, library.DenseNet):
                raise refused from None
            state = dict(network.state_dict())
        return {name: tensor for name, tensor in state.items() if name.rpartition(".")[2] != OPERATING_POINTS}

    return read
