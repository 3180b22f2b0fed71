from types import SimpleNamespace

import pytest
import torch
from torch import nn

from mechinterp.errors import ConfigError, SiteError
from mechinterp.models.discovery import discover_sites
from mechinterp.models.vision_model import InputContract, VisionModel

CONTRACT = InputContract(6, 8, 1, mean=(0.0,), std=(1.0,))


class Answer(nn.Module):
    """Hand the scores over as another kind of object."""

    def __init__(self, wrap):
        super().__init__()
        self.head, self.wrap = nn.Linear(48, 2), wrap

    def forward(self, x):
        return self.wrap(self.head(x.flatten(1)))


def model_of(module, **options):
    options = {"output": "logits", "class_names": ("a", "b")} | options
    return VisionModel(module=module.eval(), spec="py:net", contract=CONTRACT, **options)


@pytest.fixture
def linear():
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 2))


def test_a_hash_changes_with_every_weight_and_buffer_and_only_with_them(linear):
    before = model_of(linear).weights_hash
    assert model_of(linear).weights_hash == before
    with torch.no_grad():
        linear[1].bias[0] += 1e-6
    assert model_of(linear).weights_hash != before
    norm = nn.BatchNorm2d(1)
    before = model_of(norm).weights_hash
    norm.running_mean += 1
    assert model_of(norm).weights_hash != before


def test_an_unknown_site_or_class_proposes_the_nearest(linear):
    model = model_of(linear, sites=discover_sites(linear, CONTRACT), class_names=("glioma", "notumor"))
    with pytest.raises(SiteError, match=r"'py:net' has no site '2': .*\(mechinterp sites py:net\)"):
        model.site("2")
    with pytest.raises(ConfigError, match="has no class 'gliom': did you mean 'glioma'"):
        model.class_index("gliom")
    assert model.class_index("notumor") == 1


@pytest.mark.parametrize(
    "wrap",
    [
        lambda y: y,
        lambda y: (y, None),
        lambda y: {"scores": y},
        lambda y: {"name": "x", "scores": y},
        lambda y: SimpleNamespace(logits=y),
    ],
)
def test_scores_are_found_in_what_the_module_returns(wrap):
    module = Answer(wrap)
    x = torch.rand(3, 1, 6, 8)
    assert model_of(module).run(x).equal(module.head(x.flatten(1)))


def test_an_answer_without_a_tensor_is_named():
    with pytest.raises(SiteError, match="returned a str without a tensor"):
        model_of(Answer(lambda y: "tumour")).run(torch.rand(1, 1, 6, 8))


def test_logits_are_what_enters_the_softmax_and_gradients_flow(linear):
    model = model_of(nn.Sequential(*linear, nn.Softmax(-1)), output="probabilities", logits_module="2")
    x = torch.rand(3, 1, 6, 8, requires_grad=True)
    logits = model.logits(x)
    assert torch.allclose(logits, linear.eval()(x))
    logits.sum().backward()
    assert x.grad.abs().sum() > 0
    assert torch.allclose(model.probabilities(logits), model.run(x))
    assert not model.module[2]._forward_pre_hooks


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_without_such_a_module_probabilities_are_turned_back(linear, activation):
    squash = nn.Softmax(-1) if activation == "softmax" else nn.Sigmoid()
    model = model_of(nn.Sequential(*linear, squash), output="probabilities", activation=activation)
    x = torch.rand(3, 1, 6, 8)
    assert torch.allclose(model.probabilities(model.logits(x)), model.run(x), atol=1e-5)


def test_a_module_without_parameters_runs_on_the_processor():
    assert model_of(nn.Flatten()).device == torch.device("cpu")


def test_images_are_prepared_to_the_contract(linear):
    import numpy as np

    from mechinterp.images.image_set import MedicalImage

    images = [MedicalImage(id=str(i), pixels=np.full((12, 16), i, dtype=np.float32)) for i in range(2)]
    x = model_of(linear).prepare(images)
    assert x.shape == (2, 1, 6, 8)
    assert x[1].mean() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("py:/home/me/net.py:build?classes=3", "py:net.py:build?classes=3"),
        ("hf:/data/rad-dino/", "hf:rad-dino"),
        ("timm:/data/uni?mlp_layer=SwiGLUPacked", "timm:uni?mlp_layer=SwiGLUPacked"),
        ("timm:resnet18", "timm:resnet18"),
    ],
)
def test_a_models_name_on_a_page_has_no_folder_of_this_machine(linear, spec, name):
    model = model_of(linear)
    model.spec = spec
    assert model.name == name
