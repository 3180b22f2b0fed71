"""``mechinterp models`` and ``mechinterp sites``: every source is listed, and a wrong name costs one line."""

import json

import pytest

from experiments.cli import entry
from experiments.cli.commands import models
from mechinterp.models.loading import EXAMPLES, SOURCES


def run(capsys, *argv):
    code = entry.run(list(argv))
    out, err = capsys.readouterr()
    return code, out, err


def test_every_source_is_listed_with_an_example_of_it(capsys):
    code, out, _ = run(capsys, "models", "--json")
    listed = json.loads(out)["sources"]
    assert code == 0
    assert [row["spec"].partition(":")[0] for row in listed] == list(SOURCES) == list(EXAMPLES)
    assert all(row["example"].startswith(row["spec"].partition(":")[0]) and row["installed"] == "yes" for row in listed)


def test_a_package_that_is_missing_is_named_with_its_extra(capsys, monkeypatch):
    found = models.importlib.util.find_spec
    monkeypatch.setattr(
        models.importlib.util, "find_spec", lambda name: None if name in {"monai", "torch"} else found(name)
    )
    rows = {row["spec"]: row["installed"] for row in json.loads(run(capsys, "models", "--json")[1])["sources"]}
    assert rows["monai:NAME"] == "no: pip install 'mechinterp-vision[monai]'"
    assert rows["py:FILE.py:FUNCTION"] == "no"


@pytest.mark.parametrize(
    "spec",
    [
        "timm:resnet10t?input_size=64",
        "hf:vit?num_hidden_layers=1&hidden_size=24&num_attention_heads=2&intermediate_size=24&input_size=32",
        "torchvision:squeezenet1_1?input_size=64",
        "xrv:densenet121?block_config=1,1,1,1&input_size=64",
        "monai:DenseNet121?spatial_dims=2&block_config=1,1,1,1&input_size=64",
        "open-clip:ViT-B-32?layers=1&width=32&head_width=16&input_size=64",
    ],
)
def test_the_sites_of_every_source_are_listed_without_weights(capsys, spec):
    code, out, _ = run(capsys, "sites", spec, "--json")
    said = json.loads(out)
    assert code == 0
    assert said["model"] == spec
    assert any(site["grid"] for site in said["sites"])


def test_what_a_reader_should_know_is_said_beside_the_sites(capsys):
    code, out, err = run(capsys, "sites", "monai:DenseNet121?spatial_dims=2&block_config=1,1,1,1&input_size=64")
    assert code == 0
    assert "stages.0" in out
    assert "note: states no normalisation: pixels are fed from 0 to 1" in err


@pytest.mark.parametrize(
    ("spec", "remedy"),
    [
        ("torchvison:resnet50", "did you mean 'torchvision:resnet50'"),
        ("timm:resnet81", "did you mean 'resnet"),
        ("hf:vitt", "did you mean 'vit'"),
        ("torchvision:resnet19", "did you mean 'resnet1"),
        ("xrv:densenet121-res224-al", "did you mean 'densenet121-res224-all'"),
        ("monai:DenseNet122", "did you mean 'DenseNet121'"),
        ("monai:UNETR.vitt?img_size=32,32,32&hidden_size=48&num_heads=4&mlp_dim=48", "did you mean 'vit'"),
        ("open-clip:ViT-B-33", "did you mean 'ViT-B-32'"),
        ("onnx:none.onnx", "there is no file 'none.onnx'"),
        ("py:none.py:build", "there is no file 'none.py'"),
        ("timm:resnet10t?weights=x", "'weights' is no option of a model, use --weights FILE"),
        ("timm:resnet10t?dept", "'dept' is no option|timm has no model 'resnet10t?dept'"),
        ("timm:resnet10t?input_size=64&depht=3", "unexpected keyword argument 'depht'"),
    ],
)
def test_a_wrong_name_costs_one_line_and_exit_code_2(capsys, spec, remedy):
    code, out, err = run(capsys, "sites", spec)
    lines = [line for line in err.splitlines() if line.startswith("mechinterp:")]
    assert (code, out, len(lines)) == (2, "", 1)
    assert any(part in lines[0] for part in remedy.split("|"))
    assert "Traceback" not in err
