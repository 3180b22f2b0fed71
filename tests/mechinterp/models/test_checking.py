from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from mechinterp.errors import ModelError
from mechinterp.models.checking import check_model
from mechinterp.models.discovery import discover_sites
from mechinterp.models.vision_model import InputContract, VisionModel

CONTRACT = InputContract(8, 8, 1, mean=(0.0,), std=(1.0,))


def model_of(module, **changes):
    module.eval()
    model = VisionModel(module, "py:net", CONTRACT, (), "logits", discover_sites(module, CONTRACT))
    return replace(model, **changes)


def net(*layers):
    return nn.Sequential(nn.Conv2d(1, 2, 3), *layers, nn.Flatten(), nn.Linear(72, 2))


class FunctionalDropout(nn.Module):
    def forward(self, x):
        return F.dropout(x, 0.5)


class AcrossImages(nn.Module):
    def forward(self, x):
        return x - x.mean(0)


class Blowup(nn.Module):
    def forward(self, x):
        return x / (x - x)


def test_a_model_as_described_passes():
    check_model(model_of(net(nn.BatchNorm2d(2), nn.Dropout(0.5))))


def test_a_channels_last_model_is_fed_its_layout():
    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(1, 2)

        def forward(self, x):
            assert x.shape[-1] == 1
            return self.head(x).mean((1, 2))

    contract = replace(CONTRACT, layout="NHWC")
    module = Last().eval()
    check_model(VisionModel(module, "py:net", contract, (), "logits", discover_sites(module, contract)))


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (FunctionalDropout(), "py:net' answers differently .*: something in it is random even in evaluation mode"),
        (nn.BatchNorm2d(2, track_running_stats=False), "answers differently .*: it mixes the images of a batch"),
        (AcrossImages(), "it mixes the images of a batch"),
        (Blowup(), "returns NaN or infinity for a random image: check its weights"),
    ],
)
def test_a_model_whose_answer_is_not_its_own_is_refused(layer, message):
    with pytest.raises(ModelError, match=message):
        check_model(model_of(net(layer)))


def test_a_site_that_is_not_as_described_is_listed():
    model = model_of(net())
    wrong = replace(model.sites["0"], width=7)
    with pytest.raises(
        ModelError, match=r"py:net': 1 sites are not as described \(0: \(1, 36, 2\), not \(1, 36, 7\)\)"
    ):
        check_model(replace(model, sites={**model.sites, "0": wrong}))


def test_a_site_that_is_never_reached_is_listed():
    module = net()
    module.unused = nn.Identity()
    model = model_of(net())
    model.module.add_module("spare", nn.ModuleDict({"unused": nn.Linear(1, 1)}))
    model.module.forward = lambda x: nn.Sequential.forward(model.module[:3], x)
    sites = {**model.sites, "u": replace(model.sites["0"], name="u", module="spare.unused")}
    with pytest.raises(ModelError, match=r"1 sites are not as described \(u: not reached\)"):
        check_model(replace(model, sites=sites))


def test_what_was_computed_before_is_not_computed_again():
    calls = []
    module = net()
    model = model_of(module)
    module.register_forward_hook(lambda *_: calls.append(1))
    check_model(model, expected=None)
    assert len(calls) == 3
    from mechinterp.models.tracing import probe_input

    with torch.no_grad():
        expected = module(probe_input(CONTRACT))
    calls.clear()
    check_model(model, expected)
    assert len(calls) == 2


class Aliased(nn.Module):
    """Keeps what it was handed, and has the next module change it behind its back."""

    def __init__(self):
        super().__init__()
        self.conv, self.relu, self.head = nn.Conv2d(1, 2, 3), nn.ReLU(inplace=True), nn.Linear(72, 2)

    def forward(self, x):
        before = self.conv(x)
        self.relu(before)
        return self.head(before.flatten(1))


def test_a_place_where_a_copy_changes_the_answer_is_named():
    model = model_of(Aliased())
    handed = replace(model.sites["relu"], name="handed", take="input")
    with pytest.raises(ModelError, match=r"a copy in the place of an activation changes the answer.*\(handed\)"):
        check_model(replace(model, sites={**model.sites, "handed": handed}))


def test_a_result_that_differs_by_rounding_from_run_to_run_is_accepted():
    class Rounding(nn.Module):
        calls = 0

        def forward(self, x):
            self.calls += 1
            return x * (1 + 1e-6 * self.calls)

    check_model(model_of(net(Rounding())))


def test_nothing_is_left_behind_by_the_check():
    model = model_of(net(nn.ReLU(inplace=True)))
    check_model(model)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.module.modules())
