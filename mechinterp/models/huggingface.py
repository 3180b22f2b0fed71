"""``hf:NAME_OR_FOLDER``: an image model of transformers, from a local folder or the hub's local cache."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from mechinterp.errors import DamagedFileError, ModelError, WeightsError
from mechinterp.files import read_json
from mechinterp.models.fitting import load_into
from mechinterp.models.hub import WEIGHT_FILES, cache_folder, cached_file, network
from mechinterp.models.source import Loaded, Request
from mechinterp.models.vision_model import InputContract
from mechinterp.models.weights import first_line, read_state_dict, some

LOADING_ERRORS = (
    OSError,
    ValueError,
    RuntimeError,
    KeyError,
    TypeError,
    AttributeError,
    ImportError,
    SafetensorError,
    UnpicklingError,
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
    folder = Path(request.name) if Path(request.name).is_dir() else None
    present = _check_present(request, folder)
    with network(allowed=not present), _quiet():
        config = _config(request)
        known = _classifiers(config.model_type)
        if not config.architectures and known:
            config.architectures = [known[0]]  # transformers needs it, and hand-written configurations leave it out
        classifies = bool(set(config.architectures or ()) & set(known))
        module, weights, notes = _module(request, config, folder, classifies)
        processor = _processor(request, folder, present)
    if not processor:
        notes += ("has no preprocessor_config.json: pixels are fed from 0 to 1, without normalisation",)
    if not classifies:
        notes += ("has no classification head: what it returns are features, not logits",)
    return Loaded(
        module=module,
        contract=_contract(config, processor, request),
        class_names=_class_names(config) if classifies else None,
        trained=not request.random,
        weights=weights,
        notes=notes,
    )


def _check_present(request: Request, folder: Path | None) -> bool:
    """Return whether everything is on this machine; fail at once where it is not and the network was not allowed."""
    remedy = "give --weights FILE.safetensors, or ask for an untrained model by --weights random"
    if folder is not None:
        if not (folder / "config.json").is_file():
            raise ModelError(f"'{request.spec}': there is no config.json in '{folder}'")
        if "model_type" not in _json(folder / "config.json") and "architecture" in _json(folder / "config.json"):
            raise ModelError(f"'{request.spec}': '{folder}' holds a model of timm: write timm:{request.name}")
        if request.weights is None and not any((folder / name).is_file() for name in WEIGHT_FILES):
            raise WeightsError(f"'{request.spec}' has no weights: put model.safetensors into '{folder}', {remedy}")
        return True
    place = cache_folder(request.name)
    configured = cached_file(request.name, "config.json") is not None
    weighted = request.weights is not None or any(cached_file(request.name, name) for name in WEIGHT_FILES)
    if not request.download:
        if not configured:
            raise ModelError(
                f"'{request.spec}' is neither a folder nor in the hub's cache ({place}): give the folder that holds its "
                "config.json and model.safetensors, or allow the network by --download"
            )
        if not weighted:
            raise WeightsError(
                f"'{request.spec}' has no weights in the hub's cache ({place}): allow the network by --download, {remedy}"
            )
    return configured and weighted


def _classifiers(model_type: str) -> tuple[str, ...]:
    """Return the names of the classes that classify images with a kind of model."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES as NAMES

    found: Any = NAMES.get(model_type, ())
    return (found,) if isinstance(found, str) else tuple(found)


def _config(request: Request) -> Any:
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(request.name, trust_remote_code=False)
    except LOADING_ERRORS as error:
        raise ModelError(f"'{request.spec}' has no usable config.json: {first_line(error)}") from None
    if request.classes is not None and request.random:
        config.num_labels = request.classes
    if request.height_and_width is not None and hasattr(_of_images(config), "image_size"):
        height, width = request.height_and_width
        _of_images(config).image_size = height if height == width else [height, width]
    return config


def _of_images(config: Any) -> Any:
    """Return the part of a configuration that is about images: a model of images and text keeps one for each."""
    return getattr(config, "vision_config", config)


def _module(
    request: Request, config: Any, folder: Path | None, classifies: bool
) -> tuple[nn.Module, str, tuple[str, ...]]:
    from transformers import AutoModel, AutoModelForImageClassification

    auto: Any = AutoModelForImageClassification if classifies else AutoModel
    report: dict[str, Any] = {}
    try:
        if request.weights is None:
            module, report = auto.from_pretrained(
                request.name, config=config, output_loading_info=True, trust_remote_code=False
            )
        else:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(request.seed)
                module = auto.from_config(config, trust_remote_code=False)
    except LOADING_ERRORS as error:
        raise ModelError(f"'{request.spec}' cannot be loaded by transformers: {first_line(error)}") from None
    if request.random:
        return module, "random", ()
    if request.weights_file is not None:
        state = read_state_dict(request.weights_file)
        return module, str(request.weights), load_into(module, state, str(request.weights))
    untrained = sorted(str(name) for name in report["missing_keys"])
    if untrained:
        raise WeightsError(
            f"'{request.spec}': its weights leave {len(untrained)} tensors of {type(module).__name__} untrained "
            f"({some(untrained)})"
        )
    return module, request.name if folder else f"hub: {request.name}", ()


def _processor(request: Request, folder: Path | None, present: bool) -> dict[str, Any]:
    """Return the image processor's configuration; empty where there is none."""
    name = "preprocessor_config.json"
    path = folder / name if folder else cached_file(request.name, name)
    if path is None and not present:
        path = _fetched(request, name)
    return _json(path) if path is not None and path.is_file() else {}


def _fetched(request: Request, name: str) -> Path | None:
    """Fetch one file into the hub's cache; ``None`` if the repository has none of that name."""
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        return Path(huggingface_hub.hf_hub_download(request.name, name))
    except LocalEntryNotFoundError as error:
        raise ModelError(f"'{request.spec}': {name} cannot be fetched: {first_line(error)}") from None
    except EntryNotFoundError:
        return None


def _json(path: Path) -> dict[str, Any]:
    try:
        content = read_json(path)
    except DamagedFileError as error:
        raise ModelError(str(error)) from None
    return content if isinstance(content, dict) else {}


def _contract(config: Any, processor: dict[str, Any], request: Request) -> InputContract:
    size = request.height_and_width or _size(processor, config)
    if size is None:
        raise ModelError(f"'{request.spec}' does not say its input size: give input_size=(HEIGHT, WIDTH)")
    channels = int(getattr(_of_images(config), "num_channels", 3))
    normalised = bool(processor.get("do_normalize", "image_mean" in processor))
    mean = list(processor.get("image_mean", [0.5])) if normalised else [0.0]
    std = list(processor.get("image_std", [0.5])) if normalised else [1.0]
    mean, std = (v * channels if len(v) == 1 else v for v in (mean, std))
    white = 255.0 * float(processor.get("rescale_factor", 1 / 255)) if processor.get("do_rescale", True) else 255.0
    return InputContract(
        height=size[0],
        width=size[1],
        channels=channels,
        value_range=(0.0, white),
        mean=tuple(float(v) for v in mean),
        std=tuple(float(v) for v in std),
    )


def _size(processor: dict[str, Any], config: Any) -> tuple[int, int] | None:
    """Return (height, width): what is cropped to, what the configuration says, what is resized to, in this order."""
    crop = processor.get("crop_size") if processor.get("do_center_crop") else None
    for value in (crop, getattr(_of_images(config), "image_size", None), processor.get("size")):
        size = value
        if isinstance(size, dict):
            edge = size.get("shortest_edge")
            size = (size.get("height", edge), size.get("width", edge))
        if isinstance(size, int):
            size = (size, size)
        if isinstance(size, (list, tuple)) and len(size) == 2 and all(isinstance(v, int) for v in size):
            return (size[0], size[1])
    return None


def _class_names(config: Any) -> tuple[str, ...]:
    names = {int(k): str(v) for k, v in config.id2label.items()}
    return tuple(f"class {i}" if name == f"LABEL_{i}" else name for i, name in sorted(names.items()))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers' warnings and progress bars off the terminal: what matters is raised."""
    from transformers.utils import logging as reports

    logger: logging.Logger = logging.getLogger("transformers")
    before, bars = logger.level, reports.is_progress_bar_enabled()
    logger.setLevel(logging.ERROR)
    reports.disable_progress_bar()  # type: ignore[no-untyped-call, unused-ignore]
    try:
        yield
    finally:
        logger.setLevel(before)
        if bars:
            reports.enable_progress_bar()  # type: ignore[no-untyped-call, unused-ignore]
