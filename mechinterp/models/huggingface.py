"""``hf:NAME_OR_DIR``: an image model of transformers, from a local folder or the hub's local cache."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mechinterp.errors import ModelError, WeightsError
from mechinterp.files import read_json
from mechinterp.models.hub import cache_folder, cached_file, cached_weights, offline
from mechinterp.models.source import Loaded, Request
from mechinterp.models.vision_model import InputContract
from mechinterp.models.weights import first_line, load_into, read_state_dict, some

FOLDER_WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)


def load(request: Request) -> Loaded:
    """Load an image classifier, or an encoder without a head, of transformers. Code from the hub is never run.

    Raises
    ------
    ModelError
        If there is no configuration, or transformers cannot build the model.
    WeightsError
        If there are no weights, or they leave parts of the model untrained.

    """
    folder = Path(request.name)
    local = folder.is_dir()
    if local and not (folder / "config.json").is_file():
        raise ModelError(f"'{request.spec}': there is no config.json in '{folder}'")
    if not local:
        _check_cached(request)
    with nullcontext() if request.download and not local else offline(), _quiet():
        config = _config(request)
        module, weights, notes = _module(request, config, folder if local else None)
        processor = _processor(request, folder if local else None)
    return Loaded(
        module=module,
        contract=_contract(config, processor, request),
        class_names=_class_names(config) if hasattr(module, "classifier") else None,
        trained=not request.random,
        weights=weights,
        notes=notes,
    )


def _check_cached(request: Request) -> None:
    """Fail at once where the network would be needed and was not allowed."""
    if request.download:
        return
    place = cache_folder(request.name)
    if cached_file(request.name, "config.json") is None:
        raise ModelError(
            f"'{request.spec}' is neither a folder nor in the hub's cache ({place}): give the folder that holds its "
            "config.json and model.safetensors, or --download to fetch it"
        )
    if request.weights is None and cached_weights(request.name) is None:
        raise WeightsError(
            f"'{request.spec}' has no weights in the hub's cache ({place}): give --weights FILE.safetensors, --download to "
            "fetch them, or --weights random for an untrained model"
        )


def _config(request: Request) -> Any:
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(request.name, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"'{request.spec}' has no usable config.json: {first_line(error)}") from None
    if request.classes is not None and request.random:
        config.num_labels = request.classes
    if request.input_size is not None and hasattr(config, "image_size"):
        height, width = request.input_size
        config.image_size = height if height == width else [height, width]
    return config


def _module(request: Request, config: Any, folder: Path | None) -> tuple[nn.Module, str, tuple[str, ...]]:
    from transformers import AutoModel, AutoModelForImageClassification
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES as CLASSIFIERS

    known = CLASSIFIERS.get(config.model_type)
    known = known if isinstance(known, tuple) else (known,) if known else ()
    if not config.architectures and known:
        config.architectures = [known[0]]  # transformers needs it, and hand-written configurations leave it out
    classifies = bool(set(config.architectures or ()) & set(known))
    auto = AutoModelForImageClassification if classifies else AutoModel
    notes = () if classifies else ("has no classification head: what it returns are features, not logits",)
    try:
        if request.weights is not None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(request.seed)
                module = auto.from_config(config, trust_remote_code=False)
            if request.random:
                return module, "random", notes
            notes += load_into(module, read_state_dict(Path(request.weights)), str(request.weights))
            return module, str(request.weights), notes
        if folder is not None and not any((folder / name).is_file() for name in FOLDER_WEIGHTS):
            raise WeightsError(
                f"'{request.spec}' has no weights: put model.safetensors into '{folder}', give --weights FILE.safetensors, "
                "or --weights random for an untrained model"
            )
        module, report = auto.from_pretrained(
            request.name, config=config, output_loading_info=True, trust_remote_code=False
        )
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, ImportError) as error:
        raise ModelError(f"'{request.spec}' cannot be loaded by transformers: {first_line(error)}") from None
    missing = sorted(str(name) for name in report["missing_keys"])
    if missing:
        raise WeightsError(
            f"'{request.spec}': its weights leave {len(missing)} tensors of {type(module).__name__} untrained ({some(missing)})"
        )
    return module, request.name if folder else f"hub cache: {request.name}", notes


def _processor(request: Request, folder: Path | None) -> dict[str, Any]:
    """Return the image processor's configuration; empty where there is none."""
    path = folder / "preprocessor_config.json" if folder else cached_file(request.name, "preprocessor_config.json")
    if path is None or not path.is_file():
        return {}
    content = read_json(path)
    return content if isinstance(content, dict) else {}


def _contract(config: Any, processor: dict[str, Any], request: Request) -> InputContract:
    size = request.input_size or _size(processor, config)
    if size is None:
        raise ModelError(f"'{request.spec}' does not say its input size: give --input-size HEIGHT,WIDTH")
    channels = int(getattr(config, "num_channels", 3))
    normalised = bool(processor.get("do_normalize", bool(processor)))
    mean = processor.get("image_mean", [0.5]) if normalised else [0.0]
    std = processor.get("image_std", [0.5]) if normalised else [1.0]
    mean, std = (tuple(float(x) for x in (v * channels if len(v) == 1 else v)) for v in (mean, std))
    white = 255.0 * float(processor.get("rescale_factor", 1 / 255)) if processor.get("do_rescale", True) else 255.0
    return InputContract(height=size[0], width=size[1], channels=channels, value_range=(0.0, white), mean=mean, std=std)


def _size(processor: dict[str, Any], config: Any) -> tuple[int, int] | None:
    """Return (height, width): what is cropped to, what is resized to, what the configuration says, in this order."""
    image_size = getattr(config, "image_size", None)
    for value in (
        processor.get("crop_size") if processor.get("do_center_crop") else None,
        image_size,
        processor.get("size"),
    ):
        if isinstance(value, dict):
            edge = value.get("shortest_edge")
            value = (value.get("height", edge), value.get("width", edge))
        if isinstance(value, int):
            value = (value, value)
        if isinstance(value, (list, tuple)) and len(value) == 2 and all(isinstance(v, int) for v in value):
            return (value[0], value[1])
    return None


def _class_names(config: Any) -> tuple[str, ...]:
    names = {int(k): str(v) for k, v in (getattr(config, "id2label", None) or {}).items()}
    return tuple(f"class {i}" if names.get(i, f"LABEL_{i}") == f"LABEL_{i}" else names[i] for i in range(len(names)))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers' warnings and progress bars off the terminal: what matters is raised."""
    from transformers.utils import logging as transformers_logging

    logger = logging.getLogger("transformers")
    before, bars = logger.level, transformers_logging.is_progress_bar_enabled()
    logger.setLevel(logging.ERROR)
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        logger.setLevel(before)
        if bars:
            transformers_logging.enable_progress_bar()
