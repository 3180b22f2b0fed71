"""``timm:NAME_OR_FOLDER``: a model of timm, with weights from a file, a folder, the hub's local cache, or random.

A folder is what timm saves for the hub, and what many medical encoders come as: ``config.json`` beside the weights. An option that
is a layer is named by its class: ``?mlp_layer=SwiGLUPacked&act_layer=SiLU``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from torch import nn

from mechinterp.errors import ModelError, WeightsError, nearest
from mechinterp.models.fitting import Fit, fit, load_into
from mechinterp.models.hub import cache_folder, cached_file, network
from mechinterp.models.source import Loaded, Request
from mechinterp.models.vision_model import InputContract
from mechinterp.models.weights import StateDict, read_state_dict

HUB_FILES = ("model.safetensors", "pytorch_model.bin", "open_clip_model.safetensors", "open_clip_pytorch_model.bin")
CROP_MODES: Mapping[str, Literal["stretch", "crop", "pad"]] = {"squash": "stretch", "border": "pad"}
# Which option a checkpoint was trained with, told by a name that its file has or lacks.
TELLTALES = (
    ("unexpected", r"\.ls1\.gamma$", "?init_values=1e-5"),
    ("unexpected", r"^reg_token$", "?reg_tokens={}"),
    ("missing", r"^fc_norm\.", "?global_pool=token"),
    ("unexpected", r"^fc_norm\.", "?global_pool=avg"),
    ("missing", r"\.ls1\.gamma$", "?init_values=none"),
    ("reshaped", r"\.mlp\.fc1\.weight$", "?mlp_ratio=N, and ?mlp_layer=SwiGLUPacked for a gated one"),
    ("reshaped", r"^pos_embed$", "?img_size=N, or ?no_embed_class=true"),
)


def load(request: Request) -> Loaded:
    """Build a timm model and load its weights.

    The numbers of classes and of input channels follow a weights file, as a fine-tuned model's differ from its
    architecture's default.

    Raises
    ------
    ModelError
        If timm has no such model, or it does not take the input size.
    WeightsError
        If there are no weights, or they do not fit.

    """
    import timm

    name = request.name.partition(".")[0]
    if not _is_folder(request) and not timm.is_model(name):
        raise ModelError(f"'{request.spec}': timm has no model '{name}', {nearest(name, timm.list_models())}")
    notes: tuple[str, ...] = ()
    if request.random:
        module, weights = _create(request, num_classes=request.classes), "random"
    elif request.weights_file is not None:
        state, weights = read_state_dict(request.weights_file), str(request.weights)
        module = _create(request)
        module = _create(request, **sizes) if (sizes := _sizes_of(state, module, weights)) else module
        notes = load_into(module, state, weights, _remedy)
    elif _is_folder(request):
        module, weights = _with_weights_beside(request)
    else:
        module, weights = _with_hub_weights(request)
    return Loaded(
        module=module,
        contract=contract_of(module, request),
        trained=not request.random,
        weights=weights,
        licence=_config_of(module).get("license") if request.weights is None else None,
        stages=_stages(module),
        notes=notes,
    )


def contract_of(module: nn.Module, request: Request) -> InputContract:
    """Return the input contract that timm's configuration of a model states."""
    from timm import data

    config: dict[str, Any] = data.resolve_model_data_config(module)  # type: ignore[attr-defined, no-untyped-call, unused-ignore]
    channels, height, width = config["input_size"]
    first = next((m for m in module.modules() if isinstance(m, nn.Conv2d)), None)
    if first is not None:  # the configuration states the architecture's default
        channels = first.in_channels
    height, width = request.height_and_width or (height, width)
    mean, std = (tuple(float(v) for v in config[k]) for k in ("mean", "std"))
    if len(mean) != channels:  # a model for another number of channels keeps the statistics of colour images
        mean, std = (sum(mean) / len(mean),) * channels, (sum(std) / len(std),) * channels
    return InputContract(
        height=height,
        width=width,
        channels=channels,
        mean=mean,
        std=std,
        resize=CROP_MODES.get(str(config["crop_mode"]), "crop"),
        crop_fraction=float(config["crop_pct"]),
    )


def _is_folder(request: Request) -> bool:
    return Path(request.name).is_dir()


def _with_weights_beside(request: Request) -> tuple[nn.Module, str]:
    """Return the model with the weights in its folder."""
    folder = Path(request.name)
    if not any((folder / file).is_file() for file in HUB_FILES):
        raise WeightsError(
            f"'{request.spec}' has no weights: put {HUB_FILES[0]} into '{folder}', give --weights FILE.safetensors, or ask for an "
            "untrained model by --weights random"
        )
    with network(allowed=False):
        return _create(request, pretrained=True), request.name


def _with_hub_weights(request: Request) -> tuple[nn.Module, str]:
    """Return the model with timm's own weights: from the hub's cache, or fetched if that was allowed."""
    import timm

    try:
        config = timm.get_pretrained_cfg(request.name)
    except RuntimeError:
        known = timm.list_pretrained(f"{request.name.partition('.')[0]}.*")
        raise WeightsError(f"'{request.spec}': timm knows no such weights, {nearest(request.name, known)}") from None
    repository = config.hf_hub_id if config is not None else None
    if config is None or not repository:
        raise WeightsError(
            f"'{request.spec}': timm has no weights of that name: give --weights FILE.safetensors, or --weights random for an "
            "untrained model"
        )
    if repository.endswith("/"):  # timm's shorthand: the model's own name completes it
        repository += f"{config.architecture}.{config.tag}"
    files = (config.hf_hub_filename,) if config.hf_hub_filename else HUB_FILES
    cached = any(cached_file(repository, file) for file in files)
    if not cached and not request.download:
        raise WeightsError(
            f"'{request.spec}' has no weights on this machine: give --weights FILE.safetensors, put the hub's {repository} into "
            f"{cache_folder(repository)}, allow the network by --download, or ask for an untrained model by --weights random"
        )
    with network(allowed=not cached):
        return _create(request, pretrained=True), f"hub: {repository}"


def _create(request: Request, **options: Any) -> nn.Module:
    import timm

    name = request.name
    if _is_folder(request):
        if not (Path(name) / "config.json").is_file():
            raise ModelError(f"'{request.spec}': there is no config.json in '{name}'")
        name = f"local-dir:{name}"
    options = {k: v for k, v in options.items() if v is not None} | _with_layers(request)
    if request.height_and_width is not None:
        options["img_size"] = request.height_and_width
    with request.building():
        try:
            return timm.create_model(name, **options)
        except TypeError as error:  # convolutional networks take any size and have no such option
            if "img_size" in request.options or not re.search(r"unexpected keyword argument 'img_size'", str(error)):
                raise
            options.pop("img_size")
            return timm.create_model(name, **options)


def _with_layers(request: Request) -> dict[str, Any]:
    """Return the spec's options, with the classes of layers in place of their names."""
    from timm import layers

    options: dict[str, Any] = dict(request.options)
    for key, value in request.options.items():
        if key.endswith("_layer") and isinstance(value, str):
            options[key] = getattr(layers, value, None) or getattr(nn, value, None)
            if options[key] is None:
                raise ModelError(
                    f"'{request.spec}': neither timm nor torch has a layer '{value}', {nearest(value, dir(layers))}"
                )
    return options


def _sizes_of(state: StateDict, module: nn.Module, origin: str) -> dict[str, int]:
    """Return what the shapes in a state dict say about the numbers of classes and of input channels, if not the default."""
    own = module.state_dict()
    fitted = fit(state, own, origin).state
    found: dict[str, int] = {}
    for key, axis, option in (("classifier", 0, "num_classes"), ("first_conv", 1, "in_chans")):
        paths = _config_of(module).get(key)
        name = f"{paths[0] if isinstance(paths, (tuple, list)) else paths}.weight"
        if name in fitted and (name not in own or fitted[name].shape[axis] != own[name].shape[axis]):
            found[option] = int(fitted[name].shape[axis])
        elif key == "classifier" and name in own and name not in fitted and own.keys() & fitted.keys():
            found[option] = 0  # an encoder without a head
    return found


def _remedy(found: Fit) -> str | None:
    """Return the options that the names of a file tell of."""
    told = []
    for where, pattern, option in TELLTALES:
        name = next((n for n in getattr(found, where) if re.search(pattern, n)), None)
        if name is not None:
            told.append(option.format(found.state[name].shape[1] if "{}" in option else ""))
    return f"build the model as it was trained, its names tell of {' and '.join(told)}" if told else None


def _config_of(module: nn.Module) -> dict[str, Any]:
    config = module.pretrained_cfg
    assert isinstance(config, dict)
    return config


def _stages(module: nn.Module) -> tuple[str, ...]:
    """Return the stages as timm describes them; none for a model whose stages all have one resolution (a ViT)."""
    info: Any = getattr(module, "feature_info", None) or []
    entries = list(info) if isinstance(info, list) else list(info.info)
    return tuple(e["module"] for e in entries) if len({e["reduction"] for e in entries}) > 1 else ()
