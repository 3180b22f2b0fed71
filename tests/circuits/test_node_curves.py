"""Curves of circuits of nodes: analytic at their ends, beside controls of the same size, on planted models near 1 early."""

import json

import numpy as np
import pytest
import torch
from small_models import both_runs, one_thread, planted_wiring

from circuits.ablations import counterfactual, mean, resample, zero
from circuits.curve_figures import curves_figure
from circuits.inputs import Batch
from circuits.metrics import as_metric
from circuits.node_circuits import Ranking, rank_nodes
from circuits.node_curves import Ranked, measure_curves, random_kept
from circuits.nodes import features
from circuits.wiring import Wiring
from mechinterp import logit
from mechinterp.errors import ConfigError, ShapeError
from mechinterp.feature_encoder import Directions


@pytest.fixture(autouse=True, scope="module")
def _alone():
    with one_thread():
        yield


@pytest.fixture(scope="module")
def planted():
    return planted_wiring("cnn", images=24, distractors=6)


@pytest.fixture(scope="module")
def curves(planted):
    model, shown, w = planted
    held = model.images(24, seed=9)
    partners = torch.roll(held.x, 1, 0)
    # features of a rotated basis with two directions left out: their error is a node
    site = w.sites[0]
    width = len(w.layer(site))
    basis = torch.linalg.qr(torch.randn(width, width, generator=torch.Generator().manual_seed(0)))[0]
    encoder = Directions(site, basis[: width - 2].to(held.x), torch.zeros(width).to(held.x))
    sae = Wiring(model.model, [features(encoder), *w.layers[1:]], as_metric(logit(1), model.model), shown.x)
    ranked = [Ranked(v, rank_nodes(v, [both_runs(v, shown.x, resample(1))], steps=4)) for v in (sae, w)]
    return measure_curves(
        ranked[0], images=Batch(held.x, held.groups), neurons=ranked[1],
        ablations=(zero(), mean(), resample(1), counterfactual()), reference=shown.x, partners=partners,
        sizes=(1, 4, 16, 400), subgroups=["a", "b"] * 12, random_circuits=3, boot=100,
    )  # fmt: skip


def test_all_nodes_restore_everything_and_leave_nothing(curves):
    for u in curves.under:
        last = u.at(400)
        assert last.faithfulness.value == pytest.approx(1, abs=1e-4)
        assert last.completeness.value == pytest.approx(0, abs=1e-4)
        assert last.neurons.value == pytest.approx(1, abs=1e-4)
        assert (last.nodes, last.edges) == (curves.possible_nodes, curves.possible_edges)
        assert set(last.faithfulness.subgroups) == {"a", "b"}
        assert last.faithfulness.interval.low is not None


def test_the_random_circuits_are_of_the_size_and_a_ranked_one_does_more(curves):
    u = next(u for u in curves.under if u.ablation.name == "resample")
    assert len(u.at(4).random) == 3
    assert u.at(4).neurons.value > u.at(4).random_range[1]
    assert -0.5 < u.errors_alone < 1


def test_the_smallest_size_is_faithful_under_every_ablation_and_so_are_all_larger_ones(curves):
    point = curves.smallest()
    assert point is not None
    for u in curves.under:
        for p in u.points:
            if p.most >= point.most:
                assert 0.8 <= p.faithfulness.value <= 1.2
    assert curves.smallest((2.0, 3.0)) is None


def test_it_goes_into_json_and_a_figure(curves):
    record = json.loads(json.dumps(curves.to_json()))
    assert [u["ablation"] for u in record["under"]] == ["zero", "mean", "resample", "counterfactual"]
    assert record["under"][0]["points"][0]["without_errors"] is not None
    figure = curves.figure()
    names = {t.name for t in figure.data}
    assert {"the circuit", "without error nodes", "as many neurons"} <= names
    assert len(figure.layout.annotations) >= 4
    alone = type(curves)(curves.under[:1], curves.possible_nodes, curves.possible_edges)
    assert len(curves_figure(alone).data) == 4


def test_random_nodes_are_drawn_from_those_that_the_runs_tell_apart():
    ranking = Ranking({"s": (3, 0, 1, 2, 4)}, {"s": torch.tensor([2.0, 1.0, 0.0, 3.0, 0.5])}, {"s": 4})
    kept = ranking.largest(3)
    assert kept == {"s": (3, 0, 4)}
    for circuit in random_kept(ranking, kept, 20, seed=1):
        assert 2 not in circuit["s"]
        assert circuit["s"][-1] == 4
        assert len(set(circuit["s"])) == 3


def test_mistakes_are_one_line(planted):
    _, shown, w = planted
    ranked = Ranked(w, rank_nodes(w, [both_runs(w, shown.x, mean())]))
    images = Batch(shown.x, shown.groups)
    with pytest.raises(ConfigError, match="puts each image's own partner: give partners"):
        measure_curves(ranked, images=images, ablations=[counterfactual()])
    with pytest.raises(ConfigError, match="sizes name 0"):
        measure_curves(ranked, images=images, sizes=(0, 2))
    with pytest.raises(ShapeError, match="1 subgroups for 24 images"):
        measure_curves(ranked, images=images, subgroups=["a"])


def test_without_neurons_or_errors_there_is_nothing_beside(planted):
    _, shown, w = planted
    ranked = Ranked(w, rank_nodes(w, [both_runs(w, shown.x, mean())]))
    found = measure_curves(ranked, images=Batch(shown.x), ablations=[mean()], random_circuits=0, boot=10)
    (u,) = found.under
    assert [p.most for p in u.points][:3] == [1, 2, 4]
    assert u.points[0].neurons is None
    assert np.isnan(u.errors_alone)
    assert np.isnan(u.points[0].random_range[0])
    assert {t.name for t in found.figure().data} == {"the circuit"}
