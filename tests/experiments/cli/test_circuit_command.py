"""``mechinterp circuit`` on a user's own network, with its autoencoder and with neurons."""

from __future__ import annotations

import json
from copy import copy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from circuits import zero
from circuits.inputs import Batch
from experiments.analysis.circuit_runs import (
    answered_rows,
    circuit_sentences,
    opened_for_circuit,
    parsed_ablation,
    parsed_metric,
)
from experiments.cli import entry
from mechinterp.errors import ConfigError

MODEL = f"py:{Path(__file__).with_name('user_net.py')}:build"


def run(*argv):
    return entry.run([str(a) for a in argv])


def with_activation(model, activation):
    other = copy(model)
    other.activation = activation
    return other


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("circuit")
    scans, store = folder / "scans", folder / "a" / "activations"
    assert run("phantoms", "fundus", "--patients", 12, "--size-px", 48, "--no-masks", "--out", scans) == 0
    assert run("capture", "--model", MODEL, "--images", scans, "--site", "stages.2", "--outputs", "--out", store) == 0
    saes = ("--k", 4, "--expansion", 1, "--epochs", 1, "--out", folder / "a" / "saes")
    assert run("train-sae", "--activations", store, *saes) == 0
    return folder / "a"


@pytest.mark.slow
def test_features_and_neurons_become_a_graph_with_its_faithfulness(made, capsys):
    capsys.readouterr()
    settings = (
        "--method",
        "eap-ig",
        "--steps",
        2,
        "--discovery",
        "top-n",
        "--top",
        12,
        "--max-nodes",
        6,
        "--boot",
        100,
    )
    code = run("circuit", made, "--metric", "0", "--site", "stages.1", "--random-circuits", 2, *settings, "--json")
    assert code == 0
    said = json.loads(capsys.readouterr().out)
    assert 0 < said["edges"] <= 12
    assert said["claim"]["method"] == "integrated"
    assert {a["site"] for a in said["agreement"]} == {"stages.1", "stages.2"}
    ablations = {u["ablation"] for u in said["faithfulness"]["under"]}
    assert ablations - {"counterfactual"} == {"zero", "mean", "resample"}
    assert all(u["neurons"] is not None for u in said["faithfulness"]["under"])
    for name in said["files"].values():
        assert Path(name).stat().st_size > 0
    page = (made / "circuit" / "circuit.html").read_text()
    assert "<title>Circuit of logit of" in page
    assert 'lang="en"' in page
    assert "circuit" in json.loads((made / "run.json").read_text())["stages"]


@pytest.mark.slow
def test_mistakes_are_one_line(made, tmp_path, capsys):
    assert run("circuit", tmp_path, "--metric", "0") == 2
    assert "is no run" in capsys.readouterr().err
    assert run("circuit", made, "--metric", "nothing:here") == 2
    assert "give CLASS, logit:CLASS" in capsys.readouterr().err
    assert run("circuit", made, "--metric", "0", "--most-images", 1) == 2
    assert "found on some and tested on others" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("1", "logit of 1"),
        ("tumour", "logit of tumour"),
        ("logit:2", "logit of 2"),
        ("difference:a, b", "logit a − logit b"),
        ("probability:a", "probability of a"),
    ],
)
def test_metrics_are_read_from_one_word(text, name):
    assert parsed_metric(text).name == name


def test_words_that_mean_nothing_are_refused():
    for text in ("logit:", "difference:a", "loss:a"):
        with pytest.raises(ConfigError, match="is no metric"):
            parsed_metric(text)
    with pytest.raises(ConfigError, match="--ablation is 'burn'"):
        parsed_ablation("burn")


def test_an_image_without_a_label_is_answered_neither_right_nor_wrong(made):
    opened = opened_for_circuit(made)
    n, names = len(opened.images), opened.model.class_names
    logits = opened.model.logits(opened.batch(list(range(n))).x).detach()
    said = [names[k] for k in logits.argmax(1).tolist()]
    other = {names[0]: names[1], names[1]: names[0]}
    labels = [None if i % 3 == 0 else other[a] if i % 3 == 1 else a for i, a in enumerate(said)]

    def found(only, labels):
        some = replace(opened, images=replace(opened.images, labels=tuple(labels)))
        return answered_rows(some, np.arange(n), only).tolist()

    assert found("wrong", labels) == list(range(1, n, 3))
    assert found("right", labels) == list(range(2, n, 3))
    with pytest.raises(ConfigError, match="the label 'ill' is not one of the model's classes"):
        found("wrong", [*labels[:-1], "ill"])  # every image of that label would count as a mistake


@pytest.mark.parametrize(
    ("known", "whose", "held"), [(True, "9 images of 3 patients", "patients"), (False, "9 images, ", "images")]
)
def test_images_that_are_no_patients_are_not_called_so(known, whose, held):
    batch = Batch(torch.zeros(9, 1, 2, 2), np.arange(9) // 3, units_are_patients=known)
    claim = {"images": 9, "patients": batch.patients, "method": "exact", "ablation": "zero"}
    graph = SimpleNamespace(claim=claim, nodes=[], edges=[], metric="logit", error_share=0.0)
    score = SimpleNamespace(value=0.5, worst=("all", 0.5))
    under = SimpleNamespace(
        random_interval=(0.0, 0.0), random=(), neurons=None, faithfulness=score, completeness=score, ablation=zero()
    )
    said = " ".join(circuit_sentences(graph, SimpleNamespace(under=[under]), 10))
    assert f"on {whose}" in said
    assert f"Alone, on {held} held out, it keeps" in said


def test_of_several_findings_each_that_is_asked_about_is_right_or_wrong(made):
    opened = opened_for_circuit(made)
    n, names = len(opened.images), opened.model.class_names
    findings = replace(opened, model=with_activation(opened.model, "sigmoid"))
    above = (opened.model.logits(opened.batch(list(range(n))).x).detach() > 0).tolist()
    exact = ["|".join(name for name, yes in zip(names, row, strict=True) if yes) or "No Finding" for row in above]
    both = "|".join((names[0], names[1]))

    def found(only, labels, about=None):
        some = replace(findings, images=replace(opened.images, labels=tuple(labels)))
        return answered_rows(some, np.arange(n), only, about=about).tolist()

    assert found("right", exact) == list(range(n))
    for c in (0, 1):
        asked = [i for i in range(n) if above[i][c]]
        if asked:
            assert found("right", [both] * n, about=[c]) == asked
        if len(asked) < n:
            assert found("wrong", [both] * n, about=[c]) == [i for i in range(n) if not above[i][c]]


@pytest.mark.slow
def test_groups_first_and_only_some_answers_from_the_command_line(made, tmp_path, capsys):
    capsys.readouterr()
    settings = ("--method", "attribution", "--max-nodes", 6, "--boot", 100, "--random-circuits", 0, "--threshold", 0.02)
    argv = ("circuit", made, "--metric", "0", "--site", "stages.1", *settings, "--out", tmp_path / "c", "--json")
    assert run(*argv, "--coarse-to-fine") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["claim"]["discovery"] == "hierarchical"
    page = Path(said["files"]["circuit.html"]).read_text()
    assert "data:image/png;base64," in page
    assert "of those it was found on, value" in page
    assert run(*argv, "--only", "rihgt") == 2
    assert "--only is 'rihgt'" in capsys.readouterr().err
    assert run(*argv, "--only", "wrong") == 2  # labelled by other names than the model's classes
    assert "right and wrong cannot be told" in capsys.readouterr().err
