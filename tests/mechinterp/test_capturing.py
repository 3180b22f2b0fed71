"""What is captured is what the model computes, the model computes the same, and nothing is left behind."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mechinterp.capturing import CaptureConfig, capture, local_map, run_with_cache
from mechinterp.errors import ConfigError, ImagesError, SiteError
from mechinterp.images.arrays import from_arrays
from mechinterp.models.vision_model import InputContract, VisionModel
from mechinterp.sites import Site


class Net(nn.Module):
    """In-place modules, a functional in-place operation, a tuple, a module called twice and one that never is."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, stride=2, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.pair = Pair()
        self.twice = Scale()
        self.lstm = nn.LSTM(4, 5, batch_first=True)
        self.head = nn.Linear(5, 3)
        self.unused = nn.Linear(2, 2)

    def forward(self, x):
        tokens = self.relu(self.conv(x)).flatten(2).transpose(1, 2)
        tokens, _ = self.pair(tokens)
        tokens = self.twice(self.twice(tokens).mul_(2))
        return self.head(self.lstm(tokens)[0][:, -1])


class Scale(nn.Module):
    def forward(self, x):
        return x * 0.7


class Pair(nn.Module):
    def forward(self, x):
        return x * 3, "beside it"


SITES = {
    "conv": Site("conv", "conv", "output", "map", 4, 16),
    "relu.input": Site("relu.input", "relu", "input", "map", 4, 16),
    "relu": Site("relu", "relu", "output", "map", 4, 16),
    "pair": Site("pair", "pair", "output", "tokens", 4, 16),
    "twice": Site("twice", "twice", "output", "tokens", 4, 16),
    "lstm": Site("lstm", "lstm", "output", "tokens", 5, 16),
    "head": Site("head", "head", "output", "vector", 3, 1),
    "unused": Site("unused", "unused", "output", "vector", 2, 1),
}
REACHED = tuple(name for name in SITES if name != "unused")


@pytest.fixture
def model():
    torch.manual_seed(0)
    contract = InputContract(8, 8, 1, mean=(0.0,), std=(1.0,))
    return VisionModel(Net().eval(), "py:net", contract, ("a", "b", "c"), "logits", SITES)


@pytest.fixture
def x():
    return torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def by_hand(module, x):
    """Compute every site step by step, copying before anything works in place."""
    conv = module.conv(x)
    relu = conv.clone().relu()
    pair = relu.flatten(2).transpose(1, 2) * 3
    once = pair * 0.7
    lstm = module.lstm(once * 2 * 0.7)[0]
    as_tokens = {"conv": conv, "relu.input": conv, "relu": relu}
    return {
        **{name: value.flatten(2).transpose(1, 2) for name, value in as_tokens.items()},
        "pair": pair,
        "twice": once,  # the first of its two calls
        "lstm": lstm,
        "head": module.head(lstm[:, -1]).unsqueeze(1),
    }


def hooks_of(model):
    return [h for m in model.module.modules() for h in (*m._forward_hooks, *m._forward_pre_hooks)]


@pytest.mark.parametrize("sites", [*[(name,) for name in REACHED], REACHED, REACHED[::-1]])
@pytest.mark.parametrize("logits", [False, True])
def test_every_kind_of_site_is_captured_right_whatever_works_in_place_after_it(model, x, sites, logits):
    with torch.no_grad():
        expected = by_hand(model.module, x)
        plain = model.logits(x)
        got = run_with_cache(model, x, sites, logits=logits)
        assert torch.equal(model.logits(x), plain)
    assert set(got) == {*sites, *(["logits"] if logits else [])}
    for name in sites:
        torch.testing.assert_close(got[name], expected[name])
        assert got[name].is_contiguous()
    if logits:
        assert torch.equal(got["logits"][:, 0], plain)
    assert hooks_of(model) == []


def test_logits_alone_and_nothing_at_all(model, x):
    assert torch.equal(run_with_cache(model, x, [], logits=True)["logits"][:, 0], model.logits(x))
    assert run_with_cache(model, x, []) == {}


def test_one_site_may_be_given_by_its_name_alone(model, x, tmp_path):
    assert list(run_with_cache(model, x, "relu")) == ["relu"]
    store = capture(model, from_arrays(x[:, 0].numpy()), "relu", out=tmp_path)
    assert store.sites == ("relu",)


def test_logits_are_taken_before_a_softmax(x):
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 3), nn.Softmax(-1)).eval()
    sites = {"1": Site("1", "1", "output", "vector", 3, 1)}
    model = VisionModel(module, "py:m", InputContract(8, 8, 1), (), "probabilities", sites, logits_module="2")
    got = run_with_cache(model, x, ["1"], logits=True)
    assert torch.equal(got["logits"], got["1"])
    assert hooks_of(model) == []


def test_the_pass_stops_at_the_deepest_site(model, x):
    calls = []
    for name, part in model.module.named_children():
        part.register_forward_hook(lambda m, a, o, name=name: calls.append(name))
    run_with_cache(model, x, ["relu", "conv"])
    assert calls == ["conv", "relu"]
    calls.clear()
    run_with_cache(model, x, ["relu", "conv"], logits=True)
    assert calls == ["conv", "relu", "pair", "twice", "twice", "lstm", "head"]


def test_a_models_own_except_does_not_swallow_the_stop(x):
    class Cautious(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Identity(), nn.Identity()

        def forward(self, x):
            try:
                x = self.first(x)
            except Exception:  # noqa: BLE001
                x = x + 1
            return self.second(x).flatten(1)

    module, calls = Cautious().eval(), []
    module.second.register_forward_hook(lambda *_: calls.append(1))
    sites = {"first": Site("first", "first", "output", "map", 1, 64)}
    model = VisionModel(module, "py:m", InputContract(8, 8, 1), (), "logits", sites)
    assert torch.equal(run_with_cache(model, x, ["first"])["first"][..., 0], x.flatten(1))
    assert calls == []


def test_gradients_flow_through_what_is_captured_where_they_are_on(model, x):
    x.requires_grad_()
    acts = run_with_cache(model, x, ["conv", "lstm"])
    acts["lstm"].sum().backward()
    through_cache = x.grad.clone()
    x.grad = None
    by_hand(model.module, x)["lstm"].sum().backward()
    torch.testing.assert_close(through_cache, x.grad)
    with torch.no_grad():
        assert not run_with_cache(model, x, ["conv"])["conv"].requires_grad


def test_the_gradient_of_the_logits_with_respect_to_a_captured_site(x):
    torch.manual_seed(2)
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 5), nn.Linear(5, 2)).eval()
    sites = {"1": Site("1", "1", "output", "vector", 5, 1)}
    model = VisionModel(module, "py:m", InputContract(8, 8, 1), (), "logits", sites)
    got = run_with_cache(model, x.requires_grad_(), ["1"], logits=True)
    (gradient,) = torch.autograd.grad(got["logits"][:, 0, 1].sum(), x)
    torch.testing.assert_close(gradient.flatten(1), (module[2].weight[1] @ module[1].weight).expand(3, -1))


@pytest.mark.parametrize("sites", [("conv",), ("head",)])
def test_a_model_that_fails_leaves_no_hook_and_the_same_bits(model, x, sites):
    plain = model.logits(x)

    def fail(*_):
        raise ZeroDivisionError

    handle = model.module.conv.register_forward_pre_hook(fail)
    with pytest.raises(ZeroDivisionError):
        run_with_cache(model, x, sites, logits=True)
    handle.remove()
    assert hooks_of(model) == []
    assert torch.equal(model.logits(x), plain)


@pytest.mark.parametrize(
    ("sites", "logits", "message"),
    [
        (["convv"], False, r"'py:net' has no site 'convv': did you mean 'conv'"),
        (["unused"], False, "site 'unused' was not reached in a forward pass of 'py:net'"),
        (["conv", "unused"], True, "site 'unused' was not reached"),
    ],
)
def test_a_site_that_is_not_there_or_not_reached_is_named(model, x, sites, logits, message):
    with pytest.raises(SiteError, match=message):
        run_with_cache(model, x, sites, logits=logits)
    assert hooks_of(model) == []


def test_a_site_of_another_layout_is_named(model, x):
    model.sites = {"conv": Site("conv", "conv", "output", "tokens", 4, 16)}
    with pytest.raises(SiteError, match=r"site 'conv' gave a tensor of shape \(3, 4, 4, 4\), not a tokens"):
        run_with_cache(model, x, ["conv"])
    assert hooks_of(model) == []


def test_a_site_called_logits_is_not_mistaken_for_the_logits(model, x):
    model.sites = {"logits": Site("logits", "head", "output", "vector", 3, 1)}
    assert run_with_cache(model, x, ["logits"])["logits"].shape == (3, 1, 3)
    with pytest.raises(SiteError, match="site 'logits' of 'py:net' cannot be captured beside the logits"):
        run_with_cache(model, x, ["logits"], logits=True)


@given(batch=st.integers(1, 5), side=st.integers(1, 4), width=st.integers(1, 4), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=20)
def test_tokens_of_a_map_are_its_cells_in_row_major_order(batch, side, width, seed):
    raw = torch.randn(batch, width, side, side + 1, generator=torch.Generator().manual_seed(seed))
    site = Site("0", "0", "output", "map", width, side * (side + 1))
    model = VisionModel(
        nn.Sequential(nn.Identity()).eval(), "py:m", InputContract(8, 8, width), (), "logits", {"0": site}
    )
    tokens = run_with_cache(model, raw, ["0"])["0"]
    for token in range(side * (side + 1)):
        assert torch.equal(tokens[:, token], raw[:, :, token // (side + 1), token % (side + 1)])


def test_a_store_holds_what_run_with_cache_gives_and_the_model_is_as_before(model, x, tmp_path):
    before = {k: v.clone() for k, v in model.module.state_dict().items()}
    images = from_arrays(x[:, 0].numpy(), intensity_range=(-3.0, 3.0))
    settings = CaptureConfig(sites=("relu", "lstm"), batch_size=2, outputs=True)
    store = capture(model, images, out=tmp_path, config=settings)
    prepared = model.prepare(list(images))
    with torch.inference_mode():
        parts = [run_with_cache(model, prepared[i : i + 2], ["relu", "lstm"], logits=True) for i in (0, 2)]
    for site in ("relu", "lstm"):
        assert torch.equal(store.read(site), torch.cat([p[site] for p in parts]))
    assert torch.equal(store.logits(), torch.cat([p["logits"][:, 0] for p in parts]))
    assert hooks_of(model) == []
    assert all(torch.equal(before[k], v) for k, v in model.module.state_dict().items())


def test_an_image_that_cannot_be_read_is_the_readers_error(model, tmp_path):
    def read(i):
        raise ImagesError(f"image {i} is damaged")

    images = from_arrays(torch.rand(3, 8, 8).numpy())
    object.__setattr__(images, "read", read)
    with pytest.raises(ImagesError, match="image 0 is damaged"):
        capture(model, images, ["relu"], out=tmp_path)
    assert hooks_of(model) == []


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"sites": ()}, "no site given: name at least one"),
        ({"sites": ("a", "b", "a")}, "a site is named twice: a, b, a"),
        ({"batch_size": 0}, "batch size is 0: it must be at least 1"),
        ({"shard_mib": 0}, "shard size is 0 MiB: it must be at least 1"),
        ({"dtype": "int8"}, "storage type is 'int8': it must be float16, bfloat16 or float32"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(given, message):
    with pytest.raises(ConfigError, match=message):
        CaptureConfig(**{"sites": ("a",), **given})


def test_an_unknown_site_is_named_before_a_folder_is_made(model, x, tmp_path):
    with pytest.raises(SiteError, match="did you mean 'relu'"):
        capture(model, from_arrays(x[:, 0].numpy()), ["rellu"], out=tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_the_local_mapper_makes_one_shard_after_another():
    made = []
    shards = local_map(lambda s: made.append(s) or s, [3, 1])
    assert next(shards) == 3
    assert made == [3]
    assert list(shards) == [1]
