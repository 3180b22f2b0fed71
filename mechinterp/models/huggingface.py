"""``hf:FOLDER``, ``hf:NAME`` or ``hf:KIND``: an image model of transformers.

From a folder that ``save_pretrained`` wrote; by a name that lies in the hub's local cache; or by a kind of model, such as ``dinov2`` or
``siglip_vision_model``, built from transformers' defaults without any file. Options override the configuration, as
``hf:vit?num_hidden_layers=6``; ``class`` names the class to build, of transformers or by its module path.
"""

from __future__ import annotations

import copy
import importlib
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from torch import nn

from mechinterp.errors import DamagedFileError, ModelError, WeightsError, nearest
from mechinterp.files import read_json
from mechinterp.models.building import build_and_fill
from mechinterp.models.hub import WEIGHT_FILES, cache_folder, cached_file, network
from mechinterp.models.options import Option
from mechinterp.models.source import BUILD_ERRORS, Loaded, Request
from mechinterp.models.vision_model import InputContract
from mechinterp.models.weights import first_line, some

CLASS = "class"  # the option that is none of the configuration's


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
        built, classifies = _class(request, config)
        module, weights, notes = _module(request, config, built)
        processor = _processor(request, folder, present)
    if not processor:
        notes += ("has no preprocessor_config.json: pixels are fed from 0 to 1, without normalisation",)
    if not classifies:
        notes += ("has no classification head: what it returns are features, not logits",)
    several = getattr(module.config, "problem_type", None) == "multi_label_classification"
    return Loaded(
        module=module,
        contract=_contract(module.config, processor, request),
        class_names=_class_names(module.config) if classifies else None,
        trained=not request.random,
        weights=weights,
        notes=notes,
        activation="sigmoid" if several else None,
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
    if _is_kind(request.name):
        if request.weights is None:
            raise WeightsError(f"'{request.spec}' names a kind of model, without weights: {remedy}")
        return True
    place = cache_folder(request.name)
    configured = cached_file(request.name, "config.json") is not None
    weighted = request.weights is not None or any(cached_file(request.name, name) for name in WEIGHT_FILES)
    if not request.download:
        if not configured:
            raise ModelError(
                f"'{request.spec}' is neither a folder nor in the hub's cache ({place}): give the folder that holds its "
                f"config.json and model.safetensors, or allow the network by --download{_nearest_kind(request.name)}"
            )
        if not weighted:
            raise WeightsError(
                f"'{request.spec}' has no weights in the hub's cache ({place}): allow the network by --download, {remedy}"
            )
    return configured and weighted


def _is_kind(name: str) -> bool:
    """Whether a name is a kind of model that transformers knows, and no repository."""
    from transformers import CONFIG_MAPPING

    return name in CONFIG_MAPPING


def _nearest_kind(name: str) -> str:
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES as NAMES

    near = nearest(name, NAMES)
    return f" (of the kinds of models, {near})" if "/" not in name and near.startswith("did") else ""


def _classifiers(kind: str) -> tuple[str, ...]:
    """Return the names of the classes that classify images with a kind of model."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES as NAMES

    found: Any = NAMES.get(kind, ())
    return (found,) if isinstance(found, str) else tuple(found)


def _config(request: Request) -> Any:
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    options = {key: list(v) if isinstance(v, tuple) else v for key, v in request.options.items() if key != CLASS}
    try:
        if _is_kind(request.name) and not Path(request.name).is_dir():
            default = AutoConfig.for_model(request.name)
            # a constructor works out what follows from its arguments
            config = default if _of_images(default) is not default else AutoConfig.for_model(request.name, **options)
        else:
            default = config = AutoConfig.from_pretrained(request.name, trust_remote_code=False)
        for key, value in options.items():
            holder = next((c for c in (default, _of_images(default)) if hasattr(c, key)), None)
            if holder is None:
                known = [name for name in vars(_of_images(default)) if not name.startswith("_")]
                raise ModelError(f"'{request.spec}': its configuration has no '{key}', {nearest(key, known)}")
            if config is default:
                setattr(holder, key, value)
        if request.height_and_width is not None and hasattr(_of_images(config), "image_size"):
            _resize(_of_images(config), request.height_and_width)
    except (*BUILD_ERRORS, StrictDataclassError) as error:
        raise ModelError(f"'{request.spec}' has no usable config.json: {first_line(error)}") from None
    if request.classes is not None and request.random:
        config.num_labels = request.classes
    return config


def _resize(config: Any, size: tuple[int, int]) -> None:
    """State an input size as a kind of model wants it: one side, or a list of both."""
    from huggingface_hub.errors import StrictDataclassError

    try:
        config.image_size = size[0] if size[0] == size[1] else list(size)
    except StrictDataclassError:
        config.image_size = list(size)


def _class(request: Request, config: Any) -> tuple[Any, bool]:
    """Return the class to build, and whether it classifies."""
    import transformers

    known = _classifiers(config.model_type)
    named = request.options.get(CLASS)
    if named is not None:
        return _class_named(request, str(named)), str(named).rpartition(".")[2] in known
    if not config.architectures and known:
        config.architectures = [known[0]]  # transformers needs it, and hand-written configurations leave it out
    if set(config.architectures or ()) & set(known):
        return transformers.AutoModelForImageClassification, True
    if _of_images(config) is not config:  # the tower of images of a model of images and text
        towers = transformers.MODEL_MAPPING
        tower: Any = towers.get(type(_of_images(config)), None)
        if tower is not None:
            return tower, False
    return transformers.AutoModel, False


def _class_named(request: Request, path: str) -> Any:
    """Return a class of transformers by its name, or any installed one by its module path."""
    import transformers

    module, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module) if module else transformers, name)
    except (ImportError, AttributeError):
        known = [n for n in dir(transformers) if n.endswith(("Model", "ForImageClassification"))]
        raise ModelError(f"'{request.spec}': there is no class '{path}', {nearest(name, known)}") from None
    if not (isinstance(found, type) and issubclass(found, transformers.PreTrainedModel)):
        raise ModelError(f"'{request.spec}': '{path}' is no model of transformers")
    return found


def _of_images(config: Any) -> Any:
    """Return the part of a configuration that is about images: a model of images and text keeps one for each."""
    return getattr(config, "vision_config", config)


def _module(request: Request, config: Any, built: Any) -> tuple[Any, str, tuple[str, ...]]:
    if request.weights is not None:
        return build_and_fill(request, lambda options: _from_config(config, built, options), "num_labels")
    try:
        module, report = built.from_pretrained(
            request.name, config=_fitting(config, built), output_loading_info=True, trust_remote_code=False
        )
    except BUILD_ERRORS as error:
        raise ModelError(f"'{request.spec}' cannot be loaded by transformers: {first_line(error)}") from None
    untrained = sorted(str(name) for name in report["missing_keys"])
    if untrained:
        raise WeightsError(
            f"'{request.spec}': its weights leave {len(untrained)} tensors of {type(module).__name__} untrained "
            f"({some(untrained)})"
        )
    return module, request.name if Path(request.name).is_dir() else f"hub: {request.name}", ()


def _from_config(config: Any, built: Any, options: Mapping[str, Option]) -> nn.Module:
    config = copy.deepcopy(config)
    if "num_labels" in options:
        config.num_labels = options["num_labels"]
    if hasattr(built, "from_config"):
        module: nn.Module = built.from_config(config, trust_remote_code=False)
    else:
        module = built._from_config(_fitting(config, built))
    return module


def _fitting(config: Any, built: Any) -> Any:
    """Return the part of a configuration that a class is built from: a tower of images wants that of the images."""
    wanted = getattr(built, "config_class", None)
    images = _of_images(config)
    return images if wanted is not None and not isinstance(config, wanted) and isinstance(images, wanted) else config


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
    resize, crop_fraction = _resizing(processor, size)
    return InputContract(
        height=size[0],
        width=size[1],
        channels=channels,
        value_range=(0.0, white),
        mean=tuple(float(v) for v in mean),
        std=tuple(float(v) for v in std),
        resize=resize,
        crop_fraction=crop_fraction,
    )


def _resizing(processor: dict[str, Any], size: tuple[int, int]) -> tuple[Literal["stretch", "crop"], float]:
    """Return how the processor brings an image to the input's size, and how much of it the centre crop leaves."""
    resized = processor.get("size")
    edge = resized.get("shortest_edge") if isinstance(resized, dict) else None
    if not processor.get("do_resize", True) or not processor.get("do_center_crop") or not resized:
        return ("crop", 1.0) if edge else ("stretch", 1.0)
    if edge is None:
        sides = resized if isinstance(resized, dict) else {"height": resized, "width": resized}
        return "stretch", min(1.0, size[0] / sides.get("height", size[0]))
    return "crop", min(1.0, min(size) / edge)


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
