"""A transcoder in place of a layer: what is known by hand, and that it reads what the layer read."""

import pytest
import torch
from torch import nn

from mechinterp.errors import ImagesError, SiteError
from mechinterp.models.vision_model import InputContract, VisionModel
from mechinterp.sites import Site
from sparse_autoencoders.transcoder import Transcoder
from sparse_autoencoders.transcoder_splicing import transcoder_loss_recovered


class Net(nn.Module):
    """Two classes; the layer between what comes in and the mean over cells is a ReLU of a matrix."""

    def __init__(self):
        super().__init__()
        self.first, self.layer = nn.Identity(), nn.Conv2d(2, 2, 1, bias=False)
        with torch.no_grad():
            self.layer.weight.copy_(torch.tensor([[2.0, -1], [-1, 3]])[:, :, None, None])

    def forward(self, x):
        return self.layer(self.first(x)).mean((2, 3))


def model():
    sites = {name: Site(name, name, "output", "map", 2, 4) for name in ("first", "layer")}
    contract = InputContract(2, 2, 2, mean=(0.0, 0.0), std=(1.0, 1.0))
    return VisionModel(Net().eval(), "py:two", contract, ("a", "b"), "logits", sites, activation="softmax")


def transcoder(skip, b_dec=(0.0, 0.0)):
    return Transcoder(
        "first", "layer", "standard", torch.zeros(2, 1), torch.zeros(1), torch.tensor([[1.0, 0.0]]), torch.tensor(b_dec),
        W_skip=skip,
    )  # fmt: skip


BATCHES = [torch.rand(3, 2, 2, 2, generator=torch.Generator().manual_seed(s)) for s in (0, 1)]


def test_a_transcoder_that_is_the_layer_costs_nothing_in_any_batch():
    found = transcoder_loss_recovered(model(), transcoder(torch.tensor([[2.0, -1], [-1, 3]])), BATCHES, torch.zeros(2))
    assert found.images == 6
    assert found.reconstruction.kl == pytest.approx(0, abs=1e-9)
    assert found.reconstruction.agreement == 1
    assert found.cross_entropy_recovered["zero"] == pytest.approx(1, abs=1e-6)
    assert found.zero.kl > 1e-3


def test_one_that_writes_nothing_is_the_zero_ablation_and_one_that_writes_the_mean_the_mean():
    mean = torch.tensor([0.3, 0.9])
    nothing = transcoder_loss_recovered(model(), transcoder(None), BATCHES, mean)
    assert nothing.reconstruction.kl == pytest.approx(nothing.zero.kl, rel=1e-6)
    constant = transcoder_loss_recovered(model(), transcoder(None, (0.3, 0.9)), BATCHES, mean)
    assert constant.reconstruction.kl == pytest.approx(constant.mean.kl, rel=1e-6)


def test_an_unknown_site_and_no_image_are_one_line():
    with pytest.raises(ImagesError, match="at least one"):
        transcoder_loss_recovered(model(), transcoder(None), [], torch.zeros(2))
    stranger = Transcoder(
        "fist", "layer", "standard", torch.zeros(2, 1), torch.zeros(1), torch.tensor([[1.0, 0.0]]), torch.zeros(2)
    )
    with pytest.raises(SiteError, match="fist"):
        transcoder_loss_recovered(model(), stranger, BATCHES, torch.zeros(2))
