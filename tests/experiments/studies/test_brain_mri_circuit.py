import dataclasses

import numpy as np
import pytest

from circuits.ablations import mean
from circuits.faithfulness import Faithfulness, Share, UnderAblation
from circuits.graph import Effect, FeatureGraph, GraphEdge, GraphNode
from circuits.inputs import no_interval
from experiments.cli import entry
from experiments.run_directory import Run
from experiments.studies.brain_mri_circuit import (
    BrainCircuit,
    BrainCircuitConfig,
    bands_of,
    chosen_slices,
    find_brain_circuit,
    named,
    sentences,
    write_brain_circuit,
)
from mechinterp.errors import ConfigError
from mechinterp.files import read_json, write_json

SITE = "deep"


@pytest.fixture
def results():
    confirmed = {"attribute": "brain_area", "unit": "mm²", "rho_confirmation": 0.71, "survives": True}
    chosen_only = {**confirmed, "survives": False}
    return {
        "model": {"site": SITE},
        "target": {
            "class": "meningioma", "reference": "notumor", "positive": [0, 1, 2, 3], "reference_images": [4, 5],
            "bands": [{"name": "lower", "images": [0, 1]}],
        },
        "images": {
            "splits": ["train", "train", "test", None, "train", "test"],
            "files": ["a.png"] * 6, "ids": [f"axial-{i}" for i in range(6)],
        },
        "features": [{"best": confirmed, "top": [{"image": 2}]}, {"best": chosen_only, "top": []}],
    }  # fmt: skip


@pytest.fixture
def graph():
    effect = Effect(1.0, 1.0, note="n = 1")
    nodes = (
        GraphNode("e:3", "early", 3, "neuron", "early neuron 3"),
        GraphNode("d:0", SITE, 0, "feature", "deep feature 0"),
        GraphNode("d:1", SITE, 1, "feature", "deep feature 1"),
        GraphNode("d:2", SITE, 2, "error", "deep error"),
        GraphNode("metric", "metric", 0, "metric", "meningioma - notumor"),
    )
    ends = (("e:3", "d:0"), ("d:0", "metric"), ("d:1", "metric"), ("d:2", "metric"))
    return FeatureGraph(nodes, tuple(GraphEdge(a, b, effect, effect, 1.0) for a, b in ends), "difference", 2.0)


@pytest.fixture
def tested():
    def share(value):
        return Share(value, no_interval(), 0.1, {"lower": value})

    under = UnderAblation(mean(), share(0.42), share(0.58), np.array([0.01, 0.03]), share(0.2), {}, {4: 0.42})
    return Faithfulness((under,), 4, 1000, 0.25)


def test_a_feature_is_named_by_an_attribute_only_where_held_out_slices_confirmed_it(graph, results):
    names = [(n.name, n.attribute, n.unit) for n in named(graph, results).nodes]
    assert names == [
        ("channel 3", "", ""),
        ("feature 0: brain area [mm²], ρ +0.71 on held-out slices", "brain area", "mm²"),
        ("feature 1: no attribute found", "", ""),
        ("what the features leave out", "", ""),
        ("meningioma - notumor", "", ""),
    ]


def test_slices_found_on_and_tested_on_come_from_different_splits(results):
    found = chosen_slices(results, BrainCircuitConfig(references=1))
    assert found == {"found_on": (0, 1), "tested_on": (2,), "references": (4,)}
    assert bands_of(results["target"]["bands"], [0, 3]) == ["lower", "between"]


def test_without_positive_held_out_slices_one_line_says_so(results):
    results["target"]["positive"] = [0, 1]
    with pytest.raises(ConfigError, match="the run has no positive held-out slices"):
        chosen_slices(results, BrainCircuitConfig())
    with pytest.raises(ConfigError, match="edges is 0: it must be at least 1"):
        BrainCircuitConfig(edges=0)


def test_a_folder_without_results_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"has no results\.json: run mechinterp study brain-mri"):
        find_brain_circuit(tmp_path)


def test_the_sentences_say_the_numbers_and_that_there_is_one_head(graph, tested, results):
    carried, left, why = sentences(named(graph, results), tested, results, {"tested_on": [2]})
    assert "4 of 1,000" in carried
    assert "0.42 under mean (2 random circuit(s) 0.01 to 0.03, as many edges between channels 0.20)" in carried
    assert "25%" in left
    assert "0.58 under mean" in left
    assert "Of the 2 features drawn 1 follows" in why
    assert "n = 1, so no interval" in why
    nothing = sentences(graph, tested, results, {"tested_on": [2]})[2]
    assert "none follow a measured quantity" in nothing
    assert nothing.endswith("since it does not carry the answer alone.")


def test_only_a_circuit_that_carries_the_answer_is_said_to(graph, tested, results):
    whole = Share(0.9, no_interval(), 0.1, {})
    under = dataclasses.replace(tested.under[0], faithfulness=whole)
    carrying = dataclasses.replace(tested, under=(under,))
    assert "passes through in this head" in sentences(graph, carrying, results, {"tested_on": [2]})[2]
    without_error = FeatureGraph(graph.nodes[:3], (), "m", 1.0)
    assert sentences(without_error, tested, results, {"tested_on": [2]})[1].startswith(
        "No edge drawn starts at the error"
    )


def test_the_page_holds_graph_sentences_and_slices(graph, tested, results, tmp_path):
    write_json(tmp_path / "results.json", results)
    (tmp_path / "a.png").write_bytes(b"png")
    found = BrainCircuit(named(graph, results), tested, {"tested_on": (2,)}, ("One & two.",))
    page = write_brain_circuit(found, tmp_path, tmp_path / "circuit").read_text()
    assert "One &amp; two." in page
    assert page.count("<figure>") == 1
    assert "most active on axial-2" in page
    assert "features of the last convolution" in page
    assert "channels, 1 stage before" in page
    assert read_json(tmp_path / "circuit" / "faithfulness.json")["slices"] == {"tested_on": [2]}
    assert FeatureGraph.load(tmp_path / "circuit" / "circuit.json") == found.graph


def test_the_command_without_a_metric_asks_for_a_finished_study(tmp_path, capsys):
    Run.create(tmp_path / "run")
    assert entry.run(["circuit", str(tmp_path / "run")]) != 0
    assert "has no results.json: run mechinterp study brain-mri" in " ".join(capsys.readouterr().err.split())


def test_the_command_without_a_metric_writes_the_studys_circuit(graph, tested, results, tmp_path, capsys, monkeypatch):
    Run.create(tmp_path / "run")
    write_json(tmp_path / "run" / "results.json", results)
    (tmp_path / "run" / "a.png").write_bytes(b"png")
    found = BrainCircuit(named(graph, results), tested, {"tested_on": (2,)}, ("It carries 0.42.",))
    monkeypatch.setattr("experiments.studies.brain_mri_circuit.find_brain_circuit", lambda *_, **__: found)
    assert entry.run(["circuit", str(tmp_path / "run"), "--json"]) == 0
    assert "It carries 0.42." in capsys.readouterr().out
    assert (tmp_path / "run" / "circuit" / "circuit.html").exists()
