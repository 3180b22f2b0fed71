"""``open-clip:NAME_OR_FOLDER``: the image tower of a CLIP of open_clip, with weights from a file or a folder, or random.

A folder is what open_clip saves for the hub, and what BiomedCLIP and its like come as: ``open_clip_config.json`` beside the weights.
The text tower is neither built nor loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from torch import nn

from mechinterp.errors import DamagedFileError, MissingDependencyError, ModelError, WeightsError, nearest
from mechinterp.files import read_json
from mechinterp.models.building import build_and_fill
from mechinterp.models.hub import cached_file
from mechinterp.models.options import Option
from mechinterp.models.source import Loaded, Request
from mechinterp.models.vision_model import InputContract

CONFIG_FILE = "open_clip_config.json"
WEIGHT_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
RESIZES: Mapping[str, Literal["stretch", "crop", "pad"]] = {"squash": "stretch", "shortest": "crop", "longest": "pad"}


def load(request: Request) -> Loaded:
    """Build the image tower of a CLIP and load its weights. Options override its vision configuration.

    Raises
    ------
    ModelError
        If open_clip has no such model, the folder holds none, or it cannot be built with the options.
    WeightsError
        If there are no weights, or they do not fit.
    MissingDependencyError
        If open_clip is not installed.

    """
    library = _library()
    folder = _folder(request)
    config, preprocessing = _from_folder(request, folder) if folder else _from_name(request, library)
    if request.weights is None:
        request = replace(request, weights=_weights_beside(request, folder))

    def build(options: Mapping[str, Option]) -> nn.Module:
        vision = {**config["vision_cfg"], "timm_model_pretrained": False, **_sized(request), **options}
        width = vision.pop("embed_dim", config["embed_dim"])
        quick = bool(config.get("quick_gelu", False))
        tower: nn.Module = library.model._build_vision_tower(width, library.CLIPVisionCfg(**vision), quick)
        return tower

    # what comes out is an embedding: there is no head whose size could follow a file
    module, weights, notes = build_and_fill(request, build, "embed_dim")
    return Loaded(
        module=module,
        contract=_contract(module, preprocessing),
        trained=not request.random,
        weights=weights,
        notes=(*notes, "has no classification head: what it returns are features, not logits"),
    )


def _library() -> Any:
    try:
        import open_clip
    except ImportError:
        raise MissingDependencyError("open_clip", "open-clip") from None
    return open_clip


def _folder(request: Request) -> Path | None:
    """Return the folder a spec names, itself or by a name in the hub's cache; ``None`` for one of open_clip's own names."""
    if Path(request.name).is_dir():
        return Path(request.name)
    cached = cached_file(request.name, CONFIG_FILE) if "/" in request.name else None
    return cached.parent if cached else None


def _from_name(request: Request, library: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    config = library.get_model_config(request.name)
    if config is None:
        raise ModelError(
            f"'{request.spec}': open_clip has no model '{request.name}', {nearest(request.name, library.list_models())}"
        )
    tags = library.list_pretrained_tags_by_model(request.name)
    stated = [library.get_pretrained_cfg(request.name, tag) for tag in tags]
    # what all published weights of this architecture were trained with is what a fine-tuned one was, too
    shared = {k: v for k, v in stated[0].items() if all(s.get(k) == v for s in stated)} if stated else {}
    return config, shared


def _from_folder(request: Request, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    if not (folder / CONFIG_FILE).is_file():
        raise ModelError(f"'{request.spec}': there is no {CONFIG_FILE} in '{folder}'")
    try:
        content = read_json(folder / CONFIG_FILE)
        config, preprocessing = content["model_cfg"], content.get("preprocess_cfg", {})
        return {"embed_dim": config["embed_dim"], **config, "vision_cfg": dict(config["vision_cfg"])}, preprocessing
    except (DamagedFileError, KeyError, TypeError, AttributeError):
        raise ModelError(f"'{request.spec}': '{folder / CONFIG_FILE}' describes no model of open_clip") from None


def _weights_beside(request: Request, folder: Path | None) -> Path:
    for name in WEIGHT_FILES if folder else ():
        if folder is not None and (folder / name).is_file():
            return folder / name
    place = f"put {WEIGHT_FILES[0]} into '{folder}', " if folder else "name a folder that holds them, "
    raise WeightsError(
        f"'{request.spec}' has no weights: {place}give --weights FILE.safetensors, or ask for an untrained model by "
        "--weights random"
    )


def _sized(request: Request) -> dict[str, Any]:
    size = request.height_and_width
    return {} if size is None else {"image_size": size[0] if size[0] == size[1] else size}


def _contract(module: nn.Module, preprocessing: Mapping[str, Any]) -> InputContract:
    from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD

    size: Any = module.image_size
    height, width = (size, size) if isinstance(size, int) else size
    mean, std = preprocessing.get("mean", OPENAI_DATASET_MEAN), preprocessing.get("std", OPENAI_DATASET_STD)
    return InputContract(
        height=int(height),
        width=int(width),
        mean=tuple(float(v) for v in mean),
        std=tuple(float(v) for v in std),
        resize=RESIZES.get(preprocessing.get("resize_mode", "shortest"), "crop"),
    )
