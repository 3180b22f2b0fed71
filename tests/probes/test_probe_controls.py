"""Calibration, control tasks and description length: known by hand, and failing where they must."""

import numpy as np
import pytest

from probes import fit_probe, make_folds
from probes.calibration import calibration_of
from probes.control_task import activation_types, control_attribute, read_control_tasks
from probes.description_length import description_length
from probes.scores import Reading, one_hot


def reading(kind, truth, predicted, **more):
    truth, predicted = np.asarray(truth, float)[:, None], np.asarray(predicted, float)[:, None]
    return Reading(kind, truth, predicted, np.zeros_like(truth), **more)


def test_a_prediction_of_half_the_spread_has_slope_two():
    truth = np.arange(20.0)
    found = calibration_of(reading("continuous", truth, truth / 2 + 3))
    assert found.slope == pytest.approx(2)
    assert found.intercept == pytest.approx(-6)
    assert found.error is None
    assert sum(found.count) == 20
    assert "slope 2.00, intercept -6" in found.text
    assert calibration_of(reading("continuous", truth, np.ones(20))).slope is None


def test_log_odds_that_are_right_have_slope_one_and_doubled_ones_a_half():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1.5, size=20_000)
    truth = rng.random(20_000) < 1 / (1 + np.exp(-logits))
    right, doubled = (calibration_of(reading("binary", truth, k * logits)) for k in (1, 2))
    assert right.slope == pytest.approx(1, abs=0.05)
    assert right.intercept == pytest.approx(0, abs=0.05)
    assert right.error < 0.02
    assert doubled.slope == pytest.approx(0.5, abs=0.03)
    assert doubled.error > 0.05
    assert calibration_of(reading("binary", [0, 0, 1, 1], [-40, -30, 30, 40])).slope is None


def test_the_calibration_error_of_classes_is_the_confidence_minus_the_share_that_is_right():
    # always 0.8 sure of class 0, right in half of the images
    p = np.tile([0.8, 0.1, 0.1], (10, 1))
    codes = np.array([0, 1] * 5)
    found = calibration_of(
        Reading("categorical", one_hot(codes, 3), np.log(p), np.zeros((10, 3)), log_p=np.log(p), classes=3)
    )
    assert found.error == pytest.approx(0.3)
    assert found.slope is None


def test_images_of_one_type_share_a_control_label_drawn_from_the_attribute():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(100, 5)), rng.normal(size=100)
    types = activation_types(x, seed=3)
    assert len(np.unique(types)) <= 10
    control = control_attribute(y, types, seed=1)
    assert set(control) <= set(y)
    assert all(len(set(control[types == t])) == 1 for t in np.unique(types))
    assert len(set(control_attribute(np.r_[np.zeros(99), 1.0], types))) == 2


def test_activations_that_are_types_are_memorised_so_their_probe_is_not_selective():
    rng = np.random.default_rng(0)
    types = rng.integers(0, 12, size=240)
    x = np.eye(12)[types]
    y = rng.normal(size=12)[types] + 0.3 * rng.normal(size=240)
    tasks = read_control_tasks(x, y, make_folds(240, 5), "continuous", types=types)
    assert np.mean([t.scores()[0] for t in tasks]) > 0.95
    result = fit_probe(x, y, types=types, n_shuffles=0, n_boot=200)
    assert result.score > 0.8
    assert result.selectivity < 0
    control = next(c for c in result.controls if c.name == "control task")
    assert not control.passed
    assert "not met" in result.claim().verdict


def test_the_code_of_a_readable_attribute_is_shorter_and_that_of_noise_is_not():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 5))
    groups = np.repeat(np.arange(200), 2)
    readable = description_length(x, x[:, 0] + 0.1 * rng.normal(size=400), "continuous", groups)
    # knowing the value to a tenth of its spread saves log2(10) bits once it is learned
    assert readable.block_bits_without[-1] - readable.block_bits[-1] == pytest.approx(np.log2(10), abs=0.35)
    assert readable.control.passed
    assert sum(readable.coded) + 2 * readable.trained_on[0] == 400
    noise = description_length(x, rng.normal(size=400), "continuous", groups)
    assert noise.saved < 0.05
    assert not description_length(x[:, :1], rng.integers(0, 2, 400).astype(float), "binary", groups).control.passed


def test_a_fair_coin_costs_one_bit_and_a_sure_one_next_to_nothing():
    rng = np.random.default_rng(0)
    coin = rng.integers(0, 2, 600).astype(float)
    found = description_length(np.c_[10 * coin, rng.normal(size=600)], coin, "binary")
    assert found.bits_without == pytest.approx(1, abs=0.05)
    assert found.bits < 0.1
    assert description_length(rng.normal(size=(12, 2)), coin[:12], "binary") is None


def test_a_probe_stands_beside_all_its_controls_and_fails_them_in_words():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(80, 4)), rng.normal(size=80)
    result = fit_probe(x, y, n_shuffles=19, n_boot=100)
    claim = result.claim()
    assert claim.verdict == "not met"
    assert {c.name for c in result.controls} == {"shuffled attribute", "control task", "description length"}
    assert any("description length" in reason and "bits an image" in reason for reason in claim.reasons)
    assert result.to_json()["description"]["bits"] == result.description.bits
