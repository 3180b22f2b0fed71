"""Drawn circuits are complete paths; what an edge does is checked by really doing it."""

import dataclasses

import numpy as np
import pytest
from small_models import both_runs, one_thread, planted_wiring

from circuits import FindConfig, find_circuit, resample
from circuits.edge_checks import real_effects
from circuits.edges import METRIC, edge_effects
from circuits.paths import complete_paths
from mechinterp import logit


@pytest.fixture(autouse=True, scope="module")
def _alone():
    with one_thread():
        yield


@pytest.fixture(scope="module")
def circuit():
    planted, shown, w = planted_wiring("cnn", images=24)
    config = FindConfig(method="exact", discovery="top-n", top=500, boot=50)
    return find_circuit(planted.model, shown.x, metric=logit(1), sites=list(w.sites), config=config)


@pytest.mark.parametrize("n", [3, 6, 12])
def test_every_edge_lies_on_a_path_from_the_first_site_to_the_metric(circuit, n):
    drawn = complete_paths(circuit, n)
    edges = [e.edge for e in drawn.edges]
    assert 0 < len(edges) <= n
    first = circuit.wiring.sites[0]
    for source, target in edges:
        assert source[0] == first or any(t == source for _, t in edges)
        assert target[0] == METRIC or any(s == target for s, _ in edges)


def test_the_largest_edge_is_among_them_with_the_largest_ways_to_it_and_on(circuit):
    largest = max(circuit.edges, key=lambda e: e.size)
    assert largest.edge in {e.edge for e in complete_paths(circuit, 8).edges}


def test_what_fits_no_path_is_left_out(circuit):
    first = circuit.wiring.sites[0]
    cut = dataclasses.replace(circuit, edges=tuple(e for e in circuit.edges if e.edge[0][0] != first))
    assert complete_paths(cut, 50).edges == ()
    assert complete_paths(circuit, 1).edges == () or len(circuit.wiring.sites) == 1


def test_edges_are_looked_for_among_the_named_nodes_only():
    planted, shown, w = planted_wiring("cnn", images=12)
    among = dict.fromkeys(w.sites, (0, 1))
    config = FindConfig(method="attribution", discovery="top-n", top=500, boot=50)
    found = find_circuit(planted.model, shown.x, metric=logit(1), sites=list(w.sites), among=among, config=config)
    assert found.edges
    assert all(n in (0, 1) for e in found.edges for s, n in e.edge if s != METRIC)


@pytest.mark.parametrize("kind", ["cnn", "vit"])
def test_what_an_edge_really_does_is_what_path_patching_says(kind):
    _, shown, w = planted_wiring(kind, images=6)
    b = both_runs(w, shown.x, resample(1))
    exact = edge_effects(w, b.clean, b.replaced)
    picked, expected = [], []
    for pair in exact:
        at = np.argsort(-np.abs(pair.effects).mean(0), axis=None)[:3]
        for s, t in zip(*np.unravel_index(at, pair.effects.shape[1:]), strict=True):
            picked.append(((pair.source, int(s)), (pair.target, int(t))))
            expected.append(pair.effects[:, s, t])
    found = real_effects(w, [b], picked)
    np.testing.assert_allclose(found, np.stack(expected, 1), atol=1e-6)
