"""Graphs of later opsets, with weights where exporters put them, are written so that they convert and compute the same."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from mechinterp.errors import ModelError
from mechinterp.models import load_model
from mechinterp.models.onnx_graphs import readable

rng = np.random.default_rng(0)


def weights(name, *size):
    return numpy_helper.from_array(rng.normal(size=size).astype(np.float32), name)


def write(path, nodes, initializers, *, opset, outputs="out", width=4):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info(outputs, TensorProto.FLOAT, ["n", width])],
        initializers,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9), path)
    return f"onnx:{path}"


def as_exported(path, opset=20, gelu=True, **attributes):
    """Two convolutions that share a weight by an Identity, a mean with its axes as an input, a split, GELU, a constant."""
    axes = numpy_helper.from_array(np.array([2, 3], dtype=np.int64), "axes")
    half = numpy_helper.from_array(np.float32(0.5))
    nodes = [
        helper.make_node("Identity", ["w"], ["same"], name="copy"),
        helper.make_node("Conv", ["image", "w", "b"], ["c1"], name="stem/conv", pads=[1, 1, 1, 1]),
        helper.make_node("Identity", ["c1"], ["through"], name="dropout"),
        helper.make_node("Conv", ["through", "same", "b"], ["c2"], name="body/conv", pads=[1, 1, 1, 1]),
        helper.make_node("Gelu", ["c2"], ["g"], name="body/act", **attributes)
        if gelu
        else helper.make_node("Relu", ["c2"], ["g"], name="body/act"),
        helper.make_node("ReduceMean", ["g", "axes"], ["m"], name="mean", keepdims=0),
        helper.make_node("Gemm", ["m", "v"], ["two"], name="dense"),
        helper.make_node("Split", ["two"], ["first", "second"], name="split", axis=1, num_outputs=2),
        helper.make_node("Constant", [], ["half"], name="half", value=half),
        helper.make_node("Mul", ["second", "half"], ["weighed"], name="weigh"),
        helper.make_node("Add", ["first", "weighed"], ["out"], name="add"),
    ]
    return write(path, nodes, [weights("w", 3, 3, 3, 3), weights("b", 3), weights("v", 3, 8), axes], opset=opset)


def told(path, x):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {"image": x})[0]


@pytest.mark.parametrize(("opset", "gelu"), [(18, False), (20, True)])
def test_what_exporters_write_today_loads_and_computes_what_onnxruntime_does(tmp_path, opset, gelu):
    path = tmp_path / "net.onnx"
    model = load_model(as_exported(path, opset, gelu))
    x = rng.normal(size=(2, 3, 8, 8)).astype(np.float32)
    with torch.no_grad():
        np.testing.assert_allclose(model.logits(torch.from_numpy(x)).numpy(), told(path, x), atol=1e-5)
    assert any("stem/conv" in name for name in model.sites)


def test_the_graph_that_is_handed_in_stays_as_it_is_and_what_is_made_is_valid_and_equal(tmp_path):
    path = tmp_path / "net.onnx"
    as_exported(path)
    graph = onnx.load(path)
    before = graph.SerializeToString()
    made = readable(graph)
    assert graph.SerializeToString() == before
    onnx.checker.check_model(made)
    assert made.opset_import[0].version == 17
    assert not {"Identity", "Gelu"} & {node.op_type for node in made.graph.node}
    onnx.save(made, tmp_path / "made.onnx")
    x = rng.normal(size=(1, 3, 8, 8)).astype(np.float32)
    np.testing.assert_allclose(told(tmp_path / "made.onnx", x), told(path, x), atol=1e-5)


def test_an_earlier_opset_is_kept_and_an_output_keeps_its_name(tmp_path):
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["p"], name="pool"),
        helper.make_node("Flatten", ["p"], ["f"], name="flat"),
        helper.make_node("Identity", ["f"], ["out"], name="last"),
    ]
    write(tmp_path / "n.onnx", nodes, [], opset=13, width=3)
    made = readable(onnx.load(tmp_path / "n.onnx"))
    assert made.opset_import[0].version == 13
    assert [node.op_type for node in made.graph.node] == ["GlobalAveragePool", "Flatten", "Identity"]


def test_what_still_cannot_be_converted_says_how_to_export_it(tmp_path):
    spec = as_exported(tmp_path / "net.onnx", approximate="tanh")
    with pytest.raises(
        ModelError, match=r"Gelu.*: export it with opset_version=17, or load the model it was exported from by py:"
    ):
        load_model(spec)
