"""What is measured of the model's task, against scikit-learn and by hand."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from experiments.report import check_classifier, distance_check
from experiments.report.task_checks import expected_calibration_error, mean_auroc
from mechinterp.errors import ShapeError


def test_auroc_with_ties_equals_scikit_learn():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 200)
    p = rng.dirichlet(np.ones(3), 200).round(1) + 0.3 * np.eye(3)[truth]
    theirs = np.mean([roc_auc_score(truth == c, p[:, c]) for c in range(3)])
    assert mean_auroc(p, truth) == pytest.approx(theirs)
    two = np.stack([1 - p[:, 0], p[:, 0]], 1)
    assert mean_auroc(two, (truth == 0).astype(int)) == pytest.approx(roc_auc_score(truth == 0, p[:, 0]))


def test_calibration_error_by_hand():
    p = np.array([[0.2, 0.8]] * 10)
    assert expected_calibration_error(p, np.array([1] * 8 + [0] * 2)) == pytest.approx(0)
    assert expected_calibration_error(p, np.array([1] * 5 + [0] * 5)) == pytest.approx(0.3)


@pytest.mark.parametrize(("signal", "state"), [(2.0, "does its task"), (0.0, "at chance")])
def test_a_good_model_does_its_task_and_shuffled_labels_are_at_chance(signal, state):
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 2, 120)
    p = 1 / (1 + np.exp(-(signal * (2 * truth - 1) + rng.normal(size=120))))
    check = check_classifier(np.stack([1 - p, p], 1), truth, np.repeat(np.arange(60), 2), task="t", n_boot=200)
    assert check.state == state
    assert (check.n_images, check.n_groups) == (120, 60)
    assert check.brier_reference == pytest.approx(0.25, abs=0.01)


def test_the_brier_score_is_scikit_learns():
    from sklearn.metrics import brier_score_loss

    rng = np.random.default_rng(4)
    for n_classes in (2, 3):
        p, truth = rng.dirichlet(np.ones(n_classes), 60), np.arange(60) % n_classes
        check = check_classifier(p, truth, list(range(60)), task="t", n_boot=100)
        told = p[:, 1] if n_classes == 2 else p
        assert check.brier == pytest.approx(brier_score_loss(truth, told))
        frequency = np.full_like(p, 1 / n_classes)
        assert check.brier_reference == pytest.approx(
            brier_score_loss(truth, frequency[:, 1] if n_classes == 2 else frequency)
        )


def test_one_class_or_one_subject_cannot_be_checked():
    p = np.full((12, 2), 0.5)
    one = check_classifier(p, np.zeros(12, int), list(range(12)), task="t")
    assert (one.value, one.state) == (None, "not checked")
    assert "one class" in one.reasons[0]
    truth = np.arange(12) % 2
    slices = check_classifier(np.eye(2)[truth], truth, list(range(12)), task="t", units_are_patients=False)
    assert (slices.value, slices.state, slices.n_groups) == (1.0, "not checked", 1)
    assert "n = 1" in slices.reasons[0]


def test_images_farther_out_are_counted():
    rng = np.random.default_rng(2)
    known, groups = rng.normal(size=(400, 8)), np.repeat(np.arange(200), 2)
    same = distance_check(known, groups, rng.normal(size=(400, 8)), what="a site")
    far = distance_check(known, groups, 5 * rng.normal(size=(50, 8)), what="a site")
    assert same.share_outside == pytest.approx(0.05, abs=0.04)
    assert (same.inside, far.inside) == (True, False)


def test_what_does_not_belong_together_is_refused():
    with pytest.raises(ShapeError, match="3 truths"):
        check_classifier(np.ones((4, 2)), np.zeros(3, int), [1, 2, 3], task="t")
    with pytest.raises(ShapeError, match="at least 20 patients"):
        distance_check(np.ones((4, 2)), [1, 2, 3, 4], np.ones((4, 2)), what="a site")
