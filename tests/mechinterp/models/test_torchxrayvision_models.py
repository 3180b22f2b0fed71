import sys

import pytest
import torch

from mechinterp.errors import MissingDependencyError, ModelError, WeightsError
from mechinterp.models import load_model

xrv = pytest.importorskip("torchxrayvision").models
TINY = "block_config=1,1,1,1&growth_rate=4&num_init_features=8&input_size=64"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Give torchxrayvision an empty cache, and let nothing be fetched."""

    def fetch(*_arguments):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(xrv.utils, "get_cache_dir", lambda: str(tmp_path))
    monkeypatch.setattr(xrv.utils, "download", fetch)
    return tmp_path


def test_a_classifier_of_several_findings_answers_logits_of_which_each_stands_alone(cache):
    model = load_model(f"xrv:densenet121-res224-all?{TINY}", "random")
    assert (model.trained, model.output, model.activation) == (False, "logits", "sigmoid")
    assert model.class_names[:2] == ("Atelectasis", "Consolidation")
    assert (model.contract.channels, model.contract.value_range) == (1, (-1024.0, 1024.0))
    probabilities = model.probabilities(torch.zeros(1, 18))
    assert torch.allclose(probabilities, torch.full((1, 18), 0.5))


def test_a_finding_that_was_not_trained_has_no_name(cache):
    names = load_model(f"xrv:densenet121-res224-nih?{TINY}", "random").class_names
    assert names[14:] == ("class 14", "class 15", "class 16", "class 17")


def test_a_resnet_is_torchxrayvisions_own_without_its_weights(cache):
    model = load_model("xrv:resnet50-res512-all?input_size=64", "random")
    assert model.contract.channels == 1
    assert "model.layer1" in model.sites
    assert isinstance(model.module, xrv.ResNet)


def test_missing_weights_fail_at_once_and_say_where_they_belong(cache):
    with pytest.raises(WeightsError, match=rf"put https://.*best\.pt into '{cache}'"):
        load_model("xrv:densenet121-res224-all")
    with pytest.raises(WeightsError, match="names an architecture without weights"):
        load_model("xrv:densenet121")


def test_a_whole_network_as_it_is_published_is_read_without_running_anything(cache):
    network = xrv.DenseNet(num_classes=18)
    network.op_threshs = torch.full((18,), 0.3)
    torch.save(network, cache / xrv.model_urls["densenet121-res224-all"]["weights_url"].rpartition("/")[2])
    model = load_model("xrv:densenet121-res224-all?input_size=64")
    assert model.trained
    assert model.weights.startswith(str(cache))
    x = torch.rand(1, 1, 64, 64)
    with torch.no_grad():  # logits, not the probabilities that its operating points rescale
        assert torch.allclose(model.logits(x), network.eval().classifier(network.features2(x)), atol=1e-6)


class Evil:
    def __reduce__(self):
        return (print, ("executed",))


@pytest.mark.parametrize(
    "content", [Evil(), torch.nn.Linear(2, 2), {"epoch": 3}], ids=["code", "another module", "no tensors"]
)
def test_anything_else_is_refused(tmp_path, capsys, content):
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=r"w\.pt' holds"):
        load_model(f"xrv:densenet121?{TINY}", tmp_path / "w.pt")
    assert "executed" not in capsys.readouterr().out


def test_a_fine_tuned_state_dict_sets_the_number_of_findings(tmp_path):
    tuned = xrv.DenseNet(growth_rate=4, block_config=(1, 1, 1, 1), num_init_features=8, num_classes=3)
    state = tuned.state_dict() | {"op_threshs": torch.zeros(3)}
    torch.save({"state_dict": {f"model.{k}": v for k, v in state.items()}}, tmp_path / "w.pt")
    model = load_model(f"xrv:densenet121?{TINY}", tmp_path / "w.pt")
    assert model.class_names == ("class 0", "class 1", "class 2")


def test_an_unknown_name_proposes_the_nearest():
    with pytest.raises(
        ModelError, match=r"no classifier 'densenet121-res224-mimic', did you mean 'densenet121-res224-mimic"
    ):
        load_model("xrv:densenet121-res224-mimic")


def test_without_the_package_its_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchxrayvision.models", None)
    monkeypatch.setitem(sys.modules, "torchxrayvision", None)
    with pytest.raises(MissingDependencyError, match=r"mechinterp-vision\[xrv\]"):
        load_model("xrv:densenet121", "random")
