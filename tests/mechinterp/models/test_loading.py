import pytest
import torch

import mechinterp
from mechinterp.errors import ConfigError, ModelError, WeightsError
from mechinterp.models import load_model


@pytest.fixture
def spec(tmp_path):
    def written(body):
        (tmp_path / "net.py").write_text(
            "import torch\nfrom torch import nn\nfrom torch.nn import functional as F\n"
            "BASE = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 3))\n"
            + body
            + "\nnet.input_size = 8\n"
        )
        return f"py:{tmp_path / 'net.py'}:net"

    return written


def wrapped(function):
    return f"class Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n        self.base = BASE\n    def forward(self, x):\n        return {function}\ndef net(): return Net()"


def test_the_function_is_exported_where_users_look_for_it():
    assert mechinterp.load_model is load_model
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        mechinterp.models.nothing  # noqa: B018


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("resnet18", "did you mean 'timm:resnet18'"),
        ("tim:resnet18", "did you mean 'timm:resnet18'"),
        ("timm:", "write timm:resnet18"),
        ("py", "write py:FILE.py:FUNCTION"),
        ("", "valid are|did you mean"),
    ],
)
def test_a_spec_that_names_no_model_says_how_one_looks(text, remedy):
    with pytest.raises(ModelError, match=f"^'{text}' names no model: ({remedy})"):
        load_model(text)


@pytest.mark.parametrize("device", ["cudaa", "cuda:99"])
def test_a_device_that_is_not_there_is_named(spec, device):
    with pytest.raises(ConfigError, match=f"device '{device}' cannot be used"):
        load_model(spec("def net(): return BASE"), device=device)


def test_a_size_below_one_is_refused(spec):
    with pytest.raises(ConfigError, match="input size 0 × 5 is no size"):
        load_model(spec("def net(): return BASE"), input_size=(0, 5))


def test_logits_are_told_from_probabilities(spec):
    x = torch.rand(4, 1, 8, 8)
    plain = load_model(spec("def net(): return BASE"))
    assert (plain.output, plain.logits_module, plain.activation) == ("logits", None, "softmax")

    model = load_model(spec("def net(): return nn.Sequential(BASE, nn.Softmax(-1))"))
    assert (model.output, model.logits_module) == ("probabilities", "1")
    assert torch.allclose(model.logits(x), model.module[0](x))

    model = load_model(spec("def net(): return nn.Sequential(BASE, nn.Sequential(nn.Dropout(), nn.Sigmoid()))"))
    assert (model.output, model.logits_module, model.activation) == ("probabilities", "1.1", "sigmoid")
    assert torch.allclose(model.logits(x), model.module[0](x))


def test_a_softmax_that_is_no_module_is_found_and_undone(spec):
    x = torch.rand(4, 1, 8, 8)
    model = load_model(spec(wrapped("F.softmax(self.base(x), dim=1)")))
    assert (model.output, model.logits_module) == ("probabilities", None)
    assert any("softmax that is no module" in note for note in model.notes)
    difference = model.logits(x) - model.module.base(x)
    assert torch.allclose(difference, difference[:, :1].expand(-1, 3), atol=1e-5)  # one constant per image

    model = load_model(spec(wrapped("torch.sigmoid(self.base(x))")))
    assert model.activation == "sigmoid"
    assert torch.allclose(model.logits(x), model.module.base(x), atol=1e-4)


@pytest.mark.parametrize(
    "function", ["F.log_softmax(self.base(x), 1)", "self.base(x).softmax(1).sqrt()", "(self.base(x) * 0 + 0.5)"]
)
def test_what_is_no_softmax_is_not_taken_for_one(spec, function):
    assert load_model(spec(wrapped(function))).output == "logits"


def test_a_tuple_or_a_dictionary_like_output_is_read(spec):
    assert load_model(spec(wrapped("(self.base(x), x)"))).class_names == ("class 0", "class 1", "class 2")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (wrapped("{'scores': 5}"), "returns a dict without a tensor"),
        (wrapped("self.base(x[:1])"), "returns 1 rows for 2 images: it takes one image at a time"),
        (wrapped("self.base(x).view(1, 3)"), "fails on a batch of two images: it takes one image at a time"),
        ("def net(): return torch.jit.trace(BASE.eval(), torch.rand(2, 1, 8, 8))", "TorchScript"),
    ],
)
def test_a_model_that_cannot_be_used_is_refused_in_one_line(spec, body, message):
    with pytest.raises(ModelError, match=message) as caught:
        load_model(spec(body))
    assert "\n" not in str(caught.value)


def test_class_names_given_by_the_user_count(spec):
    assert load_model(spec("def net(): return BASE"), class_names=["x", "y", "z"]).class_names == ("x", "y", "z")


def test_modules_that_run_more_than_once_are_noted(spec):
    model = load_model(
        spec(
            "class Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
            "        self.conv, self.relu, self.head = nn.Conv2d(1, 1, 3, padding=1), nn.ReLU(), nn.Linear(64, 2)\n"
            "    def forward(self, x):\n        return self.head(self.relu(self.conv(self.relu(self.conv(x)))).flatten(1))\n"
            "def net(): return Net()"
        )
    )
    assert "2 modules run more than once and are no sites (conv, relu)" in model.notes
    assert set(model.sites) == {"head"}


def test_a_model_can_be_loaded_inside_inference_mode(spec):
    with torch.inference_mode():
        model = load_model(spec("def net(): return nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(True), BASE[2:])"))
    assert model.site("stages.0").module == "1"


def test_no_hook_is_left_behind(spec):
    model = load_model(spec("def net(): return BASE"))
    for module in model.module.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks


def test_what_turns_logits_into_probabilities_is_said_where_the_module_does_not_show_it(spec):
    x = torch.rand(4, 1, 8, 8)
    model = load_model(spec("def net(): return BASE") + "?activation=sigmoid")
    assert model.activation == "sigmoid"
    logits = model.logits(x)
    assert torch.equal(model.probabilities(logits), logits.sigmoid())
    said = load_model(spec("def net(): return BASE\nnet.activation = 'sigmoid'"))
    assert said.activation == "sigmoid"
    single = load_model(spec("def net(): return nn.Sequential(BASE, nn.Linear(3, 1))"))
    assert single.activation == "sigmoid"  # a softmax of one output would always be 1


@pytest.mark.parametrize(
    ("body", "option", "message"),
    [
        ("def net(): return BASE", "?activation=sigmiod", "activation is 'sigmiod': did you mean 'sigmoid'"),
        (
            "def net(): return nn.Sequential(BASE, nn.Softmax(-1))",
            "?activation=sigmoid",
            "ends in a softmax, but activation=sig",
        ),
    ],
)
def test_an_activation_that_cannot_be_meant_is_refused(spec, body, option, message):
    with pytest.raises(ConfigError, match=message):
        load_model(spec(body) + option)


def test_a_file_that_is_given_as_a_model_is_said_to_be_one(tmp_path):
    file = tmp_path / "net.pt"
    file.write_bytes(b"")
    with pytest.raises(ModelError, match="it is a file; weights are given by --weights, beside a --model"):
        load_model(str(file))


def test_weights_with_a_head_of_their_own_are_told_how_to_be_loaded(spec, tmp_path):
    model = load_model(spec("def net(): return nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 3))"))
    state = model.module.state_dict()
    mine = {k: v for k, v in state.items() if k.startswith("0")} | {
        "2.0.weight": state["2.weight"],
        "2.0.bias": state["2.bias"],
    }
    torch.save(mine, tmp_path / "mine.pt")
    with pytest.raises(WeightsError, match="all but '2' fits: build the network with your own in its place by py:FILE"):
        load_model(model.spec, weights=tmp_path / "mine.pt")
