"""``onnx:FILE``: a graph converted by onnx2torch, accepted only if it computes what onnxruntime computes."""

from __future__ import annotations

import importlib
import warnings
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from mechinterp.errors import MissingDependencyError, ModelError, WeightsError
from mechinterp.models.onnx_graphs import NEWEST, readable
from mechinterp.models.source import Loaded, Request
from mechinterp.models.vision_model import InputContract
from mechinterp.models.weights import first_line

TOLERANCE = 1e-4  # of the largest output
COLOURS = {1, 3, 4}  # how many channels an axis of images has


def load(request: Request) -> Loaded:
    """Convert an ONNX classifier and compare it with onnxruntime on a random image.

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
        raise WeightsError(f"'{request.spec}' carries its own weights: leave --weights out")
    if request.options:
        raise ModelError(f"'{request.spec}' is built already: it takes no option but input_size")
    graph = _read(path)
    contract = _contract(graph, request)
    module = _convert(graph, request.spec)
    check_against_onnxruntime(module, path, contract, seed=request.seed)
    return Loaded(module=module, contract=contract, notes=(f"converted from {path.name} by onnx2torch",))


def check_against_onnxruntime(module: nn.Module, path: Path, contract: InputContract, *, seed: int = 0) -> float:
    """Compare a converted module with onnxruntime on one random image.

    Parameters
    ----------
    module
        The converted graph.
    path
        The ONNX file.
    contract
        What the graph wants to be fed.
    seed
        Of the image.

    Returns
    -------
    float
        The largest difference, relative to the largest output.

    Raises
    ------
    ModelError
        If it is above `TOLERANCE`, or one of the two does not run.

    """
    onnxruntime = _package("onnxruntime")
    shape = (1, contract.channels, contract.height, contract.width)
    if contract.layout == "NHWC":
        shape = (1, contract.height, contract.width, contract.channels)
    x = np.random.default_rng(seed).random(shape, dtype=np.float32)
    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        expected = session.run(None, {session.get_inputs()[0].name: x})[0]
        with torch.inference_mode():
            out = module(torch.from_numpy(x))
    except Exception as error:  # noqa: BLE001 - either runtime may fail in any way on a foreign graph
        raise ModelError(f"'{path}' does not run on one image of shape {shape}: {first_line(error)}") from None
    got = (out[0] if isinstance(out, (tuple, list)) else out).numpy()
    difference = float(np.abs(got - expected).max() / max(float(np.abs(expected).max()), 1e-12))
    if not difference <= TOLERANCE:
        raise ModelError(
            f"'{path}': the converted module differs from onnxruntime by {difference:.1e} of the largest output (allowed are "
            f"{TOLERANCE:.0e}): load the model it was exported from by py:FILE.py:FUNCTION instead"
        )
    return difference


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise MissingDependencyError(name, "onnx") from None


def _read(path: Path) -> Any:
    onnx = _package("onnx")
    message = importlib.import_module("google.protobuf.message")
    try:
        onnx.checker.check_model(str(path))
        return onnx.load(path)
    except (message.DecodeError, onnx.checker.ValidationError, ValueError, OSError, RuntimeError) as error:
        raise ModelError(f"'{path}' is no valid ONNX file: {first_line(error)}") from None


def _contract(graph: Any, request: Request) -> InputContract:
    """Read size and layout off the graph's input."""
    initialized = {tensor.name for tensor in graph.graph.initializer}
    inputs = [i for i in graph.graph.input if i.name not in initialized]
    if len(inputs) != 1:
        raise ModelError(f"'{request.spec}' has {len(inputs)} inputs: only models of one image are understood")
    dims = [d.dim_value or None for d in inputs[0].type.tensor_type.shape.dim]
    if len(dims) != 4:
        raise ModelError(f"'{request.spec}' takes an input of {len(dims)} axes, not a batch of images (4)")
    layout: Literal["NCHW", "NHWC"] = "NHWC" if dims[3] in COLOURS and dims[1] not in COLOURS else "NCHW"
    channels, height, width = dims[1:] if layout == "NCHW" else (dims[3], dims[1], dims[2])
    if channels is None or any(side is not None and side < channels for side in (height, width)):
        raise ModelError(
            f"'{request.spec}' does not say which axis holds the channels: export it with a fixed number of them"
        )
    wanted = request.height_and_width or (None, None)
    for stated, asked in ((height, wanted[0]), (width, wanted[1])):
        if stated and asked and stated != asked:
            raise ModelError(f"'{request.spec}' takes images of {height} × {width} pixels only: leave input_size out")
    height, width = height or wanted[0], width or wanted[1]
    if height is None or width is None:
        raise ModelError(f"'{request.spec}' takes images of any size: say which by input_size=(HEIGHT, WIDTH)")
    zeros, ones = (0.0,) * channels, (1.0,) * channels
    return InputContract(height=height, width=width, channels=channels, mean=zeros, std=ones, layout=layout)


def _convert(graph: Any, spec: str) -> nn.Module:
    onnx2torch = _package("onnx2torch")
    # its modules index by lists of slices, which still works: the comparison with onnxruntime would show if it did not
    warnings.filterwarnings("ignore", message="Using a non-tuple sequence", module=r"onnx2torch\.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                module: nn.Module = onnx2torch.convert(graph)
            except Exception:  # noqa: BLE001 - the converter raises what it likes on graphs it does not know
                module = onnx2torch.convert(readable(graph))
    except Exception as error:  # noqa: BLE001 - and so on what could not be made readable for it
        raise ModelError(
            f"'{spec}' cannot be converted by onnx2torch ({first_line(error)}): export it with opset_version={NEWEST}, or load "
            "the model it was exported from by py:FILE.py:FUNCTION"
        ) from None
    return module.eval()
