"""Edges against a slow twin written with plain hooks, and predictions against what really happens."""

import numpy as np
import pytest
import torch
from small_models import both_runs, one_thread, planted_wiring, small_images, small_vit

from circuits.ablations import mean, resample, zero
from circuits.edges import METRIC, Chosen, edge_effects
from circuits.frozen import FrozenCalls
from circuits.metrics import as_metric
from circuits.nodes import neurons, whole
from circuits.quadrature import way
from circuits.wiring import Wiring
from mechinterp import intervene, logit, run_with_cache
from mechinterp.errors import ConfigError, SiteError

SITES = ("blocks.0.attn.hook_z", "blocks.0.hook_mlp_out", "blocks.1.attn.hook_z", "blocks.1.hook_mlp_out")
ALL = frozenset({"attention", "norm", "gates"})


@pytest.fixture(autouse=True, scope="module")
def _alone():
    with one_thread():
        yield


@pytest.fixture(scope="module")
def vit():
    return small_vit()


@pytest.fixture(scope="module")
def x():
    return small_images(4)


def wiring(vit, x, freeze=frozenset()):
    return Wiring(vit, [neurons(vit, s) for s in SITES], as_metric(logit(1), vit), x, freeze)


def put(value):
    return lambda _acts: value


@pytest.mark.parametrize("pair", [(0, 2), (1, 3), (0, 3)])
def test_exact_edges_equal_path_patching_with_plain_interventions(vit, x, pair):
    w = wiring(vit, x)
    b = both_runs(w, x, resample(1))
    source, target = SITES[pair[0]], SITES[pair[1]]
    nodes = Chosen({s: [1, 6] for s in SITES})
    found = next(
        e for e in edge_effects(w, b.clean, b.replaced, nodes=nodes) if (e.source, e.target) == (source, target)
    )
    with torch.no_grad():
        held = {s: put(b.clean.acts[s]) for s in SITES[pair[0] + 1 : pair[1]]}
        for i, s in enumerate([1, 6]):
            changed = b.clean.acts[source].clone()
            changed[..., s] = b.replaced.acts[source][..., s]
            with intervene(vit, {**held, source: put(changed)}):
                got = run_with_cache(vit, x, [target])[target]
            for j, t in enumerate([1, 6]):
                alone = b.clean.acts[target].clone()
                alone[..., t] = got[..., t]
                with intervene(vit, {target: put(alone)}):
                    after = vit.module(x)[:, 1]
                slow = (after - b.clean.metric).numpy()
                assert np.abs(found.effects[:, i, j] - slow).max() < 1e-6
                assert np.allclose(found.target_change[:, i, j], (got - b.clean.acts[target])[..., t].sum(1).numpy())


def test_the_last_edge_is_what_a_node_does_past_all_others(vit, x):
    w = wiring(vit, x)
    b = both_runs(w, x, mean())
    found = next(e for e in edge_effects(w, b.clean, b.replaced) if (e.source, e.target) == (SITES[1], METRIC))
    changed = b.clean.acts[SITES[1]].clone()
    changed[..., 5] = b.replaced.acts[SITES[1]][..., 5]
    with torch.no_grad(), intervene(vit, {SITES[1]: put(changed), **{s: put(b.clean.acts[s]) for s in SITES[2:]}}):
        after = vit.module(x)[:, 1]
    assert np.abs(found.effects[:, 5, 0] - (after - b.clean.metric).numpy()).max() < 1e-6


def test_attribution_predicts_what_happens_when_everything_else_is_held(vit, x):
    """Under held attention, normalisation and gates the model is affine, so each predicted change must come true."""
    w = wiring(vit, x, ALL)
    b = both_runs(w, x, resample(1))
    exact, linear = (
        edge_effects(w, b.clean, b.replaced, method=m, nodes=Chosen({s: [0, 3, 7] for s in SITES}))
        for m in ("exact", "attribution")
    )
    assert len(exact) == len(linear) > 5
    for real, predicted in zip(exact, linear, strict=True):
        scale = np.abs(real.effects).max() + 1e-9
        assert np.abs(real.effects - predicted.effects).max() < 1e-3 * scale
        moved = np.abs(real.target_change).max() + 1e-9
        assert np.abs(real.target_change - predicted.target_change).max() < 1e-3 * moved


def test_integrated_edges_come_nearer_to_the_exact_ones_than_attribution(vit, x):
    w = wiring(vit, x)
    b = both_runs(w, x, resample(1))
    exact, linear, integrated = (
        np.concatenate([e.effects.ravel() for e in edge_effects(w, b.clean, b.replaced, method=m, steps=16)])
        for m in ("exact", "attribution", "integrated")
    )
    assert np.corrcoef(exact, integrated)[0, 1] > np.corrcoef(exact, linear)[0, 1]


def test_an_edge_into_a_whole_layer_keeps_its_sign_of_the_metric():
    planted, shown, w = planted_wiring(images=16)
    b = both_runs(w, shown.x, zero())
    found = {(e.source, e.target): e for e in edge_effects(w, b.clean, b.replaced)}
    for (source, target), sign in planted.true_edges.items():
        to = METRIC if target[0] == "logit" else target[0]
        slope = found[source[0], to].slopes()[source[1], target[1]]
        assert np.sign(slope) == sign or abs(slope) < 1e-9


def test_sites_that_nothing_connects_give_no_edges():
    _, shown, w = planted_wiring(images=6, depth=3)
    b = both_runs(w, shown.x, resample(1))
    pairs = {(e.source, e.target) for e in edge_effects(w, b.clean, b.replaced)}
    assert ("detect", "gates.1") not in pairs  # a CNN without skips
    assert ("detect", "gates.0") in pairs


def test_the_number_of_rows_at_once_does_not_matter(vit, x):
    w = wiring(vit, x)
    b = both_runs(w, x, mean())
    nodes = Chosen({s: [0, 1, 2] for s in SITES})
    few, many = (edge_effects(w, b.clean, b.replaced, nodes=nodes, rows=r) for r in (4, 4096))
    assert all(np.allclose(a.effects, c.effects, atol=1e-9) for a, c in zip(few, many, strict=True))


@pytest.mark.parametrize(
    "freeze",
    [frozenset(), frozenset({"attention"}), frozenset({"norm"}), ALL],
    ids=lambda held: "+".join(sorted(held)) or "nothing",
)
def test_held_calls_change_nothing_while_nothing_is_changed(vit, x, freeze):
    w = wiring(vit, x, freeze)
    state = w.state(x)
    metric, _ = w.run(state, {})
    assert torch.allclose(metric, vit.module(x)[:, 1].detach(), atol=1e-9)
    twice, _ = w.run(state, {}, repeats=2)
    assert torch.allclose(twice, metric.repeat(2))


def test_with_attention_held_a_changed_query_does_nothing(vit, x):
    query = "blocks.1.attn.hook_q"
    w = Wiring(vit, [whole(vit, query)], as_metric(logit(1), vit), x, frozenset({"attention"}))
    live = Wiring(vit, [whole(vit, query)], as_metric(logit(1), vit), x)
    for one, moves in ((w, False), (live, True)):
        state = one.state(x)
        metric, _ = one.run(state, {query: state.acts[query] * 3})
        assert bool((metric - state.metric).abs().max() > 1e-6) is moves


def test_all_kinds_of_normalisation_are_linear_when_held():
    import torch.nn.functional as fn

    x = torch.randn(2, 6, 4, dtype=torch.float64)
    weight, bias = torch.randn(4).double(), torch.randn(4).double()
    gw, gb = torch.randn(6).double(), torch.randn(6).double()
    calls = {
        "layer": lambda t: fn.layer_norm(t, (4,), weight, bias),
        "group": lambda t: fn.group_norm(t, 3, gw, gb),
        "rms": lambda t: fn.rms_norm(t, (4,), weight),
        "softmax": lambda t: fn.softmax(t, -1) @ t[0, :4, :2],
        "gelu": lambda t: fn.gelu(t),
        "leaky": lambda t: fn.leaky_relu(t, 0.1),
    }
    for name, call in calls.items():
        frozen = FrozenCalls(ALL)
        with frozen.recording():
            assert torch.allclose(call(x), call(x.clone()) if name == "softmax" else call(x)), name
        frozen = FrozenCalls(ALL)
        expected = call(x)
        with frozen.recording():
            assert torch.allclose(call(x), expected), name
        dx = torch.randn_like(x)
        with frozen.replaying():
            base, one, two = call(x), call(x + dx), call(x + 2 * dx)
        assert torch.allclose(two - base, 2 * (one - base), atol=1e-9), name
        assert sum(frozen.counts.values()) == 1


def test_what_cannot_be_held_is_said():
    frozen = FrozenCalls(frozenset({"attention"}))
    attend = torch.nn.MultiheadAttention(4, 2, batch_first=True)
    t = torch.randn(1, 3, 4)
    with pytest.raises(SiteError, match="MultiheadAttention"), frozen.recording():
        attend(t, t, t)
    frozen = FrozenCalls(ALL)
    with pytest.raises(SiteError, match="run the unchanged images first"), frozen.replaying():
        torch.relu(t)
    with frozen.recording():
        torch.relu(t)
    with pytest.raises(SiteError, match="other calls"), frozen.replaying():
        torch.softmax(t, -1)


def test_points_of_the_way_integrate_polynomials_exactly():
    assert sum(w * s**9 for s, w in way(5)) == pytest.approx(0.1)


def test_a_site_may_not_be_given_twice(vit, x):
    with pytest.raises(ConfigError, match="given twice"):
        Wiring(vit, [neurons(vit, SITES[0]), whole(vit, SITES[0])], as_metric(logit(1), vit), x)
