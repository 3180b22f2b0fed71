"""Labels that do not exclude one another, against scikit-learn and by hand."""

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, roc_auc_score

from experiments.report import check_classifier
from experiments.report.label_checks import check_labels
from mechinterp.errors import ShapeError


@pytest.fixture
def findings():
    """Three findings of 120 images, any number of them at once; told with noise."""
    rng = np.random.default_rng(0)
    present = rng.random((120, 3)) < (0.1, 0.4, 0.7)
    return 1 / (1 + np.exp(-(3.0 * (present - 0.5) + rng.normal(size=(120, 3))))), present


def test_all_three_measures_are_means_over_labels_of_scikit_learns(findings):
    p, present = findings
    check = check_labels(p, present, list(range(120)), task="t", n_boot=200)
    assert check.value == pytest.approx(np.mean([roc_auc_score(present[:, c], p[:, c]) for c in range(3)]))
    assert check.value == pytest.approx(roc_auc_score(present, p, average="macro"))
    assert check.brier == pytest.approx(np.mean([brier_score_loss(present[:, c], p[:, c]) for c in range(3)]))
    rates = present.mean(0)
    assert check.brier_reference == pytest.approx(np.mean(rates * (1 - rates)))
    assert check.state == "does its task"


def test_calibration_is_asked_of_each_label_by_hand():
    p = np.array([[0.8, 0.1]] * 10)
    present = np.stack([np.arange(10) < 8, np.arange(10) < 1], 1)
    check = check_labels(p, present, list(range(10)), task="t", n_boot=100)
    assert check.calibration_error == pytest.approx(0)  # said 0.8, seen in 8 of 10; said 0.1, seen in 1 of 10
    assert check.brier == pytest.approx((0.16 + 0.09) / 2)
    worse = check_labels(p, present[::, ::-1], list(range(10)), task="t", n_boot=100)
    assert worse.calibration_error == pytest.approx(0.7)


def test_two_labels_are_two_questions_and_not_one_class_against_another(findings):
    """With two columns :func:`check_classifier` looks at the second alone, since of two classes the first says the same."""
    present = findings[1][:, :2]
    told_apart = np.stack([present[:, 0], np.zeros(120)], 1)  # the first label right, the second knows nothing
    both = check_labels(told_apart, present, list(range(120)), task="t", n_boot=100)
    assert both.value == pytest.approx((1.0 + 0.5) / 2)
    one = check_classifier(told_apart, present[:, 1].astype(int), list(range(120)), task="t", n_boot=100)
    assert one.value == pytest.approx(0.5)


def test_a_label_that_is_never_seen_is_left_out_and_none_at_all_cannot_be_checked(findings):
    p, present = findings
    missing = present.copy()
    missing[:, 1] = False
    check = check_labels(p, missing, list(range(120)), task="t", n_boot=100)
    assert check.value == pytest.approx(np.mean([roc_auc_score(present[:, c], p[:, c]) for c in (0, 2)]))
    nothing = check_labels(p, np.ones_like(present), list(range(120)), task="t", n_boot=100)
    assert (nothing.value, nothing.state) == (None, "not checked")
    assert "every label is on all images or on none" in nothing.reasons[0]


def test_one_sigmoid_output_and_the_slices_of_one_subject():
    truth = np.arange(12)[:, None] % 2 == 0
    check = check_labels(truth.astype(float), truth, list(range(12)), task="t", units_are_patients=False)
    assert (check.value, check.state, check.n_groups) == (1.0, "not checked", 1)


def test_what_does_not_belong_together_is_refused():
    with pytest.raises(ShapeError, match=r"truths of \(4, 3\) and 4 groups"):
        check_labels(np.ones((4, 2)), np.ones((4, 3), bool), [1, 2, 3, 4], task="t")
