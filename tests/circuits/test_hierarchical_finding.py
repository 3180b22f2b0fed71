"""Coarse to fine finds what looking at every node finds, and runs fewer images for it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_models import one_thread

from circuits import FindConfig, find_circuit
from circuits.hierarchical_finding import _counted, find_circuit_by_groups
from circuits.inputs import Batch
from circuits.planted.by_hand import hand_made_cnn
from circuits.planted.random_circuits import RandomCircuitConfig, random_circuit
from circuits.planted.scoring import score
from mechinterp import logit
from mechinterp.errors import ConfigError

SETTINGS = {"method": "exact", "rows": 1024, "boot": 100}


@pytest.fixture(autouse=True, scope="module")
def _alone():
    with one_thread():
        yield


def both(planted, images=48, **config):
    """Flat and hierarchical: circuit and images run, each."""
    shown = planted.images(images, seed=1)
    given = {
        "sites": planted.sites,
        "metric": logit("with"),
        "config": FindConfig(**{**SETTINGS, "batch": images, **config}),
    }
    with _counted(planted.model) as count:
        flat = find_circuit(planted.model, shown.x, groups=shown.groups, **given)
    return flat, count.images, find_circuit_by_groups(planted.model, shown.x, patients=shown.groups, **given)


def test_the_hand_made_cnn_is_found_whole():
    planted = hand_made_cnn()
    flat, _, found = both(planted)
    scored = score(planted, found.circuit)
    assert (scored.nodes, scored.edges, scored.signs) == (1, 1, 1)
    assert {e.edge for e in found.circuit.edges} == {e.edge for e in flat.edges}
    assert found.circuit.possible == flat.possible
    assert found.circuit.claim["discovery"] == "hierarchical"
    assert found.images_run == sum(level.images_run for level in found.levels)
    sizes = {e.edge: e.size for e in flat.edges}
    for e in found.circuit.edges:
        assert e.size == pytest.approx(sizes[e.edge])


def test_parts_of_one_subject_give_its_edges_no_interval(monkeypatch):
    planted = hand_made_cnn()
    shown = planted.images(24, seed=1)
    parts = Batch(shown.x, np.asarray(shown.groups), units_are_patients=False)
    monkeypatch.setattr("circuits.hierarchical_finding.as_batch", lambda *_: parts)
    settings = FindConfig(**{**SETTINGS, "batch": 24})
    found = find_circuit_by_groups(
        planted.model, shown.x, sites=planted.sites, metric=logit("with"), config=settings
    ).circuit
    assert not found.batch.units_are_patients
    assert all(edge.noising.low is None for edge in found.graph.edges)


def with_many_small_effects(planted, size=3e-4):
    """Every node moves every later one a little, as in trained networks: then each costs a flat search its runs."""
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in planted.model.module.parameters():
            weight.add_(size * torch.randn(weight.shape, generator=rng, dtype=weight.dtype))
    return planted


@pytest.mark.parametrize("seed", [700, 701])
def test_where_everything_moves_a_little_it_costs_half_and_finds_as_much(seed):
    planted = with_many_small_effects(random_circuit(RandomCircuitConfig(depth=2, distractors=11), seed=seed))
    flat, cost, found = both(planted, images=24)
    assert score(planted, flat).edges == 1
    assert score(planted, found.circuit).edges == 1
    assert found.images_run < 0.6 * cost
    assert len(found.levels) >= 2


@pytest.mark.slow
def test_among_a_hundred_nodes_it_costs_a_fifth_at_most():
    planted = with_many_small_effects(random_circuit(RandomCircuitConfig(kind="vit", depth=2, distractors=8), seed=701))
    flat, cost, found = both(planted, images=8)
    assert score(planted, found.circuit).edges >= score(planted, flat).edges - 0.05
    assert found.images_run < 0.2 * cost


def test_groups_of_ones_own_are_kept_whole_or_dropped():
    planted = hand_made_cnn()
    shown = planted.images(32, seed=1)
    site = planted.sites[0]
    width = planted.model.site(site).width
    found = find_circuit_by_groups(
        planted.model, shown.x, sites=planted.sites, metric=logit("with"), groups={site: [list(range(width))]},
        config=FindConfig(**SETTINGS),
    )  # fmt: skip
    assert score(planted, found.circuit).edges == 1
    with pytest.raises(ConfigError, match="do not divide its"):
        find_circuit_by_groups(
            planted.model, shown.x, sites=planted.sites, metric=logit("with"), groups={site: [[0, 0]]}
        )
    with pytest.raises(ConfigError, match="which has no nodes"):
        find_circuit_by_groups(
            planted.model, shown.x, sites=planted.sites, metric=logit("with"), groups={"nowhere": [[0]]}
        )


def test_settings_that_cannot_be_meant_are_refused():
    planted = hand_made_cnn()
    given = {"sites": planted.sites, "metric": logit("with")}
    x = planted.images(4, seed=1).x
    with pytest.raises(ConfigError, match="coarse to fine keeps what is above a threshold"):
        find_circuit_by_groups(planted.model, x, config=FindConfig(discovery="top-n"), **given)
    with pytest.raises(ConfigError, match="fan is 1"):
        find_circuit_by_groups(planted.model, x, fan=1, **given)
