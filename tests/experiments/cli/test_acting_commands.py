"""Commands that act on a run of a user's own network: what they print and write, and what they refuse."""

from __future__ import annotations

import json
from copy import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from experiments.analysis.acting_runs import edit_run, open_run, search_run, write_search
from experiments.analysis.checkpoint_runs import diff_run, difference_sentences
from experiments.analysis.deferral_runs import defer_run
from experiments.analysis.report_findings import report_findings
from experiments.cli import entry
from experiments.run_directory import Run
from mechinterp.errors import AttributeTableError, ConfigError
from mechinterp.feature_encoder import Neurons
from mechinterp.files import read_json, write_json
from sparse_autoencoders import SparseAutoencoder

MODEL = f"py:{Path(__file__).with_name('user_net.py')}:build_undecided"


def run(*argv):
    return entry.run([str(a) for a in argv])


def with_activation(model, activation):
    other = copy(model)
    other.activation = activation
    return other


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("acting")
    scans, store = folder / "scans", folder / "a" / "activations"
    phantoms = ("--patients", 80, "--images-per-patient", 1, "--size-px", 48, "--no-masks", "--shortcut", "camera_tag")
    assert run("phantoms", "fundus", *phantoms, "--shortcut-train", 0, "--validation-share", 0.4, "--out", scans) == 0
    assert run("capture", "--model", MODEL, "--images", scans, "--site", "stages.2", "--out", store) == 0
    return folder / "a"


def test_shortcuts_are_searched_between_two_values_of_an_attribute(made, capsys):
    capsys.readouterr()
    settings = ("--environment", "laterality", "--target", 1, "--label", "referable", "--site", "stages.2")
    assert run("shortcuts", made, *settings, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert sorted(said["environments"]) == ["laterality 0", "laterality 1"]
    assert said["ranked"][0]["rank"] == 1
    for name in said["files"].values():
        assert Path(name).stat().st_size > 0
    assert "shortcuts" in json.loads((made / "run.json").read_text())["stages"]


def test_a_search_is_written_with_all_that_it_found(made, tmp_path):
    opened = open_run(Run.open(made), "stages.2")
    asked = {"label": "referable", "split": None, "most_images": 40, "method": "attribution", "seed": 0}
    search = replace(search_run(opened, "laterality", "1", **asked), alpha=1.0)
    assert len(search.found) == opened.encoders[0].width == 24
    files = write_search(search, tmp_path)
    assert len(read_json(Path(files["shortcuts.json"]))["ranked"]) == 24  # scores of doubt are taken from these


def test_an_edit_is_billed_on_the_test_images(made, capsys):
    capsys.readouterr()
    settings = (
        "--shortcut",
        "camera_tag",
        "--target",
        1,
        "--label",
        "referable",
        "--site",
        "stages.2",
        "--features",
        "0,1",
    )
    assert run("edit", made, *settings, "--random", 2, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["method"] == "ablate"
    assert said["images"] == 20
    assert said["patients"] == 20
    assert "camera_tag" not in {c["attribute"] for c in said["collateral"]}
    assert Path(said["files"]["edit.html"]).stat().st_size > 0


def test_doses_are_told_beside_random_directions(made, capsys):
    capsys.readouterr()
    settings = ("--features", "3,8", "--target", 1, "--site", "stages.2", "--doses", "-2,2", "--random", 3)
    assert run("steer", made, *settings, "--most-images", 20, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert [f["feature"] for f in said["features"]] == [3, 8]
    assert said["features"][0]["doses"] == [-2.0, 2.0]
    assert len(said["features"][0]["random"]) == 3
    page = Path(said["files"]["steer.html"]).read_text()
    assert "feature 3: -2 SD changes the log-odds" in page
    assert "random directions of the same norm" in page


def test_scores_of_doubt_stand_beside_the_models_confidence(made, capsys):
    capsys.readouterr()
    settings = ("--target", 1, "--label", "referable", "--site", "stages.2", "--features", "3", "--score", "camera_tag")
    assert run("defer", made, *settings, "--reference-split", "validation", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    names = [s["name"] for s in said["scores"]]
    assert names == ["model's confidence", "use of the features", "distance from the data", "camera_tag"]
    assert said["cases"] == 20
    assert said["scores"][0]["risk"][-1] == pytest.approx(said["errors"] / said["cases"])
    assert "Of 80% kept, wrong" in Path(said["files"]["defer.html"]).read_text()


@pytest.fixture
def attributed(made):
    """The run with an autoencoder of whose features three were confirmed: two follow honest quantities, one the mark."""
    sae = made.parent / "saes" / "seed-0"  # outside the run, which other tests take for one without an autoencoder
    if not sae.exists():
        settings = ("--k", 4, "--expansion", 1, "--epochs", 1, "--out", sae.parent)
        assert run("train-sae", "--activations", made / "activations", *settings) == 0
    follows = [{"feature": 0, "attribute": "disc_area_mm2"}, {"feature": 1, "attribute": "pigmentation"},
               {"feature": 2, "attribute": "camera_tag"}, {"feature": 3, "attribute": "pigmentation"}]  # fmt: skip
    write_json(sae / "attributes.json", {"survivors": [0, 1, 2], "features": follows})
    yield sae
    (sae / "attributes.json").unlink()


def test_scores_of_doubt_come_from_what_the_run_found(made, attributed, capsys):
    settings = ("--target", 1, "--label", "referable", "--reference-split", "validation", "--sae", attributed, "--json")
    capsys.readouterr()
    assert run("defer", made, *settings, "--distrust", "camera_tag") == 0
    said = json.loads(capsys.readouterr().out)
    names = [s["name"] for s in said["scores"]]
    assert names[1:3] == ["answer rests on what is not explained", "use of the features"]
    assert (
        "2 features follow a confirmed quantity an answer may rest on (disc_area_mm2, pigmentation)" in said["source"]
    )
    assert "1 serve what it should not rest on (camera_tag)" in said["source"]
    page = Path(said["files"]["defer.html"]).read_text()
    assert "From the run" in page
    assert "answer rests on what is not explained" in page
    assert run("defer", made, *settings, "--no-report") == 0
    assert "answer rests" not in " ".join(s["name"] for s in json.loads(capsys.readouterr().out)["scores"])
    assert run("defer", made, *settings, "--distrust", "camera_tags") == 2
    assert "camera_tag" in capsys.readouterr().err


def test_images_that_name_no_patient_give_no_interval_over_patients(made):
    opened = open_run(Run.open(made), "stages.2")
    assert opened.units_are_patients
    assert opened.caution == []
    for images, said in (
        (replace(opened.images, groups=None), "Nobody said whose images these are"),
        (replace(opened.images, units_are_patients=False), "parts of one subject"),
    ):
        other = replace(opened, images=images)
        assert said in other.caution[0]
        found = defer_run(
            other, "1", label="referable", features=(), attributes=(), split="test", reference_split="validation",
            most_images=100, seed=0,
        )  # fmt: skip
        assert not found.found[1].interval.estimable
        asked = {"split": None, "most_images": 40, "method": "attribution", "seed": 0}
        search = search_run(other, "laterality", "1", label="referable", **asked).to_json()
        assert search["patients"] is None
        assert {f["interval"]["low"] for f in search["ranked"][:5]} == {None}
        _, bill = edit_run(
            other,
            "camera_tag",
            "1",
            label="referable",
            method="ablate",
            features=(0, 1),
            sensitivity=0.9,
            random=1,
            seed=0,
        )
        assert bill.intervals == {}
        assert bill.to_json()["patients"] is None  # images were counted, as if each were a patient


def test_images_without_a_label_are_left_out_and_not_taken_for_healthy_ones(made):
    opened = open_run(Run.open(made), "stages.2")
    images = opened.images
    hidden = list(range(0, len(images), 4))
    labels = tuple(None if i in hidden else label for i, label in enumerate(images.labels))
    some = replace(opened, images=replace(images, labels=labels))
    assert some.caution == [f"{len(hidden)} images have no label: left out, since nobody knows the truth."]
    kept = [i for i, split in enumerate(images.splits) if split == "test" and labels[i] is not None]

    asked = {"features": (), "attributes": (), "reference_split": "validation", "most_images": 100, "seed": 0}
    found = defer_run(some, "1", label="referable", split="test", **asked)
    logits = opened.model.logits(opened.prepared(np.array(kept))).detach().numpy()
    errors = sum((z[1] > z[0]) != (labels[i] == "referable") for z, i in zip(logits, kept, strict=True))
    assert (found.cases, found.unlabelled, found.errors) == (len(kept), 20 - len(kept), errors)
    assert "no label" in found.sentences()[0]

    searched = search_run(
        some, "laterality", "1", label="referable", split=None, most_images=1000, method="attribution", seed=0
    )
    assert len(searched.labels) == len(images) - len(hidden)
    settings = {"method": "ablate", "features": (0,), "sensitivity": 0.9, "random": 0, "seed": 0}
    assert edit_run(some, "camera_tag", "1", label="referable", **settings)[1].images == len(kept)
    of_others = (None if s == "test" else label for s, label in zip(images.splits, images.labels, strict=True))
    nobody = replace(opened, images=replace(images, labels=tuple(of_others)))
    with pytest.raises(ConfigError, match="no image of the split 'test' has a label"):
        defer_run(nobody, "1", label="referable", split="test", **asked)


def test_a_finding_between_bars_is_there(made):
    opened = open_run(Run.open(made), "stages.2")
    labels = ("mass", "edema | mass", "edema", "No Finding") * len(opened.images)
    images = replace(opened.images, labels=labels[: len(opened.images)])
    rows = np.arange(4)
    findings = replace(opened, images=images, model=with_activation(opened.model, "sigmoid"))
    assert findings.truth(rows, "1", "mass").tolist() == [True, True, False, False]
    assert findings.truth(rows, "1", "edema").tolist() == [False, True, True, False]
    one_each = replace(opened, images=images)  # classes that exclude one another have bars in their names
    assert one_each.truth(rows, "1", "edema | mass").tolist() == [False, True, False, False]


def test_what_masks_say_is_an_attribute_too(made):
    opened = open_run(Run.open(made), "stages.2")
    areas = np.arange(len(opened.images)) % 5

    def read(i):
        mask = np.zeros((48, 48), dtype=bool)
        mask[0, : areas[i]] = True
        return {"mark": mask}

    spacing = ((0.5, 2.0),) * len(opened.images)
    marked = replace(opened, images=replace(opened.images, read_masks=read, spacing_mm=spacing))
    np.testing.assert_allclose(marked.column("--distrust", "mark_area"), areas)  # a pixel is 1 mm²
    assert set(marked.column("--distrust", "camera_tag")) <= {0, 1}
    with pytest.raises(AttributeTableError, match=r"--distrust 'mark_aera' is no attribute .* 'mark_area'"):
        marked.column("--distrust", "mark_aera")
    nowhere = replace(marked, images=replace(marked.images, spacing_mm=None))
    with pytest.raises(AttributeTableError, match="--distrust 'mark_area' is no attribute"):
        nowhere.column("--distrust", "mark_area")


def test_a_search_that_knew_the_labels_of_the_cases_scores_none_of_them(made, attributed):
    encoder = SparseAutoencoder.load(attributed)
    opened, search = Run.open(made), {"alpha": 0.05, "ranked": [
        {"site": encoder.site, "index": 5, "p": 0.01}, {"site": encoder.site, "index": 0, "p": 0.04},
        {"site": encoder.site, "index": 6, "p": 0.2}, {"site": encoder.site, "index": encoder.width, "p": 0.01}]}  # fmt: skip
    write_json(made / "searched" / "shortcuts.json", search)
    content = read_json(made / "run.json")
    for split, found in (("validation", {0, 5}), ("test", set()), (None, set())):
        content["stages"]["shortcuts"] = {"result": "searched", "split": split, "environment": "laterality",
                                          "encoders": [encoder.weights_hash]}  # fmt: skip
        write_json(made / "run.json", content)
        findings = report_findings(opened, encoder, sae=attributed, cases_split="test")
        assert set(findings.suspected) == found
        assert (0 in findings.explained) == (0 not in found)  # what serves a shortcut explains nothing
        assert ("knew the labels" in findings.sentence) == (not found)
    neurons = report_findings(opened, Neurons(encoder.site, encoder.d_in), cases_split="test")
    assert (neurons.explained, neurons.suspected) == ({}, {})
    assert "no share of the answer is explained" in neurons.sentence


def test_decisions_are_turned_with_real_images_beside_them(made, capsys):
    capsys.readouterr()
    settings = ("--target", 1, "--site", "stages.2", "--split", "test", "--cases", 3, "--most-images", 40)
    assert run("counterfactuals", made, *settings, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert len(said["cases"]) == 3
    for case in said["cases"]:
        assert case["turned"] == ((case["before"] > 0) != (case["after"] > 0))
        assert case["image"] not in case["neighbours"]
    page = Path(said["files"]["counterfactuals.html"]).read_text()
    assert page.count("<img") == 3 * 4
    assert "minimal, not proved smallest" in page


def test_effects_are_told_by_subgroup(made, capsys):
    capsys.readouterr()
    settings = ("--by", "laterality", "--metric", 1, "--site", "stages.2", "--nodes", 4, "--most-images", 60)
    assert run("subgroups", made, *settings, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert {e["subgroup"] for e in said["effects"]} == {"left", "right"}
    assert len(said["effects"]) == 8
    assert Path(said["files"]["subgroups.html"]).stat().st_size > 0


def test_chance_that_one_image_cannot_tell_is_said_so(made):
    opened = open_run(Run.open(made), "stages.2")
    found = diff_run(opened, opened, split=None, most_images=1, same=0.9, turned=0.5)
    said = " ".join(difference_sentences(found, True))
    assert "nan" not in said
    assert "by chance could not be told: that takes two images" in said


def test_a_model_does_not_differ_from_itself(made, capsys, tmp_path):
    capsys.readouterr()
    settings = ("--site", "stages.2", "--most-images", 40, "--out", tmp_path)
    assert run("diff-models", made, made, *settings, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["matched"] + said["silent"][0] == 24
    assert said["lost"] == said["new"] == said["rotated"] == []
    assert (tmp_path / "diff-models.html").stat().st_size > 0


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            ("shortcuts", "--environment", "scaner", "--target", "1", "--site", "stages.2"),
            "is no attribute of the images",
        ),
        (("shortcuts", "--environment", "laterality", "--target", "1"), "has no autoencoders"),
        (("shortcuts", "--environment", "laterality", "--target", "1", "--method", "guess"), "--method is 'guess'"),
        (("edit", "--shortcut", "camera_tag", "--target", "1", "--site", "stages.2"), "no image is labelled"),
        (("edit", "--shortcut", "camera_tag", "--target", "1", "--method", "guess"), "--method is 'guess'"),
        (("edit", "--shortcut", "camera_tag", "--target", "1", "--features", "a"), "--features is 'a'"),
        (
            ("edit", "--shortcut", "camera_tag", "--target", "1", "--site", "stages.2", "--random", "-1"),
            "--random is -1: give 0 or more",
        ),
        (("circuit", "--metric", "1", "--random-circuits", "-1"), "--random-circuits is -1: give 0 or more"),
        (("circuit", "--metric", "1", "--most-images", "0"), "--most-images is 0: look at 1 image at least"),
        (("circuit", "--metric", "1", "--split", "tset"), "no image is of the split 'tset': the run's splits are"),
        (("steer", "--features", "a", "--target", "1"), "--features is 'a'"),
        (("steer", "--features", "", "--target", "1", "--site", "stages.2"), "name at least one feature"),
        (("steer", "--features", "99", "--target", "1", "--site", "stages.2"), "there is no feature 99"),
        (
            ("steer", "--features", "1", "--target", "1", "--site", "stages.2", "--split", "tset"),
            "the run's splits are",
        ),
        (("steer", "--features", "1", "--target", "1", "--site", "stages.2", "--sae", "a"), "give one of them"),
        (
            ("defer", "--target", "1", "--split", "train", "--site", "stages.2"),
            "what is usual comes from other patients",
        ),
        (
            ("defer", "--target", "1", "--label", "referable", "--features", "99", "--site", "stages.2"),
            "there is no feature 99",
        ),
        (
            ("steer", "--features", "1", "--target", "1", "--site", "stages.2", "--doses", "1,nan"),
            "--doses holds nan: give finite numbers",
        ),
        (("steer", "--features", "1", "--target", "1", "--site", "stages.2", "--random", "-3"), "--random is -3"),
        (
            ("steer", "--features", "1", "--target", "1", "--site", "stages.2", "--most-images", "0"),
            "--most-images is 0: look at 1 image at least",
        ),
        (("counterfactuals", "--target", "1", "--site", "stages.2", "--cases", "0"), "--cases is 0"),
        (
            ("counterfactuals", "--target", "1", "--site", "stages.2", "--cases", "80", "--most-images", "1"),
            "no reference image is left beside the cases",
        ),
        (("subgroups", "--by", "cup_to_disc_ratio", "--metric", "1", "--site", "stages.2"), "it must make 2 to 8"),
        (("subgroups", "--by", "laterality", "--metric", "1", "--method", "guess"), "--method is 'guess'"),
    ],
)
def test_what_cannot_be_meant_is_said_in_one_line(made, capsys, argv, message):
    assert run(argv[0], made, *argv[1:]) == 2
    assert message in capsys.readouterr().err
