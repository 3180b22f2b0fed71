"""A tail gives what the whole model gives, or says that it cannot and runs the whole model."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mechinterp.capturing import run_with_cache
from mechinterp.errors import ShapeError, SiteError
from mechinterp.interventions import intervene, patch
from mechinterp.models.vision_model import InputContract, VisionModel
from mechinterp.sites import Site
from mechinterp.tails import Tail


def images(n, seed=0):
    return torch.randn(n, 2, 6, 6, generator=torch.Generator().manual_seed(seed))


def model_of(module, site, *, seed=0, **settings):
    torch.manual_seed(seed)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.4)
    return VisionModel(
        module.eval(), "py:m", InputContract(6, 6, 2), ("a", "b", "c"), "logits", {"s": site}, **settings
    )


def check_equals_the_whole_model(model, *, exact, n=5):
    """Compare with a full forward pass under an intervention, on other images and another batch size."""
    tail = Tail(model, "s", images(3))
    assert tail.exact is exact
    x = images(n, seed=7)
    with torch.no_grad():
        acts = run_with_cache(model, x, ["s"])["s"]
        torch.testing.assert_close(tail.logits(acts, None if exact else x), model.logits(x), rtol=1e-5, atol=1e-6)
        changed = acts.flip(0) * 1.5 + 0.1
        kept = changed.clone()
        with intervene(model, {"s": patch(changed)}):
            expected = model.logits(x)
        torch.testing.assert_close(tail.logits(changed, None if exact else x), expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(changed, kept)
    for part in model.module.modules():
        assert "forward" not in part.__dict__
        assert not part._forward_hooks
        assert not part._forward_pre_hooks
    return tail


class Layered(nn.Module):
    """Random layers in a row; `skip` adds the output of layer `skip[0]` to that of layer `skip[1]`."""

    def __init__(self, depth, skip=None, inplace=True, shared_relu=False):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(2, 2, 3, padding=1) for _ in range(depth))
        self.act = nn.ReLU(inplace=inplace)
        self.own = nn.ModuleList(nn.ReLU(inplace=inplace) for _ in range(depth))
        self.skip, self.shared = skip, shared_relu
        self.head = nn.Linear(72, 3)

    def forward(self, x):
        held = None
        for i, conv in enumerate(self.convs):
            x = conv(x)
            x = self.act(x) if self.shared else self.own[i](x)
            if self.skip and i == self.skip[0]:
                held = x
            if self.skip and i == self.skip[1]:
                x = x + held
        return self.head(x.flatten(1))


@given(
    depth=st.integers(1, 4), at=st.integers(0, 3), take=st.sampled_from(["output", "input"]), seed=st.integers(0, 999),
    inplace=st.booleans(), shared=st.booleans(), bypass=st.none() | st.tuples(st.integers(0, 3), st.integers(0, 3)),
)  # fmt: skip
@settings(deadline=None, max_examples=20)
def test_equals_the_whole_model_with_and_without_a_bypass(depth, at, take, seed, inplace, shared, bypass):
    at = min(at, depth - 1)
    skip = tuple(sorted(min(b, depth - 1) for b in bypass)) if bypass else None
    skip = skip if skip and skip[0] < skip[1] else None
    module = Layered(depth, skip, inplace, shared)
    model = model_of(module, Site("s", f"convs.{at}", take, "map", 2, 36), seed=seed)
    # what is held before the site and added after it goes around it
    goes_around = skip is not None and skip[0] < at <= skip[1]
    check_equals_the_whole_model(model, exact=not goes_around)


def test_only_what_comes_after_the_site_is_run():
    module = Layered(4)
    tail = Tail(model_of(module, Site("s", "convs.2", "output", "map", 2, 36)), "s", images(2))
    runs = []
    for i, conv in enumerate(module.convs):
        forward = conv.forward
        object.__setattr__(conv, "forward", lambda x, i=i, forward=forward: runs.append(i) or forward(x))
    tail.logits(torch.zeros(3, 36, 2))
    assert runs == [3]


class FunctionalInPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1), nn.Linear(72, 3)

    def forward(self, x):
        x = self.a(x)
        x.relu_()
        x += 1
        x = self.b(x)
        x.mul_(2)
        return self.head(torch.relu_(x).flatten(1))


def test_functional_operations_in_place_before_and_after_the_site():
    check_equals_the_whole_model(model_of(FunctionalInPlace(), Site("s", "b", "output", "map", 2, 36)), exact=True)


def test_a_model_that_changes_its_images_in_place():
    class Centred(FunctionalInPlace):
        def forward(self, x):
            x = x.clone() if x.requires_grad else x
            return super().forward(x.sub_(0.5).add_(0.5))

    check_equals_the_whole_model(model_of(Centred(), Site("s", "b", "output", "map", 2, 36)), exact=True)


class Attention(nn.Module):
    """A pre-norm transformer block: the residual stream goes around attention and MLP."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Conv2d(2, 4, 3, stride=3)
        self.cls = nn.Parameter(torch.zeros(1, 1, 4))
        self.norm1, self.attn = nn.LayerNorm(4), nn.MultiheadAttention(4, 2, batch_first=True)
        self.norm2, self.mlp = nn.LayerNorm(4), nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 4))
        self.norm, self.head = nn.LayerNorm(4), nn.Linear(4, 3)

    def forward(self, x):
        x = self.embed(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(len(x), -1, -1), x], 1)
        x = x + self.attn(self.norm1(x), self.norm1(x), self.norm1(x))[0]
        x = x + self.mlp(self.norm2(x))
        return self.head(self.norm(x)[:, 0])


@pytest.mark.parametrize(
    ("module", "take", "exact"),
    [
        ("norm", "input", True),
        ("norm", "output", True),
        ("mlp", "output", False),
        ("attn", "output", True),  # around it goes the CLS token alone, which no image has touched before
        ("norm2", "input", False),
        ("embed", "output", True),
    ],
)
def test_a_transformer_block(module, take, exact):
    layout, tokens = ("map", 4) if module == "embed" else ("tokens", 5)
    check_equals_the_whole_model(model_of(Attention(), Site("s", module, take, layout, 4, tokens)), exact=exact)


def test_a_bypass_from_the_images_themselves_is_seen():
    class FromInput(FunctionalInPlace):
        def forward(self, x):
            return super().forward(x) + 1e-9 * x.mean()

    check_equals_the_whole_model(model_of(FromInput(), Site("s", "b", "output", "map", 2, 36)), exact=False)


def test_a_model_that_looks_at_what_it_skips_is_run_whole():
    class Checking(FunctionalInPlace):
        def forward(self, x):
            x = self.a(x)
            if not bool(x.isfinite().all()):
                raise ValueError("these activations are no numbers")
            return self.head(self.b(x).flatten(1))

    check_equals_the_whole_model(model_of(Checking(), Site("s", "b", "output", "map", 2, 36)), exact=False)


def test_parts_that_fold_the_batch_or_return_tuples_are_left_to_run():
    class Windows(nn.Module):
        def forward(self, x):
            return x.reshape(-1, 2, 3, 6)  # two windows an image

    class Pair(nn.Module):
        def forward(self, x):
            return x, x.shape

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.windows, self.pair, self.conv, self.head = Windows(), Pair(), nn.Conv2d(2, 2, 1), nn.Linear(72, 3)

        def forward(self, x):
            y, shape = self.pair(self.windows(x))
            return self.head(self.conv(y.reshape(shape[0] // 2, 2, 6, 6)).flatten(1))

    check_equals_the_whole_model(model_of(Model(), Site("s", "conv", "output", "map", 2, 36)), exact=True)


def test_what_has_as_many_rows_as_there_were_images_by_chance_is_no_trap():
    class Bias(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Parameter(torch.zeros(3, 72))  # three rows, like the three images of the check

        def forward(self, _x):
            return self.table

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.bias, self.conv, self.head = Bias(), nn.Conv2d(2, 2, 1), nn.Linear(72, 3)

        def forward(self, x):
            bias = self.bias(x)
            return self.head(self.conv(x).flatten(1) + bias.mean(0))

    check_equals_the_whole_model(model_of(Model(), Site("s", "conv", "output", "map", 2, 36)), exact=False)


def test_gradients_are_those_of_the_whole_model():
    model = model_of(Layered(3), Site("s", "convs.1", "output", "map", 2, 36))
    tail, x = Tail(model, "s", images(2)), images(4, seed=3)
    with torch.no_grad():
        acts = run_with_cache(model, x, ["s"])["s"]
    through_tail, through_model = acts.clone().requires_grad_(), acts.clone().requires_grad_()
    tail.logits(through_tail)[:, 1].sum().backward()
    with intervene(model, {"s": patch(through_model)}):
        model.logits(x)[:, 1].sum().backward()
    torch.testing.assert_close(through_tail.grad, through_model.grad)
    assert through_tail.grad.abs().max() > 0


def test_half_precision_models_have_tails_too():
    model = model_of(Layered(3), Site("s", "convs.1", "output", "map", 2, 36))
    model.module.to(torch.bfloat16)
    tail = Tail(model, "s", images(2).to(torch.bfloat16))
    assert tail.exact
    assert tail.logits(torch.zeros(2, 36, 2)).dtype == torch.bfloat16


def test_a_forward_of_the_instances_own_is_put_back():
    module = Layered(3)
    model = model_of(module, Site("s", "convs.1", "output", "map", 2, 36))
    conv, original = module.convs[0], module.convs[0].forward

    def doubled(x):
        return original(x) * 2

    object.__setattr__(conv, "forward", doubled)
    x = images(3, seed=5)
    with torch.no_grad():
        plain = model.logits(x)
        tail = Tail(model, "s", images(2))
        assert tail.exact
        torch.testing.assert_close(tail.logits(run_with_cache(model, x, ["s"])["s"]), plain)
        assert conv.__dict__["forward"] is doubled
        assert "forward" not in module.convs[2].__dict__
        with pytest.raises(RuntimeError, match="stop"):
            _fail_inside(model, tail)
    assert conv.__dict__["forward"] is doubled
    assert torch.equal(model.logits(x), plain)
    del conv.__dict__["forward"]


def _fail_inside(model, tail):
    def stop(*_):
        raise RuntimeError("stop")

    handle = model.module.head.register_forward_hook(stop)
    try:
        tail.logits(torch.zeros(1, 36, 2))
    finally:
        handle.remove()


def test_logits_before_a_softmax():
    module = nn.Sequential(nn.Conv2d(2, 2, 1), nn.Flatten(), nn.Linear(72, 3), nn.Softmax(-1))
    model = model_of(module, Site("s", "0", "output", "map", 2, 36), logits_module="3")
    model.output = "probabilities"
    tail = check_equals_the_whole_model(model, exact=True)
    assert tail.logits(torch.zeros(2, 36, 2)).softmax(-1).sum().item() == pytest.approx(2)


def test_what_is_needed_and_missing_is_named():
    model = model_of(Attention(), Site("s", "mlp", "output", "tokens", 4, 5))
    tail = Tail(model, "s", images(2))
    with pytest.raises(SiteError, match=r"something bypasses site 's'.*pass the images"):
        tail.logits(torch.zeros(2, 5, 4))
    with pytest.raises(ShapeError, match="activations of 2 images but 3 images"):
        tail.logits(torch.zeros(2, 5, 4), images(3))
    with pytest.raises(ShapeError, match=r"shape \(2, 4, 5\) are none of site 's': it has 5 tokens 4 wide"):
        tail.logits(torch.zeros(2, 4, 5))


def test_a_site_reached_twice_or_never_has_no_tail():
    shared = nn.ReLU()
    twice = nn.Sequential(nn.Flatten(), shared, nn.Linear(72, 72), shared, nn.Linear(72, 3))
    with pytest.raises(SiteError, match="site 's' was reached 2 times"):
        Tail(model_of(twice, Site("s", "1", "output", "vector", 72, 1)), "s", images(2))
    unused = Layered(2, shared_relu=True)
    with pytest.raises(SiteError, match="site 's' was not reached"):
        Tail(model_of(unused, Site("s", "own.1", "output", "map", 2, 36)), "s", images(2))
