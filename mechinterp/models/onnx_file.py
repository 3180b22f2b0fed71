"""``onnx:FILE``: a graph converted by onnx2torch, accepted only if it computes what onnxruntime computes."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from mechinterp.errors import MissingDependencyError, ModelError, WeightsError
from mechinterp.models.source import Loaded, Request
from mechinterp.models.vision_model import InputContract
from mechinterp.models.weights import first_line

TOLERANCE = 1e-4  # of the largest output


def load(request: Request) -> Loaded:
    """Convert an ONNX classifier and compare it with onnxruntime on a random input.

    Raises
    ------
    ModelError
        If the file is missing, no ONNX, has no single image input, cannot be converted, or the converted module computes
        something else.
    MissingDependencyError
        If onnx, onnx2torch or onnxruntime is not installed.

    """
    path = Path(request.name)
    if not path.is_file():
        raise ModelError(f"'{request.spec}': there is no file '{path}'")
    if request.weights is not None:
        raise WeightsError(f"'{request.spec}' carries its weights: leave --weights out, or use another source")
    graph = _read(path)
    contract = _contract(graph, request)
    module = _convert(graph, request)
    check_against_onnxruntime(module, graph, contract, request.spec, request.seed)
    return Loaded(module=module, contract=contract, notes=(f"converted from {path.name} by onnx2torch",))


def check_against_onnxruntime(
    module: nn.Module, graph: Any, contract: InputContract, spec: str, seed: int = 0
) -> float:
    """Compare the converted module with onnxruntime on one random image.

    Returns
    -------
    float
        The largest difference, relative to the largest output.

    Raises
    ------
    ModelError
        If it is above `TOLERANCE`.

    """
    try:
        import onnxruntime
    except ImportError:
        raise MissingDependencyError("onnxruntime", "onnx") from None
    shape = (1, contract.channels, contract.height, contract.width)
    if contract.layout == "NHWC":
        shape = (1, contract.height, contract.width, contract.channels)
    x = np.random.default_rng(seed).random(shape, dtype=np.float32)
    try:
        session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
        expected = session.run(None, {session.get_inputs()[0].name: x})[0]
        with torch.inference_mode():
            out = module(torch.from_numpy(x))
    except Exception as error:  # noqa: BLE001 - either runtime may fail in any way on a foreign graph
        raise ModelError(f"'{spec}' does not run on one image of shape {shape}: {first_line(error)}") from None
    got = (out[0] if isinstance(out, (tuple, list)) else out).numpy()
    difference = float(np.abs(got - expected).max() / max(float(np.abs(expected).max()), 1e-12))
    if not difference <= TOLERANCE:
        raise ModelError(
            f"'{spec}': the converted module differs from onnxruntime by {difference:.1e} of the largest output "
            f"(allowed {TOLERANCE:.0e}): this graph cannot be used by its ONNX file, load the original model by py:FILE.py:FUNCTION"
        )
    return difference


def _read(path: Path) -> Any:
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError:
        raise MissingDependencyError("onnx", "onnx") from None
    try:
        graph = onnx.load(path)
        onnx.checker.check_model(graph)
    except (DecodeError, onnx.checker.ValidationError, ValueError, OSError) as error:
        raise ModelError(f"'{path}' is no valid ONNX file: {first_line(error)}") from None
    return graph


def _contract(graph: Any, request: Request) -> InputContract:
    """Read size and layout off the graph's input."""
    initialized = {tensor.name for tensor in graph.graph.initializer}
    inputs = [i for i in graph.graph.input if i.name not in initialized]
    if len(inputs) != 1:
        raise ModelError(f"'{request.spec}' has {len(inputs)} inputs: only models of one image are understood")
    dims = [d.dim_value or None for d in inputs[0].type.tensor_type.shape.dim]
    if len(dims) != 4:
        raise ModelError(f"'{request.spec}' takes an input of {len(dims)} axes, not a batch of images (4)")
    layout: Literal["NCHW", "NHWC"]
    if dims[1] in {1, 3, 4} or dims[3] not in {1, 3, 4}:
        layout, channels, height, width = "NCHW", dims[1], dims[2], dims[3]
    else:
        layout, channels, height, width = "NHWC", dims[3], dims[1], dims[2]
    if channels is None:
        raise ModelError(f"'{request.spec}' leaves the number of channels open: export it with a fixed one")
    if height is None or width is None:
        if request.input_size is None:
            raise ModelError(f"'{request.spec}' takes images of any size: say which with --input-size HEIGHT,WIDTH")
        height, width = request.input_size
    elif request.input_size not in {None, (height, width)}:
        raise ModelError(f"'{request.spec}' takes images of {height} × {width} only, not {request.input_size}")
    return InputContract(
        height=height, width=width, channels=channels, mean=(0.0,) * channels, std=(1.0,) * channels, layout=layout
    )


def _convert(graph: Any, request: Request) -> nn.Module:
    try:
        import onnx2torch
    except ImportError:
        raise MissingDependencyError("onnx2torch", "onnx") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module: nn.Module = onnx2torch.convert(graph)
    except Exception as error:  # noqa: BLE001 - the converter raises what it likes on operators it does not know
        raise ModelError(f"'{request.spec}' cannot be converted by onnx2torch: {first_line(error)}") from None
    return module.eval()
