"""``mechinterp models``."""

from __future__ import annotations

from experiments.cli.console import emit_table
from experiments.cli.options import JsonFlag

SOURCES = [
    (
        "timm:NAME",
        "timm:vit_small_patch16_224",
        "--weights FILE.safetensors, or `random`; RETFound, UNI and Virchow are such checkpoints",
    ),
    ("hf:NAME_OR_DIR", "hf:./my-vit", "a folder saved by save_pretrained, or a name that lies in the local cache"),
    ("onnx:FILE", "onnx:tumour.onnx", "weights are in the file; checked against onnxruntime when loaded"),
    (
        "py:FILE.py:FUNCTION",
        "py:my_model.py:build",
        "your own nn.Module; the function may carry input_size, mean, std, class_names",
    ),
]


def run(as_json: JsonFlag = False) -> None:
    """List the sources of models and how to name one.

    Nothing is fetched from the network unless --download is given.

    [bold]Example[/bold]

      mechinterp models
    """
    emit_table(
        {"sources": [dict(zip(("spec", "example", "weights"), row, strict=True)) for row in SOURCES]},
        "Where a model can come from",
        ["spec", "example", "weights"],
        SOURCES,
        as_json=as_json,
    )
