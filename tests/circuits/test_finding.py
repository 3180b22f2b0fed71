"""Planted circuits are found; thresholds and settings were not chosen on these."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_models import one_thread, small_images, small_vit

from circuits import FindConfig, find_circuit, mean, prune
from circuits.finding import default_nodes
from circuits.inputs import Batch
from circuits.nodes import features, neurons
from circuits.planted.by_hand import hand_made_cnn, hand_made_vit
from circuits.planted.random_circuits import RandomCircuitConfig, random_circuit
from circuits.planted.scoring import score
from mechinterp import logit, logit_difference
from mechinterp.errors import ConfigError, SiteError
from mechinterp.feature_encoder import Directions


@pytest.fixture(autouse=True, scope="module")
def _alone():
    with one_thread():
        yield


def found(planted, images=48, **settings):
    shown = planted.images(images, seed=1)
    config = FindConfig(**{"method": "exact", "batch": images, "rows": 1024, "steps": 4, "boot": 100, **settings})
    return find_circuit(
        planted.model, shown.x, sites=planted.sites, metric=logit("with"), groups=shown.groups, config=config
    )


@pytest.fixture(scope="module")
def cnn():
    return found(hand_made_cnn())


@pytest.mark.parametrize("method", ["exact", "integrated", "attribution", "eap-ig"])
def test_the_hand_made_cnn_is_found_whole(method):
    planted = hand_made_cnn()
    scored = score(planted, found(planted, method=method))
    assert (scored.nodes, scored.edges, scored.signs) == (1, 1, 1)


def test_the_hand_made_vit_is_found_with_its_backup_which_is_marked():
    planted = hand_made_vit()
    circuit = found(planted)
    scored = score(planted, circuit)
    assert (scored.nodes, scored.edges, scored.signs) == (1, 1, 1)
    assert circuit.self_repair == planted.places["ring seen again"]
    marked = [n.id for n in circuit.graph.nodes if n.self_repair]
    assert marked == ["blocks.1.mlp.hook_post:0"]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("method", ["exact", "integrated"])
def test_random_circuits_are_found(seed, method):
    planted = random_circuit(RandomCircuitConfig(depth=2), seed=500 + seed)
    scored = score(planted, found(planted, images=96, method=method))
    assert scored.edges >= 0.9
    assert scored.signs == 1


def test_acdc_keeps_the_planted_edges(cnn):
    planted = hand_made_cnn()
    scored = score(planted, found(planted, discovery="acdc", threshold=0.005))
    assert scored.edges == 1


def test_the_largest_edges_alone(cnn):
    few = found(hand_made_cnn(), discovery="top-n", top=6)
    assert 0 < len(few.edges) <= 6
    assert {e.edge for e in few.edges} <= {e.edge for e in cnn.edges}
    assert len(cnn.largest(6).edges) <= 6


def test_a_node_may_be_one_of_a_few(cnn):
    short = found(hand_made_cnn(), max_nodes=2)
    assert all(len({n for s, n in short.nodes if s == site}) <= 2 for site in short.wiring.sites)


def test_batches_give_the_same_circuit_as_the_whole_does(cnn):
    parts = find_circuit(
        hand_made_cnn().model, cnn.batch.x, sites=hand_made_cnn().sites, metric=logit(1), ablation=mean(),
        config=FindConfig(method="exact", batch=17, boot=100),
    )  # fmt: skip
    whole = find_circuit(
        hand_made_cnn().model, cnn.batch.x, sites=hand_made_cnn().sites, metric=logit(1), ablation=mean(),
        config=FindConfig(method="exact", batch=48, boot=100),
    )  # fmt: skip
    assert {e.edge: round(e.size, 6) for e in parts.edges} == {e.edge: round(e.size, 6) for e in whole.edges}


def test_a_found_circuit_is_faithful_complete_and_far_from_random_ones(cnn):
    planted = hand_made_cnn()
    held = planted.images(40, seed=99)
    tested = cnn.faithfulness(
        images=Batch(held.x, held.groups), subgroups=["tag" if a else "none" for a in held.amplitudes[:, 3]],
        random_circuits=10,
    )  # fmt: skip
    assert [u.ablation.name for u in tested.under] == ["zero", "mean", "resample"]
    for u in tested.under:
        assert 0.8 <= u.faithfulness.value <= 1.2
        assert 0.8 <= u.faithfulness.worst[1] <= 1.2
        assert abs(u.completeness.value) <= 0.2
        assert u.random_interval[1] < (1 if u.ablation.name == "zero" else 0.5)  # zero: a constant is easily restored
        assert u.faithfulness.unexplained < 0.05
        assert u.curve[len(cnn.edges)] == pytest.approx(u.faithfulness.value)
        assert set(u.minimality) == {e.edge for e in cnn.edges}
        assert 0 <= u.area <= 1
    assert tested.error_share == 0
    json = tested.to_json()
    assert json["under"][0]["faithfulness"]["interval"][0] <= 1.01
    assert len(tested.figure().data) >= 6


def test_an_unfaithful_circuit_is_said_to_be_so(cnn):
    partly = cnn.largest(4)
    u = partly.faithfulness(ablations=[mean()], random_circuits=0, minimality=False).under[0]
    assert u.faithfulness.value < 0.8
    assert np.isnan(u.random_interval[0])


def test_pruning_stops_at_the_smallest_faithful_circuit(cnn):
    small = prune(cnn, within=(0.9, 1.1))
    assert len(small.edges) <= len(cnn.edges)
    u = small.faithfulness(ablations=[small.ablation], random_circuits=0, minimality=False).under[0]
    assert 0.9 <= u.faithfulness.value <= 1.1


def test_error_nodes_are_counted_and_keep_the_output():
    planted = hand_made_cnn()
    shown = planted.images(24, seed=1)
    model = planted.model
    # half of the first site's features: what they miss is in the error node
    partial = Directions("detect", torch.eye(7, dtype=torch.float64)[[0, 1, 2]], torch.zeros(7, dtype=torch.float64))
    circuit = find_circuit(
        model, shown.x, nodes=[features(partial), neurons(model, "gates.0"), neurons(model, "gates.1")], metric=logit(1),
        config=FindConfig(method="exact", boot=100),
    )  # fmt: skip
    assert ("detect", 3) in circuit.nodes
    assert circuit.graph.node("detect:3").kind == "error"
    assert 0 < circuit.graph.error_share < 1
    u = circuit.faithfulness(
        ablations=[mean()], random_circuits=0, minimality=False, neuron_circuit=found(planted)
    ).under[0]
    assert u.faithfulness.value == pytest.approx(1, abs=0.05)
    assert u.neurons is not None


def test_default_nodes_are_a_vits_heads_and_mlps():
    vit = small_vit()
    kinds = [(n.site, n.kind, len(n)) for n in default_nodes(vit)]
    assert ("blocks.0.attn.hook_z", "head", 2) in kinds
    assert ("blocks.1.hook_mlp_out", "layer", 1) in kinds
    circuit = find_circuit(
        vit, small_images(6), metric=logit_difference("a", "b"), config=FindConfig(freeze=("attention", "norm"))
    )
    assert circuit.claim["frozen"] == ["attention", "norm"]
    assert circuit.claim["off_data"].keys() == set(circuit.wiring.sites)


def test_mistakes_are_named(cnn):
    for message, settings in {
        "top is 0": {"top": 0},
        "threshold is 2": {"threshold": 2.0},
        "method is 'guess'": {"method": "guess"},
        "discovery is 'guess'": {"discovery": "guess"},
        "freeze names 'bias'": {"freeze": ("bias",)},
    }.items():
        with pytest.raises(ConfigError, match=message):
            FindConfig(**settings)
    planted = hand_made_cnn()
    with pytest.raises(SiteError, match="neither stages nor blocks"):
        default_nodes(replace(planted.model, sites={}))
    with pytest.raises(ConfigError, match="has no edge"):
        cnn.with_edges([]).faithfulness()
    with pytest.raises(ConfigError, match="1 subgroups for 48 images"):
        cnn.faithfulness(subgroups=["a"])
