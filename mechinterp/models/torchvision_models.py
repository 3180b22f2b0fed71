"""``torchvision:NAME``: a classifier of torchvision, of images or of volumes, with weights from a file, its own cache, or random."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mechinterp.errors import ModelError, WeightsError, nearest
from mechinterp.models.building import build_and_fill
from mechinterp.models.fitting import load_into
from mechinterp.models.options import Option
from mechinterp.models.source import Loaded, Request
from mechinterp.models.vision_model import InputContract
from mechinterp.models.weights import StateDict, read_state_dict

# torchvision's published DenseNets carry the names of its first version
_OLD_DENSENET = re.compile(r"(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\.\w+)$")
# and its published Inceptions were trained on another scale, which the network undoes itself where it is told to
_RESCALING = ("googlenet", "inception_v3")


def load(request: Request) -> Loaded:
    """Build a torchvision model and load its weights.

    ``NAME.TAG`` names one of several published sets of weights, as ``vit_b_16.IMAGENET1K_SWAG_E2E_V1``; without a tag it is
    torchvision's default. Models of video take volumes: time is their first axis.

    Raises
    ------
    ModelError
        If torchvision has no such model, or it cannot be built with the options.
    WeightsError
        If there are no weights, or they do not fit.

    """
    from torchvision import models

    name, _, tag = request.name.partition(".")
    videos = models.list_models(module=models.video)
    known = models.list_models(module=models) + videos
    if name not in known:
        raise ModelError(f"'{request.spec}': torchvision has no classifier '{name}', {nearest(name, known)}")
    published = _published(request, name, tag)
    contract = _contract(published, request, volumes=name in videos)

    def build(options: Mapping[str, Option]) -> nn.Module:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that initialising an Inception takes long
            module: nn.Module = models.get_model(name, weights=None, **{**_sizes(name, contract), **options})
        return module

    class_names = None
    if request.weights is not None:
        module, weights, notes = build_and_fill(request, build, "num_classes", read=_read)
    else:
        rescaling = {"transform_input": True} if name in _RESCALING else {}
        file = _cached(request, published)
        with request.building():
            module = build({**rescaling, **request.options})
        weights, notes = f"torchvision: {published}", load_into(module, _read(file), str(file))
        class_names = _distinct(tuple(published.meta["categories"]))
    return Loaded(
        module=module,
        contract=contract,
        class_names=class_names,
        trained=not request.random,
        weights=weights,
        notes=notes,
    )


def _published(request: Request, name: str, tag: str) -> Any:
    """Return torchvision's entry for a set of published weights."""
    from torchvision.models import get_model_weights

    sets = get_model_weights(name)
    if not tag:
        return sets.DEFAULT
    tags = [entry.name for entry in sets]
    if tag not in tags:
        raise WeightsError(f"'{request.spec}': torchvision knows no such weights of {name}, {nearest(tag, tags)}")
    return sets[tag]


def _contract(published: Any, request: Request, *, volumes: bool) -> InputContract:
    """Return the input contract that torchvision's own preset for a set of weights states."""
    preset = published.transforms()
    size: tuple[int, ...] = (preset.crop_size[0], preset.crop_size[-1])
    if volumes:
        size = (max(16, int(published.meta.get("min_temporal_size", 16))), *size)
    if request.input_size is not None:
        if len(request.input_size) != len(size):
            axes = "DEPTH,HEIGHT,WIDTH" if volumes else "HEIGHT,WIDTH"
            raise ModelError(f"'{request.spec}' takes {'volumes' if volumes else 'images'}: give its size as {axes}")
        size = request.input_size
    return InputContract(
        height=size[-2],
        width=size[-1],
        depth=size[0] if volumes else None,
        mean=tuple(float(v) for v in preset.mean),
        std=tuple(float(v) for v in preset.std),
        resize="crop",
        crop_fraction=min(1.0, preset.crop_size[0] / preset.resize_size[0]),
    )


def _sizes(name: str, contract: InputContract) -> dict[str, Any]:
    """Return the arguments by which an architecture is built for an input size, where it has to be."""
    if name.startswith("vit_"):
        return {"image_size": contract.height}
    if name.startswith("maxvit"):
        return {"input_size": (contract.height, contract.width)}
    return {}


def _cached(request: Request, published: Any) -> Path:
    """Return the file of published weights: in torchvision's cache, or fetched into it if that was allowed."""
    file = Path(torch.hub.get_dir()) / "checkpoints" / str(published.url).rpartition("/")[2]
    if not file.is_file():
        if not request.download:
            raise WeightsError(
                f"'{request.spec}' has no weights on this machine: give --weights FILE.safetensors, put {published.url} into "
                f"'{file.parent}', allow the network by --download, or ask for an untrained model by --weights random"
            )
        with request.building():
            published.get_state_dict(progress=False, check_hash=True, weights_only=True)
    return file


def _read(file: Path) -> StateDict:
    state = read_state_dict(file)
    return {_OLD_DENSENET.sub(r"\1\2", name): tensor for name, tensor in state.items()}


def _distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names, numbered where one stands twice: ImageNet has two cranes and two maillots."""
    return tuple(f"{name} ({i})" if names.count(name) > 1 else name for i, name in enumerate(names))
