"""Risk and coverage by hand."""

from __future__ import annotations

import numpy as np
import pytest

from circuits.acting.deferring import CONFIDENCE, defer, excess_area, risk_coverage
from mechinterp.errors import ShapeError


def test_risk_rises_as_doubtful_cases_are_kept():
    coverage, risk = risk_coverage(np.array([0.0, 3, 1, 2]), np.array([False, True, False, True]))
    np.testing.assert_allclose(coverage, [0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(risk, [0, 0, 1 / 3, 0.5])


def test_cases_of_equal_doubt_share_their_risk():
    np.testing.assert_allclose(risk_coverage(np.zeros(4), np.array([True, False, False, True]))[1], 0.5)


def test_a_perfect_order_has_no_excess_and_the_reverse_has_most():
    errors = np.array([True, False, False, True, False])
    assert excess_area(errors.astype(float), errors) == 0.0
    assert excess_area(-errors.astype(float), errors) > excess_area(np.zeros(5), errors) > 0


def test_a_score_that_knows_the_errors_beats_a_confident_model():
    random = np.random.default_rng(0)
    labels = random.random(200) < 0.5
    tagged = random.random(200) < 0.3
    # sure of itself everywhere, and wrong where tagged
    log_odds = np.where(labels ^ tagged, 1, -1) * random.uniform(1, 5, 200)
    confidence, by_tag = defer({"tag": tagged.astype(float)}, log_odds, labels, n_boot=200)
    assert confidence.name == CONFIDENCE
    assert confidence.gain == 0.0
    assert by_tag.excess == pytest.approx(0)
    assert by_tag.interval.low > 0
    assert by_tag.risk_at(0.5) == 0.0
    assert by_tag.risk_at(1.0) == pytest.approx(tagged.mean())
    assert by_tag.to_json()["risk"][-1] == pytest.approx(tagged.mean())


def test_a_score_of_another_length_is_refused():
    with pytest.raises(ShapeError, match="'tag' has shape"):
        defer({"tag": np.zeros(3)}, np.zeros(4), np.zeros(4, dtype=bool))
