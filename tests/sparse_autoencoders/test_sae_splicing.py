"""Splicing into a model whose answer is known by hand."""

import math

import pytest
import torch
from torch import nn

from mechinterp.errors import ImagesError, SiteError
from mechinterp.feature_encoder import Directions, Neurons
from mechinterp.models.vision_model import InputContract, VisionModel
from mechinterp.sites import Site
from sparse_autoencoders.splicing import loss_recovered


class Net(nn.Module):
    """Two classes, whose logits are the means of two channels."""

    def __init__(self):
        super().__init__()
        self.body = nn.Identity()

    def forward(self, x):
        return self.body(x).mean((2, 3))


def model(activation="softmax"):
    sites = {"body": Site("body", "body", "output", "map", 2, 4)}
    contract = InputContract(2, 2, 2, mean=(0.0, 0.0), std=(1.0, 1.0))
    return VisionModel(Net().eval(), "py:two", contract, ("a", "b"), "logits", sites, activation=activation)


def images(*logits):
    return torch.tensor(logits, dtype=torch.float32)[:, :, None, None].expand(-1, -1, 2, 2).contiguous()


def test_the_sites_own_activation_costs_nothing_and_recovers_everything():
    found = loss_recovered(model(), Neurons("body", 2), [images((3, 0)), images((0, 2), (1, 0))], torch.zeros(2))
    assert found.images == 3
    assert found.reconstruction == found.identity
    assert found.identity.kl == pytest.approx(0, abs=1e-12)
    assert found.identity.agreement == 1
    assert found.cross_entropy_recovered == {"zero": 1, "mean": 1}
    assert found.kl_recovered == {"zero": 1, "mean": 1}


def test_zero_and_mean_ablation_by_hand():
    found = loss_recovered(model(), Neurons("body", 2), [images((3, 0))], torch.tensor([0.0, 1.0]))
    p = 1 / (1 + math.exp(-3))
    entropy = -p * math.log(p) - (1 - p) * math.log(1 - p)
    assert found.zero.cross_entropy == pytest.approx(math.log(2), rel=1e-6)
    assert found.zero.kl == pytest.approx(math.log(2) - entropy, rel=1e-5)
    assert found.mean.cross_entropy == pytest.approx(math.log(1 + math.e), rel=1e-6)
    assert found.mean.agreement == 0
    assert found.identity.cross_entropy == pytest.approx(-math.log(p), rel=1e-5)


def test_an_encoder_that_loses_half_recovers_in_between():
    half = Directions("body", torch.eye(2) * 0.5**0.5, torch.zeros(2))  # decode(encode(x)) = x / 2
    found = loss_recovered(model(), half, [images((3, 0))], torch.zeros(2))
    expected = (math.log(2) - math.log(1 + math.exp(-1.5))) / (math.log(2) - math.log(1 + math.exp(-3)))
    assert found.cross_entropy_recovered["zero"] == pytest.approx(expected, rel=1e-5)
    assert 0 < found.kl_recovered["zero"] < 1


def test_independent_outputs_are_compared_one_by_one():
    found = loss_recovered(model("sigmoid"), Neurons("body", 2), [images((3, -1))], torch.zeros(2))
    log2 = math.log(2)

    def kl(logit):
        p = 1 / (1 + math.exp(-logit))
        return log2 + p * math.log(p) + (1 - p) * math.log(1 - p)

    assert found.zero.kl == pytest.approx(kl(3) + kl(-1), rel=1e-5)
    assert found.zero.cross_entropy == pytest.approx(2 * log2, rel=1e-6)
    assert found.zero.agreement == 0
    assert found.identity.kl == pytest.approx(0, abs=1e-9)


def test_an_ablation_that_costs_nothing_has_no_recovered_share():
    found = loss_recovered(model(), Neurons("body", 2), [images((0, 0))], torch.zeros(2))
    assert math.isnan(found.cross_entropy_recovered["zero"])
    assert set(found.to_json()) >= {"reconstruction", "zero", "mean", "identity", "kl_recovered"}


def test_the_model_is_left_as_it_was_and_mistakes_are_named():
    net = model()
    x = images((3, 0))
    before = net.logits(x)
    loss_recovered(net, Neurons("body", 2), [x], torch.zeros(2))
    assert torch.equal(net.logits(x), before)
    with pytest.raises(SiteError, match="no site 'head'"):
        loss_recovered(net, Neurons("head", 2), [x], torch.zeros(2))
    with pytest.raises(ImagesError, match="no image to splice into"):
        loss_recovered(net, Neurons("body", 2), [], torch.zeros(2))


def test_running_only_what_comes_after_the_site_gives_the_same_numbers():
    from mechinterp.tails import Tail

    net = model()
    batches = [images((3, 0), (0, 2)), images((1, 0), (0.2, 0.3))]
    half = Directions("body", torch.tensor([[1.0, 0.0]]), torch.zeros(2))
    tail = Tail(net, "body", batches[0])
    assert tail.exact
    whole = loss_recovered(net, half, batches, torch.tensor([0.5, 0.5]))
    assert loss_recovered(net, half, batches, torch.tensor([0.5, 0.5]), tail=tail) == whole
