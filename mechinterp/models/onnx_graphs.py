"""Writes an ONNX graph as onnx2torch reads it: constants as weights, and operators of later opsets in their earlier form.

onnx2torch knows operators up to opset 17 or so, and looks for weights among the graph's initializers alone. PyTorch exports later
opsets, and hands equal weights on by an ``Identity``. What is changed here changes nothing of what a graph computes; the converted
module is compared with onnxruntime on the file as it was anyway.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

NEWEST = 17  # opset
_REDUCTIONS = frozenset(
    f"Reduce{what}" for what in ("Max", "Mean", "Min", "Prod", "L1", "L2", "LogSum", "LogSumExp", "SumSquare")
)


def readable(graph: Any) -> Any:
    """Return a copy of an ONNX model for onnx2torch.

    Parameters
    ----------
    graph
        ``onnx.ModelProto``; left as it is.

    Returns
    -------
    onnx.ModelProto
        With constants and copies of weights as initializers, reductions with their axes as an attribute, and splits without
        their number of parts, of opset 17 at most.

    """
    onnx = importlib.import_module("onnx")
    model = onnx.ModelProto()
    model.CopyFrom(graph)
    _with_weights_at_hand(onnx, model.graph)
    if any(o.domain in {"", "ai.onnx"} and o.version > NEWEST for o in model.opset_import):
        _in_earlier_form(onnx, model)
    return model


def _with_weights_at_hand(onnx: Any, graph: Any) -> None:
    """Turn constants, and copies of initializers, into initializers; other copies are read where they come from."""
    weights = {tensor.name: tensor for tensor in graph.initializer}
    outputs = {output.name for output in graph.output}
    instead: dict[str, str] = {}
    kept = []
    for node in graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = instead.get(name, name)
        found = None
        if node.op_type == "Constant":
            found = next((a.t for a in node.attribute if a.name == "value"), None)
        elif node.op_type == "Identity":
            found = weights.get(node.input[0])
        if found is not None and node.output[0] not in outputs:
            copy = onnx.TensorProto()
            copy.CopyFrom(found)
            copy.name = node.output[0]
            weights[copy.name] = copy
            graph.initializer.append(copy)
        elif node.op_type == "Identity" and node.output[0] not in outputs:
            instead[node.output[0]] = node.input[0]
        else:
            kept.append(node)
    del graph.node[:]
    graph.node.extend(kept)


def _in_earlier_form(onnx: Any, model: Any) -> None:
    """Write operators that changed their form after opset 17 as they were there."""
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    written: list[Any] = []
    for node in model.graph.node:
        if node.op_type in _REDUCTIONS and len(node.input) > 1 and node.input[1] in weights:
            axes = onnx.numpy_helper.to_array(weights[node.input[1]]).tolist()
            del node.input[1]
            node.attribute.append(onnx.helper.make_attribute("axes", axes))
        if node.op_type == "Gelu" and not any(a.name == "approximate" and a.s == b"tanh" for a in node.attribute):
            written += _gelu(onnx, node)
            continue
        dropped = {"Split": {"num_outputs"}} | {name: {"noop_with_empty_axes"} for name in _REDUCTIONS}
        kept = [a for a in node.attribute if a.name not in dropped.get(node.op_type, set())]
        del node.attribute[:]
        node.attribute.extend(kept)
        written.append(node)
    del model.graph.node[:]
    model.graph.node.extend(written)
    for opset in model.opset_import:
        if opset.domain in {"", "ai.onnx"}:
            opset.version = min(opset.version, NEWEST)


def _gelu(onnx: Any, node: Any) -> list[Any]:
    """Write x/2 · (1 + erf(x/√2)), which is an operator of its own since opset 20."""
    x, out = node.input[0], node.output[0]
    names = {part: f"{out}/{part}" for part in ("scaled", "erf", "one_more", "product")}
    constants = {"root_of_2": 2**0.5, "one": 1.0, "half": 0.5}
    made = [
        onnx.helper.make_node(
            "Constant",
            [],
            [f"{out}/{name}"],
            value=onnx.numpy_helper.from_array(np.float32(value)),
            name=f"{out}/{name}",
        )
        for name, value in constants.items()
    ]
    steps = [
        ("Div", (x, f"{out}/root_of_2"), names["scaled"]),
        ("Erf", (names["scaled"],), names["erf"]),
        ("Add", (names["erf"], f"{out}/one"), names["one_more"]),
        ("Mul", (x, names["one_more"]), names["product"]),
        ("Mul", (names["product"], f"{out}/half"), out),
    ]
    return [
        *made,
        *(onnx.helper.make_node(kind, list(given), [gives], name=f"{gives} of {kind}") for kind, given, gives in steps),
    ]
