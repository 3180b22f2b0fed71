"""Circuits of nodes: one pass gives what cutting edge by edge gives."""

import pytest
import torch
from small_models import both_runs, one_thread, planted_wiring, small_images, small_vit

from circuits.ablations import mean, resample, zero
from circuits.metrics import as_metric
from circuits.node_circuits import (
    NodeCircuitRunner,
    connections,
    count_edges,
    edges_between,
    rank_nodes,
    tail_of,
)
from circuits.nodes import features, neurons
from circuits.plain_runs import direct_rerun
from circuits.running_alone import CircuitRunner
from circuits.wiring import Wiring
from mechinterp import logit
from mechinterp.errors import ConfigError
from mechinterp.feature_encoder import Directions

SITES = ("blocks.0.hook_resid_post", "blocks.1.hook_mlp_out", "blocks.1.hook_resid_post")


@pytest.fixture(autouse=True, scope="module")
def _alone():
    with one_thread():
        yield


def vit_wiring(error=True):
    """Features of an incomplete dictionary with their error at the first site, neurons at the others."""
    vit, x = small_vit(), small_images(4)
    directions = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64))[0]
    encoder = Directions(SITES[0], directions[:5], torch.zeros(8, dtype=torch.float64))
    layers = [features(encoder, error=error), *(neurons(vit, site) for site in SITES[1:])]
    return x, Wiring(vit, layers, as_metric(logit(1), vit), x)


@pytest.mark.parametrize("ablation", [zero(), mean(), resample(1)], ids=lambda a: a.name)
def test_one_pass_is_the_circuit_of_all_edges_between_its_nodes(ablation):
    x, w = vit_wiring()
    b = both_runs(w, x, ablation)
    pairs = connections(w, b)
    assert ("blocks.0.hook_resid_post", "blocks.1.hook_mlp_out") in pairs
    kept = {SITES[0]: (0, 3, 5), SITES[1]: (1, 2, 7), SITES[2]: (0, 4, 5)}
    edges = edges_between(kept, pairs)
    assert len(edges) == count_edges(kept, pairs)
    assert torch.allclose(NodeCircuitRunner(w, b).metric(kept), CircuitRunner(w, b).metric(edges), atol=1e-10)


def test_all_nodes_restore_the_metric_and_none_is_the_run_with_all_replaced():
    x, w = vit_wiring()
    b = both_runs(w, x, resample(1))
    every = {layer.site: range(len(layer)) for layer in w.layers}
    runner = NodeCircuitRunner(w, b)
    assert torch.allclose(runner.metric(every), b.clean.metric, atol=1e-10)
    assert torch.allclose(runner.metric({}), b.replaced.metric, atol=1e-10)
    assert torch.allclose(runner.metric(every, complement=True), runner.metric({}), atol=1e-12)
    some = {SITES[0]: (1, 5), SITES[2]: (0, 1, 2)}
    others = {layer.site: [n for n in range(len(layer)) if n not in some.get(layer.site, ())] for layer in w.layers}
    assert torch.allclose(runner.metric(some, complement=True), runner.metric(others), atol=1e-12)


@pytest.mark.parametrize("ablation", [zero(), mean(), resample(1)], ids=lambda a: a.name)
def test_the_plain_run_with_an_edit_at_every_site_agrees(ablation):
    x, w = vit_wiring()
    b = both_runs(w, x, ablation)
    for kept in ({SITES[0]: (0, 5), SITES[1]: (1,), SITES[2]: (0, 4, 5)}, {SITES[0]: (1, 2)}, {}):
        assert torch.allclose(direct_rerun(w, b, kept), NodeCircuitRunner(w, b).metric(kept), atol=1e-10)


def test_the_plain_run_refuses_nodes_it_cannot_put_together():
    x, w = vit_wiring(error=False)
    with pytest.raises(ConfigError, match="has nodes of several features or no error node"):
        direct_rerun(w, both_runs(w, x, zero()), {})


def test_what_is_no_node_stays_as_it_is():
    x, w = vit_wiring(error=False)
    b = both_runs(w, x, zero())
    only_first = {layer.site: range(len(layer)) for layer in w.layers[1:]}
    site = SITES[0]
    layer = w.layers[0]
    error = b.clean.acts[site] - layer.encoder.decode(layer.encoder.encode(b.clean.acts[site]))
    expected, _ = w.run(b.clean, {site: error})
    assert torch.allclose(NodeCircuitRunner(w, b).metric(only_first), expected, atol=1e-10)


def test_running_the_tail_alone_gives_the_same():
    _, shown, w = planted_wiring("cnn")
    b = both_runs(w, shown.x, resample(1))
    tail = tail_of(w, shown.x)
    assert tail is not None
    kept = dict.fromkeys(w.sites, (0, 1))
    assert torch.allclose(NodeCircuitRunner(w, b, tail).metric(kept), NodeCircuitRunner(w, b).metric(kept), atol=1e-5)
    assert tail_of(planted_wiring("vit", freeze=frozenset({"attention"}))[2], shown.x) is None


def test_nodes_are_ranked_by_what_they_do_and_errors_are_kept_whatever_their_rank():
    x, w = vit_wiring()
    b = both_runs(w, x, mean())
    for steps in (1, 4):
        ranking = rank_nodes(w, [b], steps=steps)
        first = ranking.sizes[SITES[0]]
        assert list(ranking.order[SITES[0]]) == first.argsort(descending=True).tolist()
        assert ranking.errors == {SITES[0]: 5}
        assert [len(n) for n in ranking.largest(2).values()] == [2, 2, 2]
        assert ranking.largest(1)[SITES[0]] == (5,)
        assert 5 not in ranking.largest(6, errors=False)[SITES[0]]
        assert 5 not in ranking.alive(SITES[0])
        last = ranking.of(SITES[2:])
        assert (list(last.order), last.errors) == ([SITES[2]], {})
        assert last.order[SITES[2]] == ranking.order[SITES[2]]


def test_true_nodes_of_a_planted_circuit_are_alive_and_alone_restore_the_logit():
    planted, shown, w = planted_wiring("cnn", images=32)
    b = both_runs(w, shown.x, resample(1))
    ranking = rank_nodes(w, [b], steps=4)
    kept = {site: [n for s, n in planted.true_nodes if s == site] for site in w.sites}
    assert all(set(nodes) <= set(ranking.alive(site)) for site, nodes in kept.items())
    alone = NodeCircuitRunner(w, b).metric(kept)
    assert torch.allclose(alone, b.clean.metric, atol=1e-4)
