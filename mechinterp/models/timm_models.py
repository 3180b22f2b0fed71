"""``timm:NAME``: a model of timm, with weights from a file, the local hub cache, or random."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import nn

from mechinterp.errors import ModelError, WeightsError, nearest
from mechinterp.models.hub import cache_folder, cached_weights, download_weights
from mechinterp.models.source import Loaded, Request
from mechinterp.models.vision_model import InputContract
from mechinterp.models.weights import StateDict, first_line, load_into, read_state_dict, without_prefix


def load(request: Request) -> Loaded:
    """Build a timm model and load its weights.

    The numbers of classes and of input channels follow the weights file, as a fine-tuned model's differ from its
    architecture's default.

    Raises
    ------
    ModelError
        If timm has no such model, or it does not take the input size.
    WeightsError
        If there are no weights, or they do not fit.

    """
    import timm

    name, _, _ = request.name.partition(".")
    if not timm.is_model(name):
        raise ModelError(f"'{request.spec}': timm has no model '{name}', {nearest(name, timm.list_models())}")
    state, origin = _state(request)
    options: dict[str, Any] = {}
    if request.classes is not None:
        options["num_classes"] = request.classes
    module = _create(request, options)
    if state is not None:
        wanted = _sizes_of(state, module)
        if request.classes is None and any(options.get(k) != v for k, v in wanted.items()):
            module = _create(request, wanted)
        notes = load_into(module, state, origin)
    else:
        notes = ()
    return Loaded(
        module=module,
        contract=contract_of(module, request),
        trained=state is not None,
        weights=origin,
        licence=module.pretrained_cfg.get("license") if request.weights is None else None,
        stages=_stages(module),
        notes=notes,
    )


def contract_of(module: nn.Module, request: Request) -> InputContract:
    """Return the input contract that timm's configuration of a model states."""
    from timm.data import resolve_model_data_config

    config = resolve_model_data_config(module)
    channels, height, width = config["input_size"]
    if request.input_size is not None:
        height, width = request.input_size
    mean, std = (tuple(float(v) for v in config[k]) for k in ("mean", "std"))
    if len(mean) != channels:  # a model for another number of channels keeps the three-channel statistics
        mean, std = (sum(mean) / len(mean),) * channels, (sum(std) / len(std),) * channels
    return InputContract(height=height, width=width, channels=channels, mean=mean, std=std)


def _state(request: Request) -> tuple[StateDict | None, str]:
    """Return the weights and where they came from; none of them when random ones were asked for."""
    import timm

    if request.random:
        return None, "random"
    if request.weights_file is not None:
        return read_state_dict(request.weights_file), str(request.weights)
    config = timm.get_pretrained_cfg(request.name, allow_unregistered=True)
    repository = config.hf_hub_id if config is not None else None
    if repository and repository.endswith("/"):  # timm's shorthand: the model's own name completes it
        repository += f"{config.architecture}.{config.tag}"
    file = cached_weights(repository) if repository else None
    if file is None and request.download and repository:
        file = download_weights(repository, request.spec)
    if file is None:
        place = f", or {cache_folder(repository)} (the hub's cache of {repository})" if repository else ""
        allow = " or --download to fetch them," if repository else ","
        raise WeightsError(
            f"'{request.spec}' has no weights on this machine: give --weights FILE.safetensors{place},{allow} "
            "or --weights random for an untrained model"
        )
    return read_state_dict(file), f"hub cache: {repository}"


def _create(request: Request, options: dict[str, Any]) -> nn.Module:
    import timm

    options = dict(options)
    if request.input_size is not None:
        options["img_size"] = request.input_size
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(request.seed)
        try:
            try:
                return timm.create_model(request.name, pretrained=False, **options)
            except TypeError as error:  # convolutional networks take any size and no such option
                if not re.search(r"unexpected keyword argument '(img_size|input_size)'", str(error)):
                    raise
                options.pop("img_size")
                return timm.create_model(request.name, pretrained=False, **options)
        except (RuntimeError, ValueError, TypeError, AssertionError) as error:
            raise ModelError(f"'{request.spec}' cannot be built: {first_line(error)}") from None


def _sizes_of(state: StateDict, module: nn.Module) -> dict[str, Any]:
    """Return what the shapes in a state dict say about the numbers of classes and of input channels."""
    fitted, _ = without_prefix(state, module.state_dict())
    found: dict[str, Any] = {}
    for key, axis, option in (("classifier", 0, "num_classes"), ("first_conv", 1, "in_chans")):
        paths = module.pretrained_cfg.get(key)
        path = paths[0] if isinstance(paths, (tuple, list)) else paths
        own = module.state_dict().get(f"{path}.weight")
        tensor = fitted.get(f"{path}.weight")
        if tensor is not None and own is not None and tensor.shape[axis] != own.shape[axis]:
            found[option] = int(tensor.shape[axis])
        elif key == "classifier" and own is not None and tensor is None:
            found[option] = 0  # an encoder without a head
    return found


def _stages(module: nn.Module) -> tuple[str, ...]:
    """Return the stages as timm describes them; none for a model whose stages all have one resolution (a ViT)."""
    info = getattr(module, "feature_info", None) or []
    entries = list(info) if isinstance(info, list) else list(getattr(info, "info", []))
    if len({e["reduction"] for e in entries}) < 2:
        return ()
    return tuple(e["module"] for e in entries)
