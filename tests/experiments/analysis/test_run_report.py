"""A run's numbers become claims under the five elements; the words and verdicts change when the numbers do."""

import copy

import pytest

from experiments.analysis.claims import decomposition, drives, encodes, follows, weakest_turn
from experiments.analysis.run_report import exploration_report, task_check
from experiments.studies.brain_mri.report import brain_mri_report

WAY = {
    "kind": "sae", "ranked_by": "reference", "size": 10, "alive": 400, "chosen": [1, 2], "before_after": [],
    "curves": [
        {"ablation": "mean", "sizes": [1, 10, 100], "flipped": [0.1, 0.7, 1.0], "control_flipped": {"median": [0, 0.1, 0.2]}},
        {"ablation": "resample", "sizes": [1, 10, 100], "flipped": [0.0, 0.6, 1.0], "control_flipped": {"median": []}},
    ],
}  # fmt: skip


@pytest.fixture
def results():
    control = {"name": "shuffled attribute", "value": 0.01, "passed": True, "detail": ""}
    return {
        "title": "A run", "question": "What?", "answer": ["It answers."], "primary_attribute": "area",
        "model": {
            "spec": "py:a/net.py", "trained": True, "site": "stages.2", "class_names": ["yes", "no"], "licence": None,
            "weights_hash": "w", "notes": ["a note"],
        },
        "images": {
            "n": 40, "units_are_patients": True, "labels": ["yes", "no"] * 20, "groups": [f"p{i}" for i in range(40)],
            "probabilities": [[0.9, 0.1], [0.2, 0.8]] * 20, "licence": "CC0", "name": "scans",
            "position": list(range(40)),
        },
        "sae": {
            "metrics": {"explained_variance": 0.8}, "weights_hash": "s",
            "controls": [{"name": "frozen-random SAE", "metrics": {"explained_variance": 0.3}}],
        },
        "probes": [{
            "attribute": "area", "score": 0.7, "score_name": "R²", "unit": "mm²", "mae": 1.5, "interval": [0.6, 0.8],
            "interval_note": "", "p": 0.005,
            "controls": [control, {**control, "name": "pixel baseline"}],
        }],
        "matrix": {"tests": {
            "n_findings": 3, "n_tested": 90, "text": "3 of 90",
            "best": {"feature": 7, "attribute": "area", "p_corrected": 0.01, "rho_confirmation": 0.8},
            "controls": [
                {"name": n, "n_findings": 0, "passed": True, "detail": ""}
                for n in ("shuffled attributes", "neurons", "pca", "random")
            ],
        }},
        "target": {"class": "yes", "positive": list(range(12)), "threshold": 0.9, "bands": [{"name": "low", "images": [1, 2, 3]}]},
        "preparation": [{"name": "as it is", "n_positive": 6, "n_images": 20}, {"name": "flipped", "n_positive": 5, "n_images": 20}],
        "experiment": {
            "verdict": {"word": "drives", "reasons": ["both ways"]}, "verdicts": {"random": {"word": "no small set does"}},
            "config": {"share": 0.05}, "directions": [{**WAY, "name": "low → high"}, {**WAY, "name": "high → low"}],
        },
        "replication": {
            "present": True, "text": "3 of 9.", "n_positive": 3, "n_images": 9, "with_skull": {"n_positive": 2, "n_images": 9},
            "sets": [{"ablation": "mean", "chosen_on": "low", "flipped": 0.5}],
        },
        "provenance": {"versions": {}, "seed": 0, "store_hash": "h"},
    }  # fmt: skip


def test_an_attribute_that_nobody_named_is_not_said_to_have_been(results):
    assert "(the attribute named beforehand)" in encodes(results, "area").statement
    assert (
        "(none was named beforehand: the first of 1 probed)"
        in encodes(results | {"attribute_named": False}, "area").statement
    )


def test_a_stage_wise_run_is_checked_on_its_labels_and_says_that_nothing_was_planned(results):
    report = exploration_report(results)
    assert report.model_check.state == "does its task"
    assert report.verdicts["physical attribution"].word == "partly"
    assert "no plan was registered before the run" in report.verdicts["physical attribution"].reasons
    assert report.use_case.licences == {"model": "not stated", "data": "CC0"}
    assert report.strict() == 1


def test_a_model_that_knows_its_training_images_by_heart_is_at_chance_on_the_test_split(results):
    images = results["images"]
    images["splits"] = ["train"] * 20 + ["test"] * 20
    images["probabilities"][20:] = [[0.6, 0.4]] * 20
    check = exploration_report(results).model_check
    assert (check.state, check.value, check.n_images, check.n_groups) == ("at chance", 0.5, 20, 20)
    assert "on the test split" in check.task


def test_without_a_test_split_the_check_says_that_it_took_all_images(results):
    check = exploration_report(results).model_check
    assert check.n_images == 40
    assert "no split is called test" in check.task


def test_images_that_name_no_patient_are_not_one_patient_and_are_told(results):
    results["images"]["groups"][:4] = [None] * 4
    check = task_check(results)
    assert check.n_groups == 40
    assert check.interval_note == "4 of 40 images name no patient: each counts as one"
    results["images"]["groups"] = None
    assert task_check(results).n_groups == 40
    assert "40 of 40 images name no patient" in task_check(results).interval_note


def test_labels_that_the_model_does_not_know_leave_its_task_unchecked(results):
    results["images"]["labels"] = None
    assert exploration_report(results).model_check.state == "not checked"


def test_the_study_sorts_its_claims_and_says_what_it_does_not_address(results):
    results["probes"][0]["attribute"] = "brain_area"
    report = brain_mri_report(results)
    assert {name: len(e.claims) for name, e in zip(report.verdicts, report.elements, strict=True)} == {
        "localization": 0, "visual recognizability": 0, "physical attribution": 2, "model transparency": 2, "actionability": 0,
    }  # fmt: skip
    assert report.verdicts["actionability"].word == "not addressed"
    assert report.model_check.claims[0].value == 12
    assert all(evidence.limits for evidence in report.elements)


def test_an_attribute_that_was_not_probed_is_planned_and_not_run(results):
    reasons = brain_mri_report(results).verdicts["physical attribution"].reasons
    assert "planned and not run: a quantity named beforehand can be read off" in reasons


def test_an_untrained_model_is_not_interpreted(results):
    results["model"]["trained"] = False
    report = brain_mri_report(results)
    assert {report.verdicts[name].word for name in report.use_case.needs} == {"not met"}


def test_the_weaker_direction_and_replacement_decide_and_only_small_sets_count(results):
    assert weakest_turn(results["experiment"]) == 0.6
    assert drives(results).verdict == "met"
    worse = copy.deepcopy(results)
    worse["experiment"]["directions"][1]["curves"][0]["flipped"][1] = 0.2
    assert weakest_turn(worse["experiment"]) == 0.2
    assert drives(worse).verdict == "not met"


@pytest.mark.parametrize(
    ("word", "random", "verdict"),
    [
        ("no small set does", "no small set does", "not met"),
        ("drives", "drives", "not met"),
        ("not run", None, "inconclusive"),
    ],
)
def test_the_experiments_conditions_and_random_directions_are_controls(results, word, random, verdict):
    results["experiment"]["verdict"]["word"] = word
    results["experiment"]["verdicts"] = {"random": {"word": random}} if random else {}
    assert drives(results).verdict == verdict


def test_variance_of_images_that_were_trained_on_is_not_called_held_out(results):
    assert decomposition(results).verdict == "met"
    assert "80% of the held-out variance of stages.2" in decomposition(results).statement
    results["sae"]["held_out"] = False
    claim = decomposition(results)
    assert "80% of the variance of stages.2 on images that it was trained on" in claim.statement
    assert claim.verdict == "inconclusive"
    assert any("give the images a split `test`" in reason for reason in claim.reasons)


def test_features_that_follow_nothing_or_cannot_be_tested(results):
    assert follows(results).verdict == "met"
    results["matrix"]["tests"]["n_findings"] = 0
    assert follows(results).verdict == "not met"
    results["matrix"]["tests"]["best"]["p_corrected"] = None
    assert follows(results).verdict == "inconclusive"


def test_images_without_a_label_are_left_out_and_strange_labels_are_named(results):
    labels = results["images"]["labels"]
    labels[:6] = [None] * 6
    check = task_check(results)
    assert (check.state, check.n_images) == ("does its task", 34)
    assert "6 without a label left out" in check.task
    labels[7] = "perhaps"
    assert "labelled 'perhaps', which is no class of the model ('yes', 'no')" in task_check(results).reasons[0]


def test_labels_of_a_model_of_several_findings_are_asked_one_by_one(results):
    results["model"]["activation"] = "sigmoid"
    images = results["images"]
    images["labels"] = ["yes|no", "yes", "no", "No Finding"] * 10
    images["probabilities"] = [[0.9, 0.8], [0.7, 0.2], [0.1, 0.9], [0.2, 0.3]] * 10
    check = task_check(results)
    assert (check.value, check.n_images) == (1.0, 40)
    assert "'No Finding' counts as none of them" in check.task
    assert check.brier == pytest.approx((0.01 + 0.04 + 0.09 + 0.04 + 0.01 + 0.01 + 0.04 + 0.09) / 8)
    images["labels"] = ["No Finding"] * 40
    assert "labelled 'No Finding', which is no class" in task_check(results).reasons[0]


def test_the_task_of_findings_is_to_say_of_each_whether_it_is_there(results):
    spec = results["model"]["spec"]
    assert exploration_report(results).use_case.task == f"{spec} answers one of 2 classes for an image."
    results["model"]["activation"] = "sigmoid"
    assert exploration_report(results).use_case.task == f"{spec} says of each of 2 findings whether an image shows it."
