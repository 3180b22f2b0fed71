"""The calibration curves on the attributes' page: the strongest survivor of each attribute, on held-out patients."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from experiments.analysis.attribute_page import known_well_enough, sentence_of, survivors_curves, write_attribute_page
from mechinterp.attributes.table import Attribute, AttributeTable
from mechinterp.feature_encoder import Neurons
from probes import match_attributes


class OneTokenStore:
    """Activations of one token an image."""

    def __init__(self, values, groups):
        self.values = torch.as_tensor(values, dtype=torch.float32)
        self.images = pd.DataFrame({"id": [str(i) for i in range(len(values))], "group": groups, "split": None})

    def read(self, site, images):
        return self.values[torch.as_tensor(images)][:, None]


def test_the_strongest_feature_of_each_attribute_is_drawn_in_its_unit(tmp_path):
    random = np.random.default_rng(0)
    area, camera = random.uniform(0, 4, 160), (random.random(160) < 0.5).astype(float)
    table = AttributeTable.from_columns(
        [(Attribute("area", "mm²"), area), (Attribute("tag", "1", kind="binary"), camera)]
    )
    features = np.column_stack([area + random.normal(size=160), 3 * area, camera, random.normal(size=160)])
    groups = [f"p{i // 2}" for i in range(160)]
    store, held_out = OneTokenStore(features, groups), np.arange(80, 160)
    matrix = match_attributes(features, table, np.arange(80), held_out, groups=groups, n_permutations=99)
    curves = survivors_curves(matrix, Neurons("site", 4), store, table, held_out, "mean")
    assert [c.attribute.name for c in curves] == ["area"]
    (curve,) = curves
    assert curve.feature == "feature 1, mean"
    assert abs(curve.slope.value - 3) < 1e-4
    assert len(curve.patients) == 40
    page = write_attribute_page(tmp_path / "page.html", "Attributes", ["a line"], matrix, curves).read_text()
    assert "Feature against area [mm²]" in page


def test_without_survivors_there_is_no_curve():
    random = np.random.default_rng(1)
    values, groups = random.normal(size=(80, 2)), [f"p{i}" for i in range(80)]
    table = AttributeTable.from_columns([(Attribute("area", "mm²"), random.normal(size=80))])
    held_out = np.arange(40, 80)
    matrix = match_attributes(values, table, np.arange(40), held_out, groups=groups, n_permutations=99)
    assert not matrix.survivors
    assert survivors_curves(matrix, Neurons("site", 2), OneTokenStore(values, groups), table, held_out, "mean") == ()


def test_what_few_patients_have_a_value_of_is_left_out_by_name():
    values = np.ones((60, 2))
    values[18:, 1] = np.nan  # 18 images of 9 patients
    table = AttributeTable.from_columns(zip((Attribute("area", "mm²"), Attribute("rare", "mm")), values.T, strict=True))
    sides = np.arange(30), np.arange(30, 60)
    groups = np.repeat(np.arange(30), 2)
    assert known_well_enough(table, None, (np.arange(18), np.arange(18)))[1] == ()
    kept, left_out = known_well_enough(table, groups, sides)
    assert kept.names == ("area",)
    assert left_out == ("rare",)
    assert known_well_enough(table, groups, (np.arange(10), np.arange(10)))[0] is table


@pytest.mark.parametrize(
    ("kind", "plural"), [("sae", "features"), ("pca", "features"), ("neurons", "neurons"), ("features", "features")]
)
def test_what_an_autoencoder_has_is_called_features(kind, plural):
    matrix = SimpleNamespace(
        kind=kind, text=f"0 of 1024 {kind} follow an attribute on held-out images (200 permutations)"
    )
    assert sentence_of(matrix) == f"0 of 1024 {plural} follow an attribute on held-out images (200 permutations)"
