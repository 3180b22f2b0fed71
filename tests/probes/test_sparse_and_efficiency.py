"""A few features read what they hold, chosen on training patients only; a learning curve rises with its patients."""

import numpy as np
import pytest
import torch

from mechinterp.attributes.table import Attribute, AttributeTable
from mechinterp.errors import AttributeTableError, ConfigError, ShapeError
from mechinterp.feature_encoder import Neurons
from probes import (
    calibration_figure,
    fit_probe,
    fit_sparse_probe,
    learning_curve,
    learning_curve_figure,
    sparse_probe_figure,
    sparse_probe_store,
)


def features(n=120, width=300, seed=0):
    rng = np.random.default_rng(seed)
    area = rng.uniform(0, 5, n)
    x = rng.normal(size=(n, width))
    x[:, 7] += 2 * area
    x[:, 11] += area
    return x, area


def test_one_feature_is_enough_where_one_holds_it_and_noise_stays_at_zero():
    x, area = features()
    found = fit_sparse_probe(x, area, sizes=(1, 2, 5), name="area", unit="mm²", encoder="sae", n_boot=100)
    assert found.sizes == (1, 2, 5)
    assert found.scores[0] > 0.8
    assert found.always(1) == (7,)
    assert found.always(2) == (7, 11)
    assert found.intervals[0].low < found.scores[0] < found.intervals[0].high
    assert "area from the best k sae, R² 1: 0.9" in found.text
    assert found.to_json()["chosen"][0][0] == [7]
    # three hundred features of noise: chosen on all images the best would seem to read something
    noise = fit_sparse_probe(np.random.default_rng(1).normal(size=x.shape), area, sizes=(1, 5), n_boot=100)
    assert max(noise.scores) < 0.1


@pytest.mark.parametrize(("kind", "levels"), [("binary", 2), ("categorical", 3), ("ordinal", 3)])
def test_classes_and_levels_too(kind, levels):
    rng = np.random.default_rng(0)
    y = rng.integers(0, levels, 90).astype(float)
    x = rng.normal(size=(90, 40))
    for level in range(levels):
        x[:, level] += 4 * (y == level)
    found = fit_sparse_probe(x, y, sizes=(1, levels), kind=kind, n_boot=100)
    assert found.scores[-1] > 0.85
    assert found.scores[-1] > found.scores[0] - 0.05


class Store:
    def __init__(self, x):
        import pandas as pd

        self.x = torch.from_numpy(x).float()[:, None]
        self.images = pd.DataFrame({"group": [f"p{i}" for i in range(len(x))]}, dtype=object)

    def read(self, site, images=None):
        return self.x if images is None else self.x[np.asarray(images)]


def test_a_store_is_probed_by_any_encoder():
    x, area = features(80, 30)
    table = AttributeTable.from_columns([(Attribute("area", "mm²"), area)])
    found = sparse_probe_store(Neurons("s", 30), Store(x), table, "area", sizes=(1,), n_boot=100)
    assert (found.encoder, found.unit) == ("neurons", "mm²")
    assert found.always(1) == (7,)
    figure = sparse_probe_figure([found, found])
    assert len(figure.data) == 2
    with pytest.raises(ConfigError, match="no sparse probe to draw"):
        sparse_probe_figure([])


def test_sparse_probes_that_cannot_be_fitted_are_named():
    x, area = features(30)
    with pytest.raises(ConfigError, match="sizes holds 0"):
        fit_sparse_probe(x, area, sizes=(0, 1))
    with pytest.raises(ShapeError, match="for 29 values of 'area'"):
        fit_sparse_probe(x, area[1:], name="area")
    with pytest.raises(AttributeTableError, match="'area' has 30 values, or one only"):
        fit_sparse_probe(x, np.ones(30), name="area")


def test_more_patients_read_better_and_the_curve_says_how_many_are_enough():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(100), 2)
    x = rng.normal(size=(200, 30))
    y = x[:, :5].sum(1) + 0.5 * rng.normal(size=200)
    curve = learning_curve(x, y, groups=groups, shares=(0.1, 0.4, 1.0), repeats=2)
    assert curve.patients == (8, 32, 80)
    assert curve.score[0] < curve.score[1] < curve.score[2]
    assert curve.score[2] == pytest.approx(fit_probe(x, y, groups=groups, n_shuffles=0, n_boot=100).score, abs=0.03)
    assert all(low <= s <= high for low, s, high in zip(curve.low, curve.score, curve.high, strict=True))
    assert curve.patients_for(0.99) == 80
    classes = learning_curve(x, (y > 0).astype(float), groups=groups, kind="binary", shares=(0.2, 1.0), repeats=2)
    assert classes.metric == "AUROC"
    figure = learning_curve_figure(curve, "lesion <area>")
    assert "&lt;area&gt;" in figure.layout.title.text
    with pytest.raises(ConfigError, match=r"shares is \(0, 1\)"):
        learning_curve(x, y, shares=(0, 1))
    rare = (np.arange(200) < 4).astype(float)
    with pytest.raises(AttributeTableError, match="one class only in every draw"):
        learning_curve(x, rare, groups=groups, kind="binary", shares=(0.01,), repeats=1)


def test_calibration_is_drawn_in_the_unit_or_as_shares():
    x, area = features(60, 12)
    fast = {"n_shuffles": 0, "n_boot": 100, "n_control_tasks": 0, "code_length": False}
    figure = calibration_figure(fit_probe(x, area, name="area", unit="mm²", site="blocks.1", **fast))
    assert figure.layout.xaxis.title.text == "predicted area [mm²]"
    assert "calibration slope" in figure.layout.title.text
    figure = calibration_figure(fit_probe(x, (area > 2).astype(float), name="large", **fast))
    assert figure.layout.yaxis.title.text == "share that is true"
    assert "expected calibration error" in figure.layout.title.text
