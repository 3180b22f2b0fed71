import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mechinterp.errors import ConfigError
from mechinterp.models import load_model
from mechinterp.models.options import parse_option, split_spec


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("timm:resnet18", ("timm", "resnet18", {})),
        (
            "timm:vit?init_values=1e-5&dynamic_img_size=true&global_pool=",
            ("timm", "vit", {"init_values": 1e-5, "dynamic_img_size": True, "global_pool": ""}),
        ),
        ("monai:ViT?img_size=96,96,48&act=none", ("monai", "ViT", {"img_size": (96, 96, 48), "act": None})),
        ("py:a?b/net.py:build?classes=3", ("py", "a?b/net.py:build", {"classes": 3})),
        ("onnx:what?.onnx", ("onnx", "what?.onnx", {})),
        ("py:C:net.py:f", ("py", "C:net.py:f", {})),
    ],
)
def test_a_spec_is_source_name_and_options(spec, expected):
    assert split_spec(spec) == expected


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("-0.5", -0.5),
        ("True", True),
        ("1,", (1,)),
        ("gelu", "gelu"),
        ("a,true,2.5", ("a", True, 2.5)),
        ("", ""),
    ],
)
def test_an_options_text_means_what_it_looks_like(text, value):
    found = parse_option(text)
    assert found == value
    assert type(found) is type(value)


@given(st.one_of(st.integers(), st.floats(allow_nan=False), st.booleans(), st.lists(st.integers(), min_size=2)))
def test_numbers_truths_and_lists_come_back_as_they_were_written(value):
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    assert parse_option(text) == (tuple(value) if isinstance(value, list) else value)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("timm:resnet18?a=1&b", "'b' is no option: write \\?NAME=VALUE"),
        ("timm:resnet18?a=1&2=3", "'2=3' is no option"),
        ("timm:resnet18?a=1&a=2", "option 'a' is given twice"),
    ],
)
def test_what_is_no_option_is_refused(spec, message):
    with pytest.raises(ConfigError, match=message):
        split_spec(spec)


NET = """from torch import nn
def build(width=2):
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.Flatten(), nn.Linear(width * 36, 2))
build.input_size = 8
"""


@pytest.fixture
def net(tmp_path):
    (tmp_path / "net.py").write_text(NET)
    return f"py:{tmp_path / 'net.py'}:build"


def test_every_source_takes_a_size_and_a_normalisation(net):
    model = load_model(f"{net}?mean=0.1,0.2,0.3&std=0.5&width=4&input_size=8,8")
    assert (model.contract.mean, model.contract.std) == ((0.1, 0.2, 0.3), (0.5, 0.5, 0.5))
    assert model.site("0").width == 4
    assert model.contract.size == (8, 8)
    assert model.spec.endswith("input_size=8,8")  # so that a run's record says how it was built


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("mean=0.1,0.2", r"mean must be one number, or 3"),
        ("std=true", r"std must be one number, or 3"),
        ("std=0", r"std must be above 0"),
        ("input_size=large", r"input size 'large' is no size"),
        ("input_size=1,2,3,4", r"input size \(1, 2, 3, 4\) is no size"),
        ("input_size=8,0", r"input size 8 × 0 is no size"),
        ("pretrained=true", r"'pretrained' is no option of a model, use --weights FILE"),
    ],
)
def test_a_setting_that_cannot_be_meant_is_named(net, options, message):
    with pytest.raises(ConfigError, match=message):
        load_model(f"{net}?{options}")


def test_a_volume_is_no_size_for_a_model_of_images():
    with pytest.raises(ConfigError, match="takes images: give its input size as HEIGHT,WIDTH"):
        load_model("timm:resnet10t?input_size=8,64,64", "random")


def test_a_function_of_a_user_is_called_with_the_options(net):
    from mechinterp.errors import ModelError

    with pytest.raises(ModelError, match=r"fails when it is called with these arguments: TypeError.*depth"):
        load_model(f"{net}?depth=3")


def test_the_seed_reaches_what_is_built(tmp_path):
    spec = "torchvision:squeezenet1_1?input_size=64"
    one, same, other = (load_model(spec, "random", seed=s).module.state_dict() for s in (1, 1, 2))
    assert all(torch.equal(one[k], same[k]) for k in one)
    assert not all(torch.equal(one[k], other[k]) for k in one)
