"""The pattern against the fused kernel, taps put on and taken off in any order, and what is left alone."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mechinterp.attention import Tap, attention_pattern, tap_inside


class Fused(nn.Module):
    """Attention of a tensor with itself, in one kernel."""

    def __init__(self, **options):
        super().__init__()
        self.projection, self.options = nn.Linear(4, 4, bias=False), options

    def forward(self, x):
        q, k, v = (F.linear(x, self.projection.weight), x, x * 2)
        return F.scaled_dot_product_attention(q, k, v, **self.options)


def keys(n_heads=2, n=5):
    return torch.rand(3, n_heads, n, 4, generator=torch.Generator().manual_seed(0))


@settings(max_examples=30, deadline=None)
@given(
    mask=st.sampled_from([None, "bool", "float"]),
    causal=st.booleans(),
    scale=st.one_of(st.none(), st.floats(0.1, 3)),
    groups=st.sampled_from([1, 2]),
)
def test_the_pattern_times_the_values_is_the_fused_kernel(mask, causal, scale, groups):
    torch.manual_seed(0)
    q, k, v = torch.randn(2, 4, 6, 8), *torch.randn(2, 2, 4 // groups, 6, 8)
    attn_mask = {None: None, "bool": torch.rand(6, 6) > 0.3, "float": torch.randn(2, 1, 6, 6)}[mask]
    if mask == "bool":
        attn_mask.fill_diagonal_(True)
    if causal:
        attn_mask = None
    given_ = {"attn_mask": attn_mask, "is_causal": causal, "scale": scale, "enable_gqa": groups > 1}
    pattern = attention_pattern(q, k, **given_)
    expected = F.scaled_dot_product_attention(q, k, v, **given_)
    assert torch.allclose(pattern @ v.repeat_interleave(groups, dim=1), expected, atol=1e-5)


def test_looking_leaves_the_kernel_and_changing_replaces_it():
    module, x = Fused(is_causal=True), keys()
    plain, seen = module(x), []
    handle = tap_inside(module, Tap("pattern", seen.append))
    assert module(x).equal(plain)
    assert seen[0].shape == (3, 2, 5, 5)
    assert not seen[0].triu(1).any()
    handle.remove()
    uniform = torch.full((3, 2, 5, 5), 0.2)
    handle = tap_inside(module, Tap("pattern", lambda _: uniform))
    assert torch.allclose(module(x), (x * 2).mean(2, keepdim=True).expand_as(x))
    handle.remove()
    assert module(x).equal(plain)
    assert "forward" not in module.__dict__


def test_an_explicit_softmax_is_a_pattern_too_and_other_softmaxes_are_not():
    class Explicit(nn.Module):
        def forward(self, x):
            gate = torch.softmax(x[:, 0, :, 0], dim=-1)
            return nn.functional.softmax(x @ x.mT, dim=-1) @ x + gate.sum()

    module, seen = Explicit(), []
    tap_inside(module, Tap("pattern", seen.append))
    module(keys())
    assert [tuple(t.shape) for t in seen] == [(3, 2, 5, 5)]


def test_taps_come_off_in_any_order_and_see_one_anothers_changes():
    module, x, seen = Fused(), keys(), []
    weight = module.projection.weight
    plain = module(x)
    first = tap_inside(module, Tap("pattern", lambda pattern: pattern * 2))
    second = tap_inside(module, Tap("pattern", lambda pattern: seen.append(pattern.sum(-1))))
    third = tap_inside(module, Tap("input", lambda given: given * 0, weight))
    fourth = tap_inside(module, Tap("output", lambda gave: seen.append(gave), weight))
    assert torch.allclose(
        module(x), (x * 4).mean(2, keepdim=True).expand_as(x), atol=1e-6
    )  # no query, twice the pattern
    assert not seen[0].any()
    assert torch.allclose(seen[1], torch.tensor(2.0))
    first.remove()
    third.remove()
    assert module(x).equal(plain)
    second.remove()
    second.remove()
    fourth.remove()
    assert "forward" not in module.__dict__


def test_a_forward_of_the_modules_own_is_put_back():
    module, x = Fused(), keys()
    own = module.forward
    module.forward = lambda given: own(given) + 1
    plain = module(x)
    handle = tap_inside(module, Tap("pattern", lambda _: None))
    assert module(x).equal(plain)
    handle.remove()
    assert module.forward.__name__ == "<lambda>"
    assert module(x).equal(plain)


class Stop(BaseException):
    """No ``Exception``, like what leaves a forward pass early."""


@pytest.mark.parametrize("error", [RuntimeError, Stop])
def test_nothing_is_watched_after_an_error(error):
    module, x = Fused(), keys()

    def fails(_):
        raise error

    handle = tap_inside(module, Tap("pattern", fails))
    with pytest.raises(error):
        module(x)
    assert torch._C._len_torch_function_stack() == 0
    handle.remove()
    assert module(x).isfinite().all()


def multi_head(**options):
    torch.manual_seed(0)
    return nn.MultiheadAttention(8, 2, **({"batch_first": True} | options)).eval()


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("mask", [None, "2-D", "3-D"])
def test_pytorchs_attention_is_taken_apart_and_gives_the_same(batch_first, need_weights, mask):
    module = multi_head(batch_first=batch_first)
    x = torch.randn(3, 5, 8)
    masks = {None: None, "2-D": torch.randn(5, 5), "3-D": torch.randn((3 if batch_first else 5) * 2, 5, 5)}
    n = 5 if batch_first else 3
    attn_mask = None if mask is None else masks[mask][..., :n, :n]
    options = {"need_weights": need_weights, "attn_mask": attn_mask}
    with torch.no_grad():
        expected, weights = module(x, x, x, **options)
        handle = tap_inside(module, Tap("pattern", lambda pattern: pattern.clone()))
        got, shown = module(x, x, x, **options)
        handle.remove()
    assert torch.allclose(got, expected, atol=1e-6)
    assert (weights is None) == (shown is None)
    assert weights is None or torch.allclose(weights, shown, atol=1e-6)


@pytest.mark.parametrize("case", ["other keys", "extra keys", "padding", "unbatched"])
def test_what_no_block_of_an_encoder_does_is_left_to_pytorch(case):
    module = multi_head(add_bias_kv=case == "extra keys")
    x, other = torch.randn(2, 5, 8), torch.randn(2, 4, 8)
    given_ = (x[0],) * 3 if case == "unbatched" else (x, other, other) if case == "other keys" else (x, x, x)
    options = {"key_padding_mask": torch.zeros(2, 5, dtype=torch.bool)} if case == "padding" else {}
    with torch.no_grad():
        expected = module(*given_, need_weights=False, **options)[0]
        handle = tap_inside(module, Tap("input", lambda given: given * 0, module.out_proj.weight))
        got = module(*given_, need_weights=False, **options)[0]
        handle.remove()
    assert got.equal(expected)  # the tap is never reached: a site there would be reported as not reached
