"""``mechinterp models``."""

from __future__ import annotations

import importlib.util

from experiments.cli.console import emit_table
from experiments.cli.options import JsonFlag

# spec, example, where weights come from, the package a source needs and the extra that brings it
SOURCES = [
    (
        "timm:NAME",
        "timm:vit_small_patch16_224",
        "--weights FILE, the folder, the hub's local cache, or `random`; RETFound, UNI and Virchow are such checkpoints",
        ("timm", ""),
    ),
    (
        "hf:NAME_OR_DIR",
        "hf:./my-vit",
        "a folder saved by save_pretrained, a name in the local cache, or a kind (hf:dinov2) with --weights; RAD-DINO is one",
        ("transformers", ""),
    ),
    (
        "torchvision:NAME",
        "torchvision:resnet50",
        "--weights FILE, torchvision's own cache, or `random`; videos are volumes",
        ("torchvision", ""),
    ),
    (
        "xrv:NAME",
        "xrv:densenet121-res224-all",
        "--weights FILE, torchxrayvision's own cache, or `random`: chest X-rays",
        ("torchxrayvision", "xrv"),
    ),
    (
        "monai:NAME",
        "monai:DenseNet121?spatial_dims=3",
        "--weights FILE or `random`; monai:UNETR.vit is a part of a network; images and volumes",
        ("monai", "monai"),
    ),
    (
        "open-clip:NAME",
        "open-clip:ViT-B-32",
        "--weights FILE, the folder, or `random`: the image tower; BiomedCLIP is one",
        ("open_clip", "open-clip"),
    ),
    (
        "onnx:FILE",
        "onnx:tumour.onnx",
        "weights are in the file; checked against onnxruntime when loaded",
        ("onnx2torch", "onnx"),
    ),
    (
        "py:FILE.py:FUNCTION",
        "py:my_model.py:build",
        "your own nn.Module; the function may carry input_size, mean, std, class_names",
        ("torch", ""),
    ),
]


def run(as_json: JsonFlag = False) -> None:
    """List the sources of models and how to name one.

    Behind a ? stand the arguments a model is built with: timm:vit_large_patch16_224?init_values=1e-5&num_classes=0. Every source takes
    input_size, mean and std. Nothing is fetched from the network unless --download is given.

    [bold]Examples[/bold]

      mechinterp models

      mechinterp sites 'monai:ViT?img_size=96,96,96&patch_size=16'
    """
    rows = [(spec, example, weights, _installed(*package)) for spec, example, weights, package in SOURCES]
    columns = ["spec", "example", "weights", "installed"]
    emit_table(
        {"sources": [dict(zip(columns, row, strict=True)) for row in rows]},
        "Where a model can come from",
        columns,
        rows,
        as_json=as_json,
    )


def _installed(package: str, extra: str) -> str:
    """Say whether a source's package is there, without importing it."""
    if importlib.util.find_spec(package) is not None:
        return "yes"
    return f"no: pip install 'mechinterp-vision[{extra}]'" if extra else "no"
