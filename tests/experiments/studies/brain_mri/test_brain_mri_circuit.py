"""The brain study's circuit on a small run: searched, tested at every size, drawn, checked, and said in words."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from circuits.graph import FeatureGraph
from circuits.inputs import Batch
from circuits.node_curves import NodeCurves
from experiments.analysis.circuit_runs import Opened
from experiments.cli import entry
from experiments.run_directory import Run
from experiments.studies.brain_mri.circuit import (
    BrainCircuitConfig,
    bands_of,
    chosen_slices,
    find_brain_circuit,
)
from experiments.studies.brain_mri.circuit_channels import channel_attributes
from experiments.studies.brain_mri.circuit_page import write_brain_circuit
from experiments.studies.brain_mri.circuit_words import columns_named, named, sentences
from mechinterp.attributes.table import Attribute, AttributeTable
from mechinterp.errors import ConfigError
from mechinterp.files import read_json, write_json
from mechinterp.images.image_set import ImageSet
from mechinterp.models.vision_model import InputContract, VisionModel
from mechinterp.sites import Site

MODEL = f"py:{Path(__file__).parents[2] / 'cli' / 'user_net.py'}:build"
SMALL = BrainCircuitConfig(
    found_on=3, tested_on=3, references=3, drawn_nodes=3, drawn_edges=8, sizes=(8,), last_sizes=(8,), random_circuits=2, last_random_circuits=2, checked_on=2,
    checked_nodes=4, stages=("stages.0", "stages.1"), start="stem.0",
)  # fmt: skip
OTHER = "<script>alert(1)</script>"
CONFIRMED = {"attribute": "brain_area", "unit": "mm²", "rho_confirmation": 0.71, "survives": True}


def run(*argv):
    return entry.run([str(a) for a in argv])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run as the study leaves it, of a small network on phantoms: what is positive is made up."""
    made = tmp_path_factory.mktemp("brain")
    scans, out = made / "scans", made / "run"
    assert run("phantoms", "fundus", "--patients", 12, "--size-px", 48, "--no-masks", "--out", scans) == 0
    capture = ("--model", MODEL, "--images", scans, "--site", "stages.2", "--outputs", "--out", out / "activations")
    assert run("capture", *capture) == 0
    sae = ("--k", 4, "--expansion", 1, "--epochs", 1, "--out", out / "saes")
    assert run("train-sae", "--activations", out / "activations", *sae) == 0
    if not (out / "run.json").exists():
        Run.create(out)
    width = read_json(next((out / "saes").glob("*/cfg.json")))["d_sae"]
    closest = {**CONFIRMED, "survives": False}
    write_json(
        out / "results.json",
        {
            "model": {"site": "stages.2"},
            "target": {
                "class": "healthy", "reference": OTHER, "positive": [0, 1, 2, 3, 4, 5], "reference_images": [6, 7, 8, 9],
                "bands": [{"name": "lower", "images": [0, 1, 3]}],
            },
            "images": {"splits": ["train"] * 3 + ["test"] * 3 + ["train"] * 6, "ids": [f"axial-{i}" for i in range(12)]},
            "features": [{"best": CONFIRMED if f == 0 else closest if f % 2 else None} for f in range(width)],
        },
    )  # fmt: skip
    return out


@pytest.fixture(scope="module")
def found(folder):
    return find_brain_circuit(folder, SMALL)


@pytest.fixture
def results(folder):
    return read_json(folder / "results.json")


def test_circuits_of_every_size_are_run_under_four_replacements_beside_their_controls(found):
    assert [u.ablation.name for u in found.curves.under] == ["zero", "mean", "resample", "counterfactual"]
    for u in found.curves.under:
        assert u.points[0].most == SMALL.drawn_nodes
        assert len(u.points[0].random) == 2
        last = u.points[-1]
        assert last.edges == found.curves.possible_edges
        assert last.faithfulness.value == pytest.approx(1, abs=1e-3)
        assert last.completeness.value == pytest.approx(0, abs=1e-3)
        assert last.neurons.value == pytest.approx(1, abs=1e-3)
        assert set(last.faithfulness.subgroups) == {"lower", "between"}


def test_features_alone_are_tested_with_the_stages_before_as_they_are(found):
    assert found.last_curves.possible_nodes < found.curves.possible_nodes
    assert found.last_curves.possible_edges == found.last_curves.possible_nodes  # each has one, to the metric
    assert found.last_curves.under[1].points[-1].faithfulness.value == pytest.approx(1, abs=1e-3)


def test_plain_runs_say_what_the_curve_says(found):
    assert 0 <= found.rerun_difference < 1e-4


def test_what_is_drawn_are_complete_paths_between_the_nodes_tested(found):
    edges = [e.edge for e in found.circuit.edges]
    assert 0 < len(edges) <= SMALL.drawn_edges
    assert all(s[0] == "stages.0" or any(t == s for _, t in edges) for s, _ in edges)
    assert all(sum(n[0] == site for n in found.circuit.nodes) <= 3 for site in ("stages.0", "stages.1", "stages.2"))
    assert np.isfinite(found.drawn_alone)


def test_estimates_are_held_against_real_changes(found):
    assert [a.site for a in found.agreements] == ["stages.0", "stages.1", "stages.2"]
    assert all(a.nodes <= SMALL.checked_nodes + 1 and a.images == 2 for a in found.agreements)
    assert found.edge_check.edges == len(found.circuit.edges)
    assert 0 <= found.edge_check.same_sign <= 1
    assert found.edge_check.slices == 2


def test_the_page_holds_sentences_graph_and_curves(found, folder, tmp_path):
    page, said = write_brain_circuit(found, folder, tmp_path)
    text = page.read_text()
    assert "in this head</h1>" in text
    assert OTHER not in text
    assert all(s.split(":")[0].split("“")[0][:30] in text for s in said)
    assert "features of the last convolution" in text
    record = read_json(tmp_path / "faithfulness.json")
    assert record["sentences"] == list(said)
    assert record["slices"]["tested_on"] == [3, 4, 5]
    assert record["possible_edges"] == found.curves.possible_edges
    graph = FeatureGraph.load(tmp_path / "circuit.json")
    assert len(graph.edges) == len(found.circuit.edges)


def test_a_feature_is_named_by_an_attribute_only_where_held_out_slices_confirmed_it(found, results):
    graph = found.circuit.graph
    features = [n for n in graph.nodes if n.kind == "feature"]
    assert features
    lone = FeatureGraph((dataclasses.replace(features[0], index=0),), (), graph.metric, graph.scale)
    confirmed = named(lone, results).nodes[0]
    assert (confirmed.name, confirmed.attribute, confirmed.unit) == (
        "feature 0: brain area [mm²], ρ +0.71 on held-out slices", "brain area", "mm²",
    )  # fmt: skip
    for node, before in zip(named(graph, results).nodes, graph.nodes, strict=True):
        if node.kind == "feature" and node.index % 2:
            assert node.name == f"feature {node.index}, unnamed (closest: brain area [mm²], ρ +0.71, not confirmed)"
            assert not node.attribute
        elif node.kind == "error":
            assert node.name == "what the features leave out"
        elif node.kind == "metric":
            assert node == before


def test_a_channel_before_is_named_by_an_attribute_only_where_held_out_slices_confirmed_it(found, results):
    channels = [n for n in found.circuit.graph.nodes if n.kind == "channel"]
    assert {(n.site, n.index) for n in channels} == set(found.channels)
    # twelve images leave too few shifts for anything to be confirmed
    assert not any(c["survives"] for c in found.channels.values())
    assert not any(
        n.attribute for n in named(found.circuit.graph, results, found.channels).nodes if n.kind == "channel"
    )
    first, second = channels[:2]
    known = {(first.site, first.index): CONFIRMED, (second.site, second.index): {**CONFIRMED, "attribute": None}}
    names = {n.id: n for n in named(found.circuit.graph, results, known).nodes}
    assert names[first.id].name == f"channel {first.index}: brain area [mm²], ρ +0.71 on held-out slices"
    assert names[first.id].unit == "mm²"
    assert names[second.id].name == f"channel {second.index}: no measured quantity"


def test_a_channel_is_named_after_a_quantity_that_it_copies_and_after_none_if_it_is_noise_or_never_varies(monkeypatch):
    n = 76
    rng = np.random.default_rng(0)
    area = np.cumsum(rng.normal(size=n))
    maps = np.stack([area, np.cumsum(rng.normal(size=n)), np.ones(n)], 1)[:, None].repeat(4, 1).astype(np.float32)
    table = AttributeTable.from_columns([(Attribute("brain_area", "mm²"), area)])
    site = Site(name="stage", module="0", take="output", layout="tokens", width=3, tokens=4)
    model = VisionModel(
        torch.nn.Sequential(torch.nn.Identity()), "made", InputContract(2, 2, 1), ("a",), "logits", {"stage": site}
    )
    images = ImageSet.from_arrays(np.zeros((n, 4, 4), dtype=np.float32), attributes=table)
    opened = Opened(model, images, (), None)
    monkeypatch.setattr(Opened, "batch", lambda _, rows: Batch(torch.from_numpy(maps[rows])))
    found = channel_attributes(opened, [("stage", 0), ("stage", 1), ("stage", 2)])
    assert found["stage", 0]["survives"]
    assert (found["stage", 0]["attribute"], found["stage", 0]["unit"]) == ("brain_area", "mm²")
    assert not found["stage", 1]["survives"]
    assert found["stage", 2]["attribute"] is None
    assert channel_attributes(opened, []) == {}


@pytest.mark.slow
def test_runs_that_begin_late_find_what_runs_from_the_image_find(found, folder):
    whole = find_brain_circuit(
        folder, dataclasses.replace(SMALL, start=None, random_circuits=0, last_random_circuits=0)
    )
    assert [e.edge for e in whole.circuit.edges] == [e.edge for e in found.circuit.edges]
    for a, b in zip(whole.curves.under, found.curves.under, strict=True):
        for p, q in zip(a.points, b.points, strict=True):
            assert p.faithfulness.value == pytest.approx(q.faithfulness.value, abs=1e-4)
    assert found.circuit.batch.x.shape[1:] == whole.circuit.batch.x.shape[1:]  # pictures are of the slices


def test_the_sentences_are_made_of_the_numbers(found, results):
    graph = named(found.circuit.graph, results)
    short, drawn, smallest, errors, why, estimates = sentences(found, graph, results)
    assert short.startswith("In short: ")
    assert "not why it is given" in short
    assert "stages.2" not in estimates
    u = found.curves.under[0]
    assert f"{u.points[0].faithfulness.value:z.2f} under zero" in drawn
    assert f"{found.drawn_alone:z.2f} under mean" in drawn
    assert "0.8 to 1.2 under all 4 replacements" in smallest
    assert f"{u.errors_alone:z.2f} under zero" in errors
    assert "all slices are of one head (n = 1, so no interval)" in why
    assert f"{found.edge_check.same_sign:.0%}" in estimates
    nowhere = dataclasses.replace(
        found,
        curves=NodeCurves(tuple(dataclasses.replace(u, points=u.points[:1]) for u in found.curves.under), 9, 10**6),
    )
    faithful = nowhere.curves.smallest() is not None
    assert ("no part of the network that was run alone" in sentences(nowhere, graph, results)[0]) != faithful
    assert ("No size measured" in sentences(nowhere, graph, results)[2]) != faithful
    assert ("is no explanation of it" in sentences(nowhere, graph, results)[4]) != faithful


def test_only_a_circuit_that_carries_the_answer_is_said_to(found, results):
    graph = named(found.circuit.graph, results)
    whole = tuple(
        dataclasses.replace(u, points=(dataclasses.replace(u.points[-1], most=u.points[0].most),))
        for u in found.curves.under
    )
    carrying = dataclasses.replace(found, curves=dataclasses.replace(found.curves, under=whole))
    assert "passes through in this head, not why another" in sentences(carrying, graph, results)[4]
    assert sentences(carrying, graph, results)[2].startswith("Only all nodes together")
    assert "only all that was looked at carries the answer" in sentences(carrying, graph, results)[0]


def test_columns_are_named_for_readers(results):
    words = columns_named(results, ["stages.0", "stages.1", "stages.2", "metric"])
    assert words["stages.0"] == "channels, 2 stages before"
    assert words["stages.1"] == "channels, 1 stage before"
    assert words["metric"] == f"“healthy” against “{OTHER}”"


def test_slices_found_on_and_tested_on_come_from_different_splits(results):
    chosen = chosen_slices(results, SMALL)
    assert chosen == {"found_on": (0, 1, 2), "tested_on": (3, 4, 5), "references": (6, 8, 9), "partners": (6, 6, 6)}
    assert bands_of(results["target"]["bands"], [0, 4]) == ["lower", "between"]


def test_mistakes_are_one_line(results, tmp_path):
    results["target"]["positive"] = [0, 1]
    with pytest.raises(ConfigError, match="the run has no positive held-out slices"):
        chosen_slices(results, BrainCircuitConfig())
    with pytest.raises(ConfigError, match="drawn_edges is 0: it must be at least 1"):
        BrainCircuitConfig(drawn_edges=0)
    with pytest.raises(ConfigError, match=r"has no results\.json: run mechinterp study brain-mri"):
        find_brain_circuit(tmp_path)


def test_the_command_without_a_metric_writes_the_studys_circuit(found, folder, capsys, monkeypatch):
    monkeypatch.setattr("experiments.studies.brain_mri.circuit.find_brain_circuit", lambda *_, **__: found)
    capsys.readouterr()
    assert run("circuit", folder, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert "Why “healthy”?" in " ".join(said["sentences"])
    assert said["faithfulness"]["rerun_difference"] < 1e-4
    assert (folder / "circuit" / "circuit.html").exists()


def test_the_command_without_a_metric_asks_for_a_finished_study(tmp_path, capsys):
    Run.create(tmp_path / "run")
    assert run("circuit", tmp_path / "run") != 0
    assert "has no results.json: run mechinterp study brain-mri" in " ".join(capsys.readouterr().err.split())
