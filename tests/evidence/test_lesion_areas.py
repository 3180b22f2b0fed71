"""The lesions' area off all stages: the page says what the figures hold."""

import json

import pytest

from evidence import lesion_areas


def row(**changed):
    return {
        "model": "cnn", "reader": lesion_areas.ALL, "sites": ["stages.2"], "score": 0.83, "interval": [0.8, 0.86],
        "mae": 0.25, "mae_of_mean": 0.74, "p": 0.001, "verdict": "met", "calibration_slope": 1.0, "patients": 1000,
        "controls": {"pixel baseline": [0.4, True], "untrained network": [0.3, True]},
    } | changed  # fmt: skip


def test_a_goal_that_one_model_misses_is_not_met():
    figures = {
        "rows": [row(), row(model="vit")], "patients": [2400, 1000], "goal": 0.8,
        "compared": [{"model": "cnn", "reader": lesion_areas.ALONE, "r2": 0.8, "chosen": False}],
    }  # fmt: skip
    page = lesion_areas.render(figures)
    assert "**met**" in page
    assert (
        "| cnn | hidden units, all sites | 0.830 | 0.800 to 0.860 | 0.250 | 0.740 | 0.40 | 0.30 | 0.8 | met |" in page
    )
    figures["rows"][1]["verdict"] = "not met"
    assert "**not met**" in lesion_areas.render(figures)


@pytest.mark.slow
def test_a_small_run_of_areas_renders_as_a_page():
    page = lesion_areas.render(json.loads(json.dumps(lesion_areas.run(True))))
    assert "**met**" in page or "**not met**" in page
    assert "|" + "---|" * 10 in page.splitlines()
