"""Whatever a module is called with and whatever it returns, the site's tensor is found, and can be replaced."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn

from mechinterp.errors import SiteError
from mechinterp.hooks import hook_site
from mechinterp.sites import Site

Pair = namedtuple("Pair", ["main", "other"])


@dataclass
class Output:
    """As a Hugging Face output: fields, one of them the tensor the next module is given."""

    last_hidden_state: torch.Tensor
    other: str = "kept"


class Wrapping(nn.Module):
    """Doubles its input and hands it over in some container."""

    def __init__(self, wrap):
        super().__init__()
        self.wrap = wrap

    def forward(self, x):
        return self.wrap(2 * x)


class Root(nn.Module):
    def __init__(self, inner, unwrap=lambda out: out, call=lambda inner, x: inner(x)):
        super().__init__()
        self.inner, self.unwrap, self.call = inner, unwrap, call

    def forward(self, x):
        self.handed_over = self.call(self.inner, x)
        return self.unwrap(self.handed_over) + 1


def site(take="output", module="inner"):
    return Site("here", module, take, "vector", 2, 1)


X = torch.tensor([[1.0, 2.0]])


@pytest.mark.parametrize(
    ("wrap", "unwrap"),
    [
        (lambda t: t, lambda o: o),
        (lambda t: (t, "kept"), lambda o: o[0]),
        (lambda t: [t, "kept"], lambda o: o[0]),
        (lambda t: Pair(t, "kept"), lambda o: o.main),
        (lambda t: Output(t), lambda o: o.last_hidden_state),
        (lambda t: torch.max(t[None], dim=0), lambda o: o.values),
    ],
    ids=["tensor", "tuple", "list", "namedtuple", "output", "torch return type"],
)
def test_an_output_in_any_container_is_seen_and_replaced_and_the_rest_is_kept(wrap, unwrap):
    root, seen = Root(Wrapping(wrap), unwrap), []
    handle = hook_site(root, site(), lambda t: seen.append(t.clone()))
    assert torch.equal(root(X), 2 * X + 1)
    assert torch.equal(seen[0], 2 * X)
    handle.remove()
    plain_type = type(root.handed_over)
    handle = hook_site(root, site(), lambda t: t * 10)
    assert torch.equal(root(X), 20 * X + 1)
    assert type(root.handed_over) is plain_type
    if plain_type in (tuple, list, Pair):
        assert root.handed_over[1] == "kept"
    handle.remove()
    assert torch.equal(root(X), 2 * X + 1)


def test_replacing_does_not_change_the_output_object_that_the_module_may_have_kept():
    kept = []

    def wrap(t):
        kept.append(Output(t))
        return kept[-1]

    root = Root(Wrapping(wrap), lambda o: o.last_hidden_state)
    handle = hook_site(root, site(), torch.zeros_like)
    assert torch.equal(root(X), torch.ones(1, 2))
    assert torch.equal(kept[0].last_hidden_state, 2 * X)
    handle.remove()


class TwoInputs(nn.Module):
    def forward(self, hidden, mask=None):
        hidden = hidden[0] if isinstance(hidden, (list, tuple)) else hidden
        return hidden if mask is None else hidden * mask


@pytest.mark.parametrize(
    "call",
    [
        lambda inner, x: inner(x),
        lambda inner, x: inner(hidden=x),
        lambda inner, x: inner(mask=torch.ones(2), hidden=x),
        lambda inner, x: inner([x, "kept"]),
        lambda inner, x: inner((x, "kept"), mask=torch.ones(2)),
    ],
    ids=["positional", "keyword", "keywords in another order", "list", "tuple and keyword"],
)
def test_an_input_is_seen_and_replaced_however_the_module_is_called(call):
    root, seen = Root(TwoInputs(), call=call), []
    handle = hook_site(root, site("input"), lambda t: seen.append(t.clone()))
    assert torch.equal(root(X), X + 1)
    assert torch.equal(seen[0], X)
    handle.remove()
    handle = hook_site(root, site("input"), lambda t: -t)
    assert torch.equal(root(X), 1 - X)
    handle.remove()
    assert not root.inner._forward_pre_hooks


def test_keywords_the_signature_does_not_name_are_found_too():
    class Anything(nn.Module):
        def forward(self, **given):
            return given["image"]

    root, seen = Root(Anything(), call=lambda inner, x: inner(flag=True, image=x)), []
    hook_site(root, site("input"), seen.append)
    root(X)
    assert seen[0] is X


def test_a_module_that_is_not_there_is_named():
    with pytest.raises(SiteError, match=r"site 'here': the model has no module 'inner\.deeper'"):
        hook_site(Root(TwoInputs()), site(module="inner.deeper"), lambda t: None)


@pytest.mark.parametrize(("wrap", "kind"), [(lambda t: {"x": t}, "dict"), (lambda t: (), "tuple"), (str, "str")])
def test_a_site_without_a_tensor_says_what_it_hands_over(wrap, kind):
    root = Root(Wrapping(wrap), lambda o: 0)
    hook_site(root, site(), lambda t: None)
    with pytest.raises(SiteError, match=rf"hands over a {kind}, not a tensor"):
        root(X)


def test_an_input_without_a_tensor_says_so():
    root = Root(TwoInputs(), call=lambda inner, x: inner(hidden=3))
    hook_site(root, site("input"), lambda t: None)
    with pytest.raises(SiteError, match="is called without a tensor"):
        root(X)


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.shared, self.last = nn.Identity(), nn.Identity()

    def forward(self, x):
        return self.last(self.shared(2 * self.shared(x)) + 1)


def test_one_call_of_a_module_that_runs_twice_is_meant():
    module, seen = Twice(), []
    for call in (0, 1):
        where = replace(site(module="shared"), call=call)
        handle = hook_site(module, where, lambda t: seen.append(t.clone()))
        module(X)
        module(X)  # counted anew in every forward pass
        handle.remove()
    assert [t.tolist() for t in seen] == [X.tolist()] * 2 + [(2 * X).tolist()] * 2
    handle = hook_site(module, replace(site(module="shared"), call=1), lambda t: t * 0)
    assert module(X).equal(torch.ones(1, 2))
    handle.remove()
    assert module(X).equal(2 * X + 1)


def test_a_site_inside_a_module_that_is_not_there_is_named():
    module = Twice()
    for special in ({"take": "pattern", "module": "absent"}, {"weight": "shared.weight"}):
        with pytest.raises(SiteError, match="site 'here': the model has no module"):
            hook_site(module, replace(site(module="shared"), **special), lambda t: None)
    with pytest.raises(SiteError, match="does not say from which heads and weights its result is computed"):
        hook_site(module, replace(site(module="shared"), take="result"), lambda t: None)
    with pytest.raises(SiteError, match=r"the model's 'shared.training' is no weight"):
        hook_site(module, replace(site(module="shared"), weight="shared.training"), lambda t: None)
