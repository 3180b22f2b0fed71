"""Which images the question is about."""

from __future__ import annotations

import numpy as np
import pytest

from experiments.analysis.predictions import ask
from mechinterp.errors import ConfigError

NAMES = ("none", "tumour", "other")


def probabilities(tumour):
    tumour = np.asarray(tumour, dtype=float)
    return np.stack([1 - tumour, tumour, np.zeros_like(tumour)], axis=1)


def test_two_runs_of_positive_slices_are_two_bands():
    p = probabilities([0.1, 0.95, 0.99, 0.95, 0.2, 0.1, 0.2, 0.95, 0.91, 0.99, 0.1])
    found = ask(p, NAMES, np.arange(11) * 2.0, target="tumour", reference="none")
    assert found.positive.tolist() == [1, 2, 3, 7, 8, 9]
    assert [b.images.tolist() for b in found.bands] == [[1, 2, 3], [7, 8, 9]]
    assert found.reference_images.tolist() == [0, 4, 5, 6, 10]
    assert "8 mm apart" in found.note


def test_positions_decide_not_the_order_of_images():
    order = np.array([5, 0, 3, 1, 4, 2, 9, 6, 8, 7])
    tumour = np.array([0.95, 0.95, 0.95, 0.1, 0.1, 0.1, 0.1, 0.95, 0.95, 0.95])[order]
    found = ask(probabilities(tumour), NAMES, order * 2.0, target="tumour", reference="none")
    assert sorted(order[found.bands[0].images].tolist()) == [0, 1, 2]
    assert sorted(order[found.bands[1].images].tolist()) == [7, 8, 9]


def test_touching_bands_are_said_to_touch():
    found = ask(probabilities([0.95] * 8 + [0.1]), NAMES, np.arange(9.0), target="tumour", reference="none")
    assert len(found.bands) == 2
    assert "they touch" in found.note


def test_too_few_positive_images_are_no_bands():
    found = ask(probabilities([0.95, 0.1, 0.1]), NAMES, np.arange(3.0), target="tumour", reference="none")
    assert found.bands == ()
    assert "only 1 positive" in found.note


def test_images_without_an_order_have_no_bands():
    found = ask(probabilities([0.95] * 10), NAMES, None, target="tumour", reference="none")
    assert found.bands == ()


def test_classes_default_to_the_most_answered():
    found = ask(probabilities([0.6, 0.7, 0.2]), NAMES, None)
    assert (found.target, found.reference) == ("tumour", "none")


def test_an_unknown_class_is_refused():
    with pytest.raises(ConfigError, match="no class 'x'"):
        ask(probabilities([0.6]), NAMES, None, target="x")


def test_a_single_output_is_asked_about_against_its_absence():
    p = np.array([[0.95], [0.2], [0.6], [0.1]], np.float32)
    question = ask(p, ["tumour"], None)
    assert (question.target, question.reference) == ("tumour", "not tumour")
    assert question.positive.tolist() == [0]
    assert question.reference_images.tolist() == [1, 3]
    with pytest.raises(ConfigError, match="no class 'mass': it has tumour"):
        ask(p, ["tumour"], None, target="mass")


def test_one_of_several_findings_is_asked_about_against_its_absence():
    names = ["mass", "edema", "nodule"]
    p = np.array([[0.1, 0.95, 0.2], [0.6, 0.55, 0.1], [0.7, 0.2, 0.1], [0.3, 0.7, 0.1]], np.float32)
    found = ask(p, names, None, several=True)
    assert (found.target, found.reference) == ("edema", "not edema")
    assert found.positive.tolist() == [0]
    assert found.reference_images.tolist() == [2]  # of the others one has no edema, whatever else is likeliest there
    assert ask(p, names, None, target="mass", several=True).reference_images.tolist() == [0, 3]
    given = ask(p, names, None, target="mass", reference="nodule", several=True)
    assert given.reference == "nodule"
    # of findings that are nowhere above a half the likeliest on average
    assert ask(p / 3, names, None, several=True).target == "edema"
    with pytest.raises(ConfigError, match="no class 'tumour'"):
        ask(p, names, None, target="tumour", several=True)
