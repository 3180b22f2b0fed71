"""The check of frozen-random controls: what it compares was planned, and what training does not win is said in words."""

import pytest

from evidence.sae_controls import PLAN, _compared, render


def test_a_metric_is_won_only_if_the_whole_interval_lies_on_the_planned_side():
    rows = {
        "trained": [{"a": 0.9, "b": 0.1}, {"a": 0.8, "b": 0.1}],
        "frozen": [{"a": 0.2, "b": 0.1}, {"a": 0.1, "b": 0.3}],
    }
    won, lost = _compared("a", "higher", rows), _compared("b", "lower", rows)
    assert won["difference"] == pytest.approx([0.7, 0.7])
    assert won["beats"]
    assert not _compared("a", "lower", rows)["beats"]
    assert not lost["beats"]
    assert lost["difference"] == pytest.approx([-0.1 - 12.706 * 0.1, -0.1 + 12.706 * 0.1], abs=1e-3)
    case = {"width": 8, "k": 2, "train_images": 4, "test_images": 2, "rows": [won, lost], "left_out": ["label purity"],
            "patients": {"gain": 0.5, "interval": {"text": "not estimable (n = 1)"}}}  # fmt: skip
    page = render({"plan": [list(row) for row in PLAN], "seeds": 2, "cases": {"model": case}})
    assert "| b | lower | 0.100 | 0.200 |" in page
    assert "Training did not beat the frozen-random autoencoder in: b." in page
    assert "Not measured here, for want of labels, patients or cells: label purity." in page
    assert "not estimable (n = 1)" in page


def test_every_planned_metric_has_a_direction():
    assert {better for _, better, _ in PLAN} == {"higher", "lower"}
    assert len({name for name, _, _ in PLAN}) == len(PLAN)
