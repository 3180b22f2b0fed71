"""What recurs: the true edges of planted circuits on every half of the patients, and counts by hand."""

import dataclasses

import numpy as np
import pytest
from small_models import one_thread

from circuits.edges import METRIC
from circuits.finding import find_circuit
from circuits.finding_config import FindConfig
from circuits.planted.random_circuits import RandomCircuitConfig, random_circuit
from circuits.recurrence import of_circuits, recurrence
from mechinterp import logit
from mechinterp.errors import ConfigError

CONFIG = FindConfig(method="attribution", threshold=0.02, boot=100, batch=64)


@pytest.fixture(autouse=True, scope="module")
def _alone():
    with one_thread():
        yield


@pytest.fixture(scope="module")
def planted():
    return random_circuit(RandomCircuitConfig(kind="cnn", gates=3, depth=1), seed=4)


@pytest.fixture(scope="module")
def circuit(planted):
    shown = planted.images(40, seed=1)
    return find_circuit(
        planted.model, shown.x, metric=logit(1), sites=planted.sites, groups=shown.groups, config=CONFIG
    )


def test_true_edges_recur_on_every_half_of_the_patients_and_random_ones_do_not(planted):
    shown = planted.images(64, seed=1)
    found = recurrence(
        planted.model, shown.x, groups=shown.groups, times=3, config=dataclasses.replace(CONFIG, method="exact"),
        metric=logit(1), sites=planted.sites,
    )  # fmt: skip
    true = {(source, target if target in planted.true_nodes else (METRIC, 0)) for source, target in planted.true_edges}
    assert true <= set(found.always)
    assert found.overlap > 0.9
    assert found.random_overlap < 0.5
    assert all(found.signs[edge] == 1 for edge in true)
    assert "recur every time" in found.sentence
    for a in found.circuits:
        assert len(set(a.batch.groups.tolist())) == 16  # half of 32 patients
    assert found.to_json()["edges"][0]["found"] == 3


def test_counts_and_overlap_by_hand(circuit):
    edges = [e.edge for e in circuit.edges][:4]
    turned = [dataclasses.replace(e, slope=-e.slope) if e.edge == edges[1] else e for e in circuit.edges]
    a, b = circuit.with_edges(edges[:3]), dataclasses.replace(circuit, edges=tuple(turned)).with_edges(edges[1:4])
    found = of_circuits([a, b])
    assert found.counts == {edges[0]: 1, edges[1]: 2, edges[2]: 2, edges[3]: 1}
    assert set(found.always) == {edges[1], edges[2]}
    assert found.overlap == pytest.approx(2 / 4)
    assert found.signs[edges[1]] == 0.5
    assert found.signs[edges[2]] == 1
    assert np.isnan(of_circuits([circuit.with_edges([])] * 2).overlap)


def test_too_little_to_search_twice_is_refused(planted, circuit):
    shown = planted.images(4, seed=1)
    with pytest.raises(ConfigError, match="it takes 2 searches and 4 patients"):
        recurrence(planted.model, shown.x, groups=shown.groups, metric=logit(1), sites=planted.sites)
    with pytest.raises(ConfigError, match="what recurs takes two at least"):
        of_circuits([circuit])
