"""Interventions change exactly what they say, in every layout, and leave nothing behind."""

from __future__ import annotations

import gc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mechinterp.capturing import run_with_cache
from mechinterp.errors import ShapeError, SiteError
from mechinterp.feature_encoder import Directions, Neurons
from mechinterp.interventions import ablate, add, intervene, patch, replace_by_features
from mechinterp.models.loading import load_model
from mechinterp.models.vision_model import InputContract, VisionModel
from mechinterp.sites import Site


class Net(nn.Module):
    """A convolution, an in-place ReLU, tokens with a residual stream, pooling and a readout."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, stride=2, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.norm = nn.LayerNorm(4)
        self.mix = nn.Linear(4, 4)
        self.channels_last = nn.Identity()
        self.head = nn.Linear(4, 3)
        self.unused = nn.Linear(2, 2)

    def forward(self, x):
        tokens = self.relu(self.conv(x)).flatten(2).transpose(1, 2)
        tokens = tokens + self.mix(self.norm(tokens))
        square = self.channels_last(tokens.reshape(len(x), 4, 4, 4))
        return self.head(square.mean((1, 2)))


SITES = {
    "conv": Site("conv", "conv", "output", "map", 4, 16),
    "norm.input": Site("norm.input", "norm", "input", "tokens", 4, 16),
    "mix": Site("mix", "mix", "output", "tokens", 4, 16),
    "channels_last": Site("channels_last", "channels_last", "output", "channels_last", 4, 16),
    "head.input": Site("head.input", "head", "input", "vector", 4, 1),
    "unused": Site("unused", "unused", "output", "vector", 2, 1),
}
PLACES = [name for name in SITES if name != "unused"]


@pytest.fixture
def model():
    torch.manual_seed(0)
    return VisionModel(Net().eval(), "py:net", InputContract(8, 8, 1), ("a", "b", "c"), "logits", SITES)


@pytest.fixture
def x():
    return torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def hooks_of(model):
    return [(h, m) for m in model.module.modules() for h in (*m._forward_hooks, *m._forward_pre_hooks)]


def acts_of(model, x, site):
    with torch.no_grad():
        return run_with_cache(model, x, [site])[site]


@pytest.mark.parametrize("site", PLACES)
def test_the_identity_changes_no_bit(model, x, site):
    plain = model.logits(x)
    with intervene(model, {site: lambda acts: acts}):
        assert torch.equal(model.logits(x), plain)
    with intervene(model, {site: patch(acts_of(model, x, site))}):
        assert torch.equal(model.logits(x), plain)


@pytest.mark.parametrize("site", PLACES)
def test_the_identity_changes_no_bit_of_a_model_in_channels_last_order(model, x, site):
    x = x.to(memory_format=torch.channels_last)
    model.module.to(memory_format=torch.channels_last)
    plain = model.logits(x)
    with intervene(model, {site: lambda acts: acts.clone()}):
        assert torch.equal(model.logits(x), plain)


@pytest.mark.parametrize("site", PLACES)
def test_an_edit_reaches_the_next_module_and_a_capture_sees_it(model, x, site):
    before = acts_of(model, x, site)
    with intervene(model, {site: lambda acts: acts * 2}):
        assert torch.equal(acts_of(model, x, site), before * 2)
        assert not torch.equal(model.logits(x), model.module.head.bias)
    assert torch.equal(acts_of(model, x, site), before)


@pytest.mark.parametrize("site", PLACES)
def test_an_edit_in_place_is_an_edit_of_the_site_alone(model, x, site):
    def halve_in_place(acts):
        acts[:, :, 1] /= 2
        return acts

    def halve(acts):
        return torch.cat([acts[..., :1], acts[..., 1:2] / 2, acts[..., 2:]], dim=-1)

    with torch.no_grad(), intervene(model, {site: halve}):
        expected = model.logits(x)
    with torch.no_grad(), intervene(model, {site: halve_in_place}):
        assert torch.equal(model.logits(x), expected)


def test_a_residual_stream_beside_an_edited_input_is_not_changed(model, x):
    with torch.no_grad():
        raw = model.module.relu(model.module.conv(x)).flatten(2).transpose(1, 2)
        zeroed = raw + model.module.mix(model.module.norm(torch.zeros_like(raw)))
        expected = model.module.head(zeroed.mean(1))

    def zero_in_place(acts):
        return acts.zero_()

    with torch.no_grad(), intervene(model, {"norm.input": zero_in_place}):
        torch.testing.assert_close(model.logits(x), expected)


def test_the_next_module_works_in_place_without_touching_what_was_patched_in(model, x):
    value = -torch.ones(3, 16, 4)
    with intervene(model, {"conv": patch(value)}):
        model.logits(x)
    assert torch.equal(value, -torch.ones(3, 16, 4))
    with intervene(model, {"conv": ablate()}):  # one zero for all: the in-place ReLU needs memory of its own
        model.logits(x)


def test_patch_replaces_the_tokens_and_units_it_names():
    acts, value = torch.zeros(2, 3, 4), torch.ones(1, 1, 1)
    assert patch(value)(acts).sum() == 24
    assert torch.equal(patch(value, tokens=[1])(acts).nonzero()[:, 1].unique(), torch.tensor([1]))
    assert patch(value, units=[0, 3])(acts).sum() == 12
    both = patch(value, tokens=[0, 2], units=[1])(acts)
    assert both.sum() == 4
    assert both[:, [0, 2], 1].sum() == 4
    assert patch(value, tokens=[], units=[])(acts).sum() == 0
    assert torch.equal(patch(value, units=[-1])(acts), patch(value, units=[3])(acts))
    mask = np.array([False, True, True, False])
    assert torch.equal(patch(value, units=mask)(acts), patch(value, units=[1, 2])(acts))


@given(
    tokens=st.none() | st.lists(st.integers(0, 4)),
    units=st.none() | st.lists(st.integers(0, 2)),
    seed=st.integers(0, 99),
)
@settings(deadline=None, max_examples=50)
def test_patch_equals_the_obvious_loop(tokens, units, seed):
    generator = torch.Generator().manual_seed(seed)
    acts, value = torch.randn(2, 5, 3, generator=generator), torch.randn(2, 5, 3, generator=generator)
    expected = acts.clone()
    for t in range(5) if tokens is None else tokens:
        for u in range(3) if units is None else units:
            expected[:, t, u] = value[:, t, u]
    assert torch.equal(patch(value, tokens=tokens, units=units)(acts), expected)


def test_ablate_puts_zero_or_the_mean():
    acts = torch.ones(2, 3, 4)
    assert ablate(units=[2])(acts).sum() == 2 * 3 * 3
    mean = torch.arange(4.0).expand(1, 4)
    assert torch.equal(ablate(mean=mean)(acts), mean.expand(2, 3, 4))
    per_token = torch.arange(12.0).reshape(3, 4)
    assert torch.equal(ablate(mean=per_token, tokens=[1])(acts)[0, 1], per_token[1])


def test_add_adds_to_the_tokens_it_names():
    acts = torch.zeros(2, 3, 4, dtype=torch.float64)
    direction = torch.tensor([1.0, 0, 0, 2])
    assert torch.equal(add(direction, 3.0)(acts)[1, 2], torch.tensor([3.0, 0, 0, 6], dtype=torch.float64))
    changed = add(direction, tokens=[2])(acts)
    assert changed[:, :2].abs().sum() == 0
    assert changed[:, 2].sum() == 6


def test_replacing_by_features_without_a_change_keeps_the_output(model, x):
    plain = model.logits(x)
    poor = Directions("mix", torch.eye(4)[:1], torch.zeros(4))
    with intervene(model, {"mix": replace_by_features(poor)}):
        assert torch.equal(model.logits(x), plain)
    with intervene(model, {"mix": replace_by_features(poor, lambda z: z)}):
        assert torch.equal(model.logits(x), plain)
    with intervene(model, {"mix": replace_by_features(poor, keep_error=False)}):
        assert not torch.allclose(model.logits(x), plain)
    with intervene(model, {"mix": replace_by_features(Neurons("mix", 4), keep_error=False)}):
        assert torch.equal(model.logits(x), plain)


def test_changing_a_feature_moves_the_activation_along_its_direction_and_keeps_the_error():
    basis = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(2)))[0][:2]
    encoder = Directions("mix", basis, torch.ones(4))
    acts = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(3))

    def zero_the_second_in_place(codes):
        codes[..., 1] = 0
        return codes

    changed = replace_by_features(encoder, zero_the_second_in_place)(acts)
    expected = acts - encoder.encode(acts)[..., 1:] * basis[1]
    torch.testing.assert_close(changed, expected)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda a: a[:, :1], r"edit of site 'mix' returned shape \(3, 1, 4\) for tokens of shape \(3, 16, 4\)"),
        (patch(torch.zeros(3, 2, 4)), r"value of shape \(3, 2, 4\) does not fit an activation of shape \(3, 16, 4\)"),
        (patch(torch.zeros(1, 1, 1), units=[1, 4]), "unit 4 asked for, but the site has 4: count from 0 to 3"),
        (ablate(tokens=[-17]), "token -17 asked for, but the site has 16"),
        (ablate(tokens=[0.5]), "tokens must be given as a list of numbers from 0 to 15"),
        (add(torch.zeros(5)), r"direction of shape \(5,\) does not fit a site 4 wide"),
        (replace_by_features(Neurons("mix", 5)), "activations are 4 wide, the features of site 'mix' read 5"),
        (replace_by_features(Neurons("mix", 4), lambda z: z[0]), r"codes of shape \(3, 16, 4\) returned \(16, 4\)"),
    ],
)
def test_an_edit_that_does_not_fit_says_how_and_is_undone(model, x, edit, message):
    plain = model.logits(x)
    with pytest.raises(ShapeError, match=message), intervene(model, {"mix": edit}):
        model.logits(x)
    assert hooks_of(model) == []
    assert torch.equal(model.logits(x), plain)


def test_an_error_inside_leaves_no_hook_and_the_same_bits(model, x):
    plain = model.logits(x)

    def fail_inside():
        with intervene(model, {s: ablate() for s in PLACES}):
            model.logits(x)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_inside()
    assert hooks_of(model) == []
    assert torch.equal(model.logits(x), plain)


def test_an_unknown_site_hooks_nothing(model):
    with pytest.raises(SiteError, match="did you mean 'conv'"), intervene(model, {"mix": ablate(), "convv": ablate()}):
        pass
    assert hooks_of(model) == []


def test_a_site_that_is_never_reached_is_an_error_not_a_null_result(model, x):
    with pytest.raises(SiteError, match="site 'unused' was not reached"), intervene(model, {"unused": ablate()}):
        model.logits(x)
    assert hooks_of(model) == []


def test_a_module_called_twice_is_no_site(x):
    shared = nn.ReLU()
    module = nn.Sequential(nn.Flatten(), shared, nn.Linear(64, 2), shared)
    model = VisionModel(
        module.eval(),
        "py:twice",
        InputContract(8, 8, 1),
        (),
        "logits",
        {"1": Site("1", "1", "output", "vector", 64, 1)},
    )
    with pytest.raises(SiteError, match="site '1' was reached 2 times"), intervene(model, {"1": lambda a: a}):
        model.logits(x)
    with intervene(model, {"1": lambda a: a}):
        run_with_cache(model, x, ["1"])  # stops after the first call


def test_edits_nest_and_the_inner_one_sees_the_outer_ones_result(model, x):
    with intervene(model, {"mix": lambda a: a + 1}), intervene(model, {"mix": lambda a: a * 2}):
        got = acts_of(model, x, "mix")
    torch.testing.assert_close(got, (acts_of(model, x, "mix") + 1) * 2)


def test_gradients_flow_through_edits_to_what_they_put_in(model, x):
    direction = torch.zeros(4, requires_grad=True)
    with intervene(model, {"mix": add(direction)}):
        model.logits(x)[:, 0].sum().backward()
    # every token is averaged into the readout: the gradient is the first row of its weights, once per image
    torch.testing.assert_close(direction.grad, 3 * model.module.head.weight[0])


def test_a_thousand_interventions_leave_no_hook_and_no_memory():
    def tensors():
        gc.collect()
        return sum(isinstance(o, torch.Tensor) for o in gc.get_objects())

    site = Site("1", "1", "output", "vector", 4, 1)
    module = nn.Sequential(nn.Flatten(), nn.Linear(4, 4), nn.ReLU(inplace=True), nn.Linear(4, 2)).eval()
    model = VisionModel(module, "py:small", InputContract(2, 2, 1), ("a", "b"), "logits", {"1": site})
    x, edits = torch.ones(1, 1, 2, 2), {"1": ablate(units=[0])}
    with torch.no_grad():
        for i in range(1001):
            if i == 1:
                before = tensors()
            with intervene(model, edits):
                model.logits(x)
    assert tensors() == before
    assert hooks_of(model) == []


def test_the_stream_between_attention_and_mlp_is_read_but_never_half_changed():
    """A hook reaches the input of the second norm; the skip connection past it would keep the old value."""
    model = load_model("timm:vit_tiny_patch16_224?depth=2", "random")
    x = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    site = "blocks.0.hook_resid_mid"
    before = model.logits(x)
    assert run_with_cache(model, x, [site])[site].shape == (1, 197, 192)
    refused = pytest.raises(SiteError, match=r"'blocks\.0\.hook_resid_mid' can be read, not changed.*hook_resid_post")
    with refused, intervene(model, {site: ablate()}):
        model.logits(x)
    assert torch.equal(model.logits(x), before)
