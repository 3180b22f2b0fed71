"""``load_model``: from a spec such as ``timm:resnet18`` to a model with its contract, classes and sites."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path

import torch

from mechinterp.errors import ModelError, nearest
from mechinterp.models.discovery import sites_of
from mechinterp.models.source import Loaded, Request
from mechinterp.models.tracing import trace_module
from mechinterp.models.vision_model import VisionModel

SOURCES = {"timm": "timm_models", "onnx": "onnx_file", "hf": "huggingface", "py": "python_file"}


def load_model(
    spec: str,
    weights: str | Path | None = None,
    *,
    download: bool = False,
    class_names: Sequence[str] | None = None,
    input_size: int | tuple[int, int] | None = None,
    device: str | torch.device = "cpu",
    seed: int = 0,
) -> VisionModel:
    """Load a model as it is."""
    kind, colon, name = spec.partition(":")
    if not colon or kind not in SOURCES or not name:
        raise ModelError(f"'{spec}' names no model: {nearest(kind, [f'{k}:…' for k in SOURCES])}")
    size = (input_size, input_size) if isinstance(input_size, int) else input_size
    request = Request(
        spec=spec,
        name=name,
        weights=weights,
        download=download,
        classes=len(class_names) if class_names is not None else None,
        input_size=size,
        seed=seed,
    )
    loaded: Loaded = importlib.import_module(f"mechinterp.models.{SOURCES[kind]}").load(request)
    module = loaded.module.eval().to(device)
    trace = trace_module(module, loaded.contract)
    final = next((p for p in trace.parts.values() if p.is_final and p.is_exactly), None)
    names = tuple(class_names or loaded.class_names or (f"class {i}" for i in range(trace.output.shape[-1])))
    return VisionModel(
        module=module,
        spec=spec,
        contract=loaded.contract,
        class_names=names,
        output="probabilities" if final else "logits",
        sites=sites_of(trace, loaded.stages),
        trained=loaded.trained,
        weights=loaded.weights,
        logits_module=final.path if final else None,
        activation="sigmoid" if final and final.is_exactly == "sigmoid" else "softmax",
        licence=loaded.licence,
        notes=loaded.notes,
    )
