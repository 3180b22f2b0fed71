import sys
import textwrap

import pytest
import torch
from safetensors.torch import save_file

from mechinterp.errors import ModelError, WeightsError
from mechinterp.models import load_model
from mechinterp.models.vision_model import InputContract

NET = """
import torch
from torch import nn

def net():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3),
    )
"""


@pytest.fixture
def write(tmp_path):
    def written(text, name="mine.py"):
        (tmp_path / name).write_text(textwrap.dedent(text))
        return f"py:{tmp_path / name}:net"

    return written


def test_a_users_function_is_a_model_as_it_is(write):
    path = list(sys.path)
    model = load_model(write(NET))
    assert sys.path == path
    assert model.trained
    assert model.weights == "embedded"
    assert model.class_names == ("class 0", "class 1", "class 2")
    assert not model.module.training
    assert model.contract == InputContract(224, 224, 1, mean=(0.0,), std=(1.0,))
    assert "input size 224 × 224 found by trying: set input_size to say it" in model.notes


def test_what_the_function_says_of_itself_is_the_contract(write):
    model = load_model(
        write(
            NET.replace("nn.Conv2d(1, 4", "nn.Conv2d(3, 4")
            + "net.input_size = (3, 20, 30)\nnet.mean = 0.5\nnet.std = [0.1, 0.2, 0.3]\n"
            + "net.value_range = (0, 255)\nnet.class_names = ['a', 'b', 'c']\n"
        )
    )
    assert model.contract == InputContract(20, 30, 3, (0.0, 255.0), (0.5, 0.5, 0.5), (0.1, 0.2, 0.3))
    assert model.class_names == ("a", "b", "c")
    assert model.notes == ()
    assert (model.site("0").grid.rows, model.site("0").grid.columns) == (20, 30)


def test_what_the_module_says_counts_before_the_function(write):
    model = load_model(
        write(NET + "old = net\ndef net():\n    m = old()\n    m.input_size = 16\n    return m\nnet.input_size = 99\n")
    )
    assert (model.contract.height, model.contract.width) == (16, 16)


def test_the_size_a_user_asks_for_counts_before_both(write):
    model = load_model(write(NET + "net.input_size = 99\n"), input_size=(12, 14))
    assert (model.contract.height, model.contract.width) == (12, 14)


def test_a_size_is_found_by_trying_where_only_one_fits(write):
    model = load_model(
        write(
            """
            from torch import nn
            def net():
                return nn.Sequential(nn.Conv2d(3, 2, 4, stride=4), nn.Flatten(), nn.Linear(2 * 8 * 8, 2))
            """
        )
    )
    assert (model.contract.height, model.contract.width) == (32, 32)
    assert any("32 × 32 found by trying" in note for note in model.notes)


def test_channels_are_tried_where_no_convolution_says_them(write):
    model = load_model(
        write(
            """
            from torch import nn
            def net():
                return nn.Sequential(nn.Flatten(), nn.Linear(64 * 64, 5), nn.Linear(5, 2))
            """
        )
    )
    assert (model.contract.channels, model.contract.height) == (1, 64)


def test_a_module_that_wants_its_channels_last_gets_them(write):
    model = load_model(
        write(
            """
            from torch import nn
            class Net(nn.Module):
                layout, input_size, mean = "NHWC", 12, (0, 0, 0)
                def __init__(self):
                    super().__init__()
                    self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)
                def forward(self, x):
                    return self.head(self.conv(x.permute(0, 3, 1, 2)).mean((2, 3)))
            def net():
                return Net()
            """
        )
    )
    assert model.contract.layout == "NHWC"
    assert model.logits(torch.rand(2, 3, 12, 12)).shape == (2, 2)
    assert model.site("conv").grid.extent == (3, 3)


def test_random_weights_replace_the_functions_own_and_are_untrained(write):
    spec = write(
        NET + "old = net\ndef net():\n    m = old()\n    nn.init.ones_(m[0].weight)\n    return m\nnet.input_size = 8\n"
    )
    own, one, same, other = (load_model(spec), *(load_model(spec, "random", seed=s) for s in (1, 1, 2)))
    assert (own.module[0].weight == 1).all()
    assert not (one.module[0].weight == 1).any()
    assert (own.trained, one.trained, one.weights) == (True, False, "random")
    assert one.weights_hash == same.weights_hash
    assert one.weights_hash != other.weights_hash


def test_parameters_that_random_weights_cannot_reach_are_noted(write):
    model = load_model(
        write(
            """
            import torch
            from torch import nn
            class Scale(nn.Module):
                def __init__(self):
                    super().__init__()
                    self.gain = nn.Parameter(torch.ones(1))
                def forward(self, x):
                    return x * self.gain
            def net():
                return nn.Sequential(nn.Conv2d(1, 2, 3), Scale(), nn.Flatten(), nn.Linear(8, 2))
            net.input_size = 4
            """
        ),
        "random",
    )
    assert "1 parameters keep the function's own values (1.gain)" in model.notes


def test_the_callers_random_numbers_are_not_disturbed(write):
    spec = write(NET + "net.input_size = 8\n")
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    load_model(spec, "random", seed=5)
    assert torch.rand(3).equal(expected)


def test_a_weights_file_is_loaded(write, tmp_path):
    spec = write(NET + "net.input_size = 8\n")
    other = load_model(spec, "random", seed=7)
    save_file({f"module.{k}": v for k, v in other.module.state_dict().items()}, tmp_path / "w.safetensors")
    model = load_model(spec, tmp_path / "w.safetensors")
    assert model.weights_hash == other.weights_hash
    assert model.trained
    assert model.weights == str(tmp_path / "w.safetensors")
    assert "prefix 'module.' stripped from the names in w.safetensors" in model.notes


def test_weights_of_another_model_are_refused(write, tmp_path):
    save_file({"a.weight": torch.zeros(1)}, tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match=r"does not fit the model: 6 missing .*1 unexpected \(a\.weight\)"):
        load_model(write(NET), tmp_path / "w.safetensors")


def test_dataclasses_in_a_users_file_work(write):
    load_model(
        write(
            "from __future__ import annotations\nfrom dataclasses import dataclass\n"
            "@dataclass\nclass Config:\n    width: int = 4\n" + NET + "net.input_size = 8\n"
        )
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def other(): pass\ndef nets(): pass\n", r"has no function 'net', did you mean 'nets'\?"),
        ("x = 1\n", "has no function 'net', there are none"),
        ("import no_such_package\n", "fails when it is run: ModuleNotFoundError: No module named 'no_such_package'"),
        ("def net(:\n", "fails when it is run: SyntaxError"),
        ("def net(width): pass\n", "fails when it is called without arguments: TypeError.*width"),
        ("def net():\n    raise RuntimeError('no file weights.pt')\n", "RuntimeError: no file weights.pt"),
        (
            "def net():\n    raise RuntimeError('cannot load:\\n  no fc.bias\\n')\n",
            "RuntimeError: cannot load: no fc.bias$",
        ),
        ("def net():\n    return 5\n", "returned a int: it must return a torch.nn.Module"),
        (NET + "net.input_size = (1, 2, 3, 4, 5)\n", "input_size is .*not .height, width."),
        (NET + "net.input_size = 'large'\n", "input_size is 'large', not a number"),
        (NET + "net.layout = 'CHW'\n", "layout is 'CHW', not 'NCHW' or 'NHWC'"),
        (NET + "net.mean = (0.1, 0.2)\nnet.input_size = (1, 8, 8)\n", "mean has 2 numbers for 1 channels"),
        (NET + "net.value_range = (0, 1, 2)\n", "value_range is .*black"),
        (NET + "net.class_names = 'abc'\n", "class_names is 'abc', not a list of names"),
        (
            NET + "net.class_names = ['a', 'b']\nnet.input_size = 8\n",
            r"has 3 outputs, but 2 class names are given \(a, b\)",
        ),
        (NET + "net.class_names = ['a', 'b', 'a']\nnet.input_size = 8\n", r"a class name stands twice \(a, a\)"),
        (
            NET + "net.input_size = (3, 8, 8)\n",
            "fails on a batch of two images of 3 × 8 × 8: RuntimeError: Given groups=1",
        ),
    ],
)
def test_a_users_mistake_is_one_line_that_names_it(write, text, message):
    with pytest.raises(ModelError, match=message) as caught:
        load_model(write(text))
    assert "\n" not in str(caught.value)
    assert "mine.py" in str(caught.value)


def test_a_missing_file_or_function_name_is_said(tmp_path):
    with pytest.raises(ModelError, match=r"there is no file '.*nothing\.py'"):
        load_model(f"py:{tmp_path}/nothing.py:net")
    with pytest.raises(ModelError, match="name the file and the function in it"):
        load_model("py:net")
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(ModelError, match="is no Python file"):
        load_model(f"py:{tmp_path}/notes.txt:net")


def test_a_module_that_fits_no_size_quotes_its_own_error(write):
    with pytest.raises(
        ModelError, match=r"fails on a batch of two images of 3 × 224 × 224: RuntimeError.*; say its size by"
    ):
        load_model(
            write(
                """
                from torch import nn
                def net():
                    return nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(17, 2))
                """
            )
        )


def test_a_file_imports_the_files_beside_it_and_never_those_of_another_folder(tmp_path):
    for name, width in (("one", 3), ("other", 7)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "net_beside.py").write_text(
            f"from torch import nn\n\ndef body():\n    return nn.Conv2d(3, {width}, 3)\n"
        )
        (tmp_path / name / "mine.py").write_text(
            "from torch import nn\n\ndef build():\n    from net_beside import body\n"
            "    return nn.Sequential(body(), nn.AdaptiveAvgPool2d(1), nn.Flatten())\n\nbuild.input_size = 32\n"
        )
    path, known = list(sys.path), set(sys.modules)
    for name, width in (("one", 3), ("other", 7)):
        model = load_model(f"py:{tmp_path / name / 'mine.py'}:build")
        assert model.module[0].out_channels == width
    assert sys.path == path
    assert "net_beside" not in set(sys.modules) - known


def test_packages_of_an_environment_in_the_users_folder_stay_imported(tmp_path, monkeypatch):
    packages = tmp_path / ".venv" / "lib" / "site-packages"
    (packages / "installed_in_venv").mkdir(parents=True)
    (packages / "installed_in_venv" / "__init__.py").write_text("")
    (tmp_path / "layers_beside").mkdir()
    (tmp_path / "layers_beside" / "__init__.py").write_text("from torch import nn\n\nlast = nn.Linear(3, 2)\n")
    (tmp_path / "mine.py").write_text(
        "from torch import nn\nimport installed_in_venv\nfrom layers_beside import last\n\ndef build():\n"
        "    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), last)\n\nbuild.input_size = (3, 32, 32)\n"
    )
    monkeypatch.syspath_prepend(packages)
    load_model(f"py:{tmp_path / 'mine.py'}:build")
    # imported once more, a package with compiled parts fails or has every class twice
    assert "installed_in_venv" in sys.modules
    assert "layers_beside" not in sys.modules
    monkeypatch.delitem(sys.modules, "installed_in_venv")


@pytest.mark.filterwarnings("ignore")
def test_a_compiled_module_is_refused_in_one_line(write):
    spec = write(
        "import torch\nfrom torch import nn\n\n\ndef net():\n    return torch.jit.script(nn.Sequential(nn.Conv2d(1, 2, 3)))\n"
    )
    with pytest.raises(
        ModelError, match=r"compiled .TorchScript. module, which cannot be hooked: build the network from its"
    ):
        load_model(spec)
