"""Planted attributes of the reference models: the page says what the figures hold."""

import json

import pytest

from evidence import reference_probes


def row(**changed):
    return {
        "model": "cnn", "attribute": "lesion_area_mm2", "unit": "mm²", "site": "stages.2", "summed": True, "metric": "R²",
        "score": 0.83, "interval": [0.8, 0.86], "mae": 0.25, "mae_of_mean": 0.74, "verdict": "met", "goal": 0.8,
        "controls": {"pixel baseline": [0.4, True], "untrained network": [0.1, True]},
    } | changed  # fmt: skip


def spaced(how, within):
    return {
        "model": "cnn",
        "spacing": 1.4,
        "how": how,
        "r2": 0.8,
        "mae": 0.3,
        "bias": 0.1,
        "more": 0.05,
        "within": within,
    }


def test_a_goal_that_one_model_misses_is_not_met():
    figures = {"patients": [400, 500], "rows": [row(), row(model="vit")], "spacing": [spaced("resampled", True)]}
    page = reference_probes.render(figures)
    assert page.count("**met**") == 2
    assert "| cnn | lesion_area_mm2 | stages.2, sum | R² 0.830 | 0.800 to 0.860 | 0.25 mm² |" in page
    figures["rows"][1]["verdict"] = "not met"
    figures["spacing"].append(spaced("as they are", False))  # what is not resampled may fail: the table shows it
    assert reference_probes.render(figures).count("**not met**") == 1
    figures["spacing"].append(spaced("resampled", False))
    assert reference_probes.render(figures).count("**not met**") == 2


@pytest.mark.slow
def test_a_small_run_of_the_planted_attributes_renders_as_a_page():
    page = reference_probes.render(json.loads(json.dumps(reference_probes.run(True))))
    assert "**met**" in page or "**not met**" in page
    assert page.count("|---|") > 1
