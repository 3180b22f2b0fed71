"""Sites found by running the model, compared with hooks written by hand and with the models' own descriptions."""

import pytest
import torch
from torch import nn

from mechinterp.capturing import run_with_cache
from mechinterp.models import load_model
from mechinterp.models.checking import check_model
from mechinterp.models.discovery import discover_sites
from mechinterp.models.vision_model import InputContract, VisionModel

CONTRACT = InputContract(16, 24, 3, mean=(0.0,) * 3, std=(1.0,) * 3)


def model_of(module, contract=CONTRACT):
    module.eval()
    sites = discover_sites(module, contract)
    return VisionModel(module=module, spec="py:test", contract=contract, class_names=(), output="logits", sites=sites)


def vgg(inplace):
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.ReLU(inplace),
        nn.Conv2d(4, 4, 3, padding=1),
        nn.ReLU(inplace),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 3, padding=1),
        nn.ReLU(inplace),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(6 * 4 * 6, 2),
    )


class Residual(nn.Module):
    def __init__(self, width, out, stride):
        super().__init__()
        self.first = nn.Conv2d(width, out, 3, stride, 1)
        self.second = nn.Conv2d(out, out, 3, 1, 1)
        self.shortcut = nn.Conv2d(width, out, 1, stride)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        return self.relu(self.shortcut(x) + self.second(self.relu(self.first(x))))


class ResidualNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, 1, 1)
        self.one = nn.Sequential(Residual(4, 4, 1), Residual(4, 4, 1))
        self.two = nn.Sequential(Residual(4, 8, 2), Residual(8, 8, 1))
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        return self.head(self.two(self.one(self.stem(x))).mean((2, 3)))


@pytest.mark.parametrize("inplace", [False, True])
def test_a_stage_ends_with_the_last_activation_before_the_pooling(inplace):
    sites = discover_sites(vgg(inplace).eval(), CONTRACT)
    assert [sites[f"stages.{i}"].module for i in range(3)] == ["3", "6", "7"]
    assert "stages.3" not in sites


def test_a_stage_of_a_residual_network_ends_with_its_last_block():
    sites = discover_sites(ResidualNet().eval(), CONTRACT)
    assert [sites[f"stages.{i}"].module for i in range(2)] == ["one", "two"]
    assert (sites["stages.1"].grid.rows, sites["stages.1"].grid.columns) == (8, 12)


def test_a_module_that_runs_twice_is_no_site():
    sites = discover_sites(ResidualNet().eval(), CONTRACT)
    assert "one.0.relu" not in sites
    assert "one.0.second" in sites


def test_what_a_module_works_on_in_place_is_captured_as_it_was():
    torch.manual_seed(0)
    module = vgg(inplace=True)
    model = model_of(module)
    x = torch.rand(2, 3, 16, 24) - 0.5
    with torch.no_grad():
        acts = run_with_cache(model, x, ["0", "1", "2", "3"])
        by_hand = [module[0](x)]
        by_hand.append(by_hand[0].relu())
        by_hand.append(module[2](by_hand[1]))
        by_hand.append(by_hand[2].relu())
    assert (by_hand[0] < 0).any()
    for i, expected in enumerate(by_hand):
        assert torch.allclose(acts[str(i)], expected.flatten(2).transpose(1, 2), atol=1e-6)


def test_shapes_and_layouts_are_what_the_module_gives():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm, self.tokens = nn.Conv2d(3, 5, 4, 4), nn.LayerNorm(5), nn.Linear(5, 7)
            self.pair, self.head, self.count = Pair(), nn.Linear(7, 2), Count()

        def forward(self, x):
            x = self.norm(self.conv(x).permute(0, 2, 3, 1))
            x, _ = self.pair(self.tokens(x.flatten(1, 2)))
            self.count(x)
            return self.head(x.mean(1))

    class Pair(nn.Module):
        def forward(self, x):
            return x + 1, x

    class Count(nn.Module):
        def forward(self, x):
            return (x > 0).sum((1, 2))

    sites = discover_sites(Mixed().eval(), CONTRACT)
    assert {n: (s.layout, s.width, s.tokens) for n, s in sites.items() if not n.startswith("stages")} == {
        "conv": ("map", 5, 24),
        "norm": ("channels_last", 5, 24),
        "tokens": ("tokens", 7, 24),
        "pair": ("tokens", 7, 24),
        "head": ("vector", 2, 1),
        "hook_pooled": ("vector", 7, 1),
    }
    assert all(sites[n].grid == sites["conv"].grid for n in ("norm", "tokens", "pair"))
    assert sites["head"].grid is None


def test_a_model_that_wraps_one_of_transformers_is_read_through():
    from transformers import ViTConfig, ViTForImageClassification

    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            small = {"num_attention_heads": 2, "intermediate_size": 32, "image_size": 16, "patch_size": 8}
            self.inner = ViTForImageClassification(ViTConfig(hidden_size=16, num_hidden_layers=2, **small))

        def forward(self, x):
            return self.inner(pixel_values=x).logits

    model = model_of(Wrapped(), InputContract(16, 16))
    check_model(model)
    assert "inner" not in model.sites  # it hands over an object, which no hook can change
    assert model.site("blocks.1.hook_resid_post").grid.cells == 4
    assert model.site("inner.vit").layout == "tokens"


def test_a_models_own_stages_keep_their_names():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(3, 4, 3, 1, 1)
            self.stages = nn.ModuleList([nn.Conv2d(4, 4, 2, 2), nn.Conv2d(4, 4, 2, 2)])

        def forward(self, x):
            x = self.stem(x)
            for stage in self.stages:
                x = stage(x)
            return x.mean((2, 3))

    sites = discover_sites(Net().eval(), CONTRACT)
    assert sites["stages.0"].module == "stages.0"
    assert sites["stages.0"].grid.rows == 8


def test_maps_after_something_unknown_have_no_grid_but_stay_sites():
    class Sorted(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            return self.conv(x.sort(2)[0]).mean((2, 3))

    site = discover_sites(Sorted().eval(), CONTRACT)["conv"]
    assert (site.layout, site.width, site.grid) == ("map", 4, None)


def test_a_source_may_name_the_stages():
    model = load_model("timm:resnet10t", "random", input_size=64)
    described = [entry["module"] for entry in model.module.feature_info]
    assert [model.site(f"stages.{i}").module for i in range(5)] == described
    reductions = [entry["reduction"] for entry in model.module.feature_info]
    assert [model.site(f"stages.{i}").grid.stride[0] for i in range(5)] == reductions
    widths = [entry["num_chs"] for entry in model.module.feature_info]
    assert [model.site(f"stages.{i}").width for i in range(5)] == widths


SMALL_DENSENET = {"growth_rate": 4, "block_config": (2, 2, 2, 2)}


@pytest.mark.parametrize(
    ("name", "options"),
    [("densenet121", SMALL_DENSENET), ("convnext_atto", {}), ("mobilenetv3_small_050", {}), ("regnetx_002", {})],
)
def test_stages_of_known_networks_have_timms_resolutions(name, options):
    import timm

    module = timm.create_model(name, **options).eval()
    sites = discover_sites(module, InputContract(64, 96, 3, mean=(0.0,) * 3, std=(1.0,) * 3))
    found = {s.grid.stride[0] for n, s in sites.items() if n.startswith("stages.") and n.count(".") == 1}
    assert {entry["reduction"] for entry in module.feature_info} <= found


def test_a_swin_is_read_channels_last_with_its_windows_left_out():
    import timm

    module = timm.create_model(
        "swin_tiny_patch4_window7_224", img_size=(56, 112), depths=(2, 2), num_heads=(2, 2)
    ).eval()
    sites = discover_sites(module, InputContract(56, 112, 3, mean=(0.0,) * 3, std=(1.0,) * 3))
    assert sites["layers.1"].layout == "channels_last"
    assert (sites["layers.1"].grid.rows, sites["layers.1"].grid.columns) == (7, 14)
    assert "layers.0.blocks.1.attn.softmax" not in sites
    assert "layers.0.blocks.1.attn.qkv" not in sites
