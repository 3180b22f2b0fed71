"""Figures say what they show, with units, and draw foreign text as text."""

import numpy as np
import plotly.graph_objects as go
import pytest

from mechinterp.attributes.table import Attribute, AttributeTable
from mechinterp.errors import ShapeError
from probes import (
    attribute_matrix_figure,
    feature_attribute_figure,
    fit_probe,
    match_attributes,
    probe_figure,
)


@pytest.fixture
def matrix():
    rng = np.random.default_rng(0)
    area = rng.uniform(0, 90, 100)
    features = rng.normal(size=(100, 60))
    features[:, 7] += area
    columns = [(Attribute("lesion_area", "mm²"), area), (Attribute("<b>depth", "mm"), rng.normal(size=100))]
    return match_attributes(
        features, AttributeTable.from_columns(columns), range(50), range(50, 100), n_permutations=99
    )


def test_the_heat_map_shows_held_out_correlations_ordered_by_discovery_and_marks_what_is_confirmed(matrix):
    figure = attribute_matrix_figure(matrix, n_features=10)
    heat, dots = figure.data
    assert heat.y[0] == "feature 7"
    assert heat.z.shape == (10, 2)
    np.testing.assert_array_equal(heat.z[0], matrix.rho_confirmation[7])
    assert list(heat.x) == ["lesion area [mm²]", "&lt;b&gt;depth [mm]"]
    assert (list(dots.x), list(dots.y)) == (["lesion area [mm²]"], ["feature 7"])
    assert "corrected p 0.01" in heat.text[0][0]
    assert "not the pair chosen" in heat.text[0][1]
    assert figure.layout.title.text == matrix.text


def test_a_feature_is_drawn_against_its_attribute_in_its_unit():
    figure = feature_attribute_figure(
        np.arange(4.0), np.arange(4.0), Attribute("slice_position", "mm"), name="feature 3", discovery=np.array([0, 1]),
        ids=("a", "<b>", "c", "d"),
    )  # fmt: skip
    assert figure.layout.xaxis.title.text == "slice position [mm]"
    assert [t.name for t in figure.data] == ["discovery", "held out"]
    assert list(figure.data[0].text) == ["a", "&lt;b&gt;"]
    alone = feature_attribute_figure(np.arange(4.0), np.arange(4.0), Attribute("ratio", "1"))
    assert [t.name for t in alone.data] == ["images"]
    with pytest.raises(ShapeError, match=r"the feature has shape \(4,\), the attribute \(3,\)"):
        feature_attribute_figure(np.arange(4.0), np.arange(3.0), Attribute("ratio", "1"))


def test_a_probe_is_drawn_as_predicted_against_true_in_the_unit():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 5))
    figure = probe_figure(fit_probe(x, x[:, 0] * 10, name="lesion_area", unit="mm²", n_shuffles=0, n_boot=100))
    assert isinstance(figure, go.Figure)
    assert figure.layout.xaxis.title.text == "true lesion area [mm²]"
    assert figure.layout.title.text.startswith("lesion_area: R² ")
    binary = probe_figure(fit_probe(x, (x[:, 0] > 0).astype(float), name="tumour", n_shuffles=0, n_boot=100))
    assert [t.name for t in binary.data] == ["tumour = 0", "tumour = 1"]
    assert binary.layout.yaxis.title.text == "predicted log-odds, out of fold"
