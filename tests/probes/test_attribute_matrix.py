"""The matrix finds planted pairs, hides none, and stands beside neurons, PCA and random directions."""

import json
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from mechinterp.attributes.table import Attribute, AttributeTable
from mechinterp.errors import AttributeTableError, ConfigError, LeakageError, ShapeError
from mechinterp.feature_encoder import Directions, Neurons
from mechinterp.statistics import spearman
from probes import (
    attribute_matrix,
    baseline_encoders,
    match_attributes,
    pooled_activations,
    pooled_features,
)
from probes.linear import probe_store
from probes.pair_measures import held_out_r2


@dataclass
class FakeStore:
    """What of an activation store the probes use, in memory."""

    acts: torch.Tensor
    groups: list
    splits: list
    units_are_patients: bool = True
    reads: list = field(default_factory=list)

    @property
    def images(self):
        n = len(self.acts)
        return pd.DataFrame({"id": range(n), "label": ["a"] * n, "group": self.groups, "split": self.splits})

    @property
    def manifest(self):
        return SimpleNamespace(images={"units_are_patients": self.units_are_patients})

    def read(self, site, images=None):
        assert site == "stages.2"
        self.reads.append(len(images))
        return self.acts if images is None else self.acts[torch.as_tensor(np.asarray(images))]


def table(n, seed=0):
    rng = np.random.default_rng(seed)
    return AttributeTable.from_columns(
        [
            (Attribute("lesion_area", "mm²"), rng.uniform(0, 90, n)),
            (Attribute("depth", "mm"), rng.normal(size=n)),
            (Attribute("scanner", "1", kind="categorical"), rng.integers(0, 3, n)),
        ]
    )


def planted(n=120, images=1, width=8, seed=1):
    """Neuron 2 follows lesion_area, neuron 5 falls with depth; one token in four carries it."""
    attributes = table(n).select(np.repeat(np.arange(n), images))
    rng = np.random.default_rng(seed)
    acts = torch.from_numpy(rng.normal(size=(n * images, 4, width))).float()
    acts[:, 0, 2] += torch.from_numpy(attributes.column("lesion_area")).float() / 10
    acts[:, 0, 5] -= torch.from_numpy(attributes.column("depth")).float() * 3
    groups = [f"p{i}" for i in np.repeat(np.arange(n), images)]
    splits = np.repeat(np.where(np.arange(n) % 2 == 0, "train", "test"), images).tolist()
    return FakeStore(acts, groups, splits), attributes


def test_planted_pairs_are_found_with_their_unit_and_sign_and_the_rest_is_kept():
    store, attributes = planted()
    matrix = attribute_matrix(Neurons("stages.2", 8), store, attributes, n_permutations=199)
    assert {(f.feature, f.attribute, f.unit) for f in matrix.findings} == {
        (2, "lesion_area", "mm²"),
        (5, "depth", "mm"),
    }
    strength = [abs(f.rho_confirmation) for f in matrix.findings]
    assert strength == sorted(strength, reverse=True)
    assert matrix[2].rho_confirmation > 0.5
    assert matrix[5].rho_confirmation < -0.5
    assert matrix[2].verdict.startswith("confirmed on held-out images (p 0.005")
    assert matrix[0].verdict.startswith("not confirmed on held-out images")
    assert matrix.rho_confirmation.shape == (8, 2)
    assert np.isfinite(matrix.rho_confirmation).all()
    assert matrix.left_out == ("scanner",)
    pooled = pooled_features(Neurons("stages.2", 8), store).mean
    test = np.flatnonzero(np.array(store.splits) == "test")
    np.testing.assert_allclose(matrix.rho_confirmation, spearman(pooled[test], attributes.values[test][:, :2]))
    assert matrix.text.startswith(
        "2 of 8 neurons follow an attribute on held-out images (200 permutations of 60 patients"
    )


def test_controls_stand_beside_it_and_chance_is_what_shuffled_attributes_reach():
    store, attributes = planted()
    matrix = attribute_matrix(Neurons("stages.2", 8), store, attributes, n_permutations=199)
    assert set(matrix.controls) == {"neurons", "pca", "random"}
    np.testing.assert_array_equal(matrix.controls["neurons"].rho_confirmation, matrix.rho_confirmation)
    assert 0.2 < matrix.chance() < matrix.highest()
    controls = {c.name: c for c in matrix.as_controls()}
    assert controls["shuffled attributes"].passed
    assert controls["neurons"].passed
    assert controls["random"].value == matrix.controls["random"].highest()
    text = json.loads(json.dumps(matrix.to_json(), allow_nan=False))
    assert len(text["features"]) == 8
    assert len(text["rho_confirmation"][0]) == 2
    assert set(text["controls"]) == {"neurons", "pca", "random"}


def test_an_encoder_without_any_relation_fails_the_control_of_shuffled_attributes():
    store, attributes = planted()
    store.acts = torch.randn(store.acts.shape, generator=torch.Generator().manual_seed(0))
    matrix = attribute_matrix(Neurons("stages.2", 8), store, attributes, controls={}, n_permutations=99)
    assert matrix.findings == ()
    assert not matrix.as_controls()[0].passed


def test_shuffling_the_held_out_patients_leaves_no_finding():
    store, attributes = planted()
    test = np.flatnonzero(np.array(store.splits) == "test")
    store.acts[torch.as_tensor(test)] = store.acts[torch.as_tensor(np.random.default_rng(0).permutation(test))]
    matrix = attribute_matrix(Neurons("stages.2", 8), store, attributes, controls={}, n_permutations=99)
    assert matrix.findings == ()
    assert matrix[2].rho_discovery > 0.5


def test_a_sign_that_turns_is_no_confirmation():
    rng = np.random.default_rng(0)
    attribute = rng.normal(size=80)
    feature = np.where(np.arange(80) < 40, attribute, -attribute)[:, None]
    matrix = match_attributes(
        feature, AttributeTable.from_columns([(Attribute("depth", "mm"), attribute)]), range(40), range(40, 80)
    )
    assert "the sign turned" in matrix[0].verdict
    assert matrix.findings == ()


def test_images_of_a_patient_count_once():
    store, attributes = planted(n=40, images=5)
    matrix = attribute_matrix(Neurons("stages.2", 8), store, attributes, controls={}, n_permutations=99)
    assert matrix.test.n_units == 20


def test_few_patients_say_that_nothing_can_be_significant():
    store, attributes = planted(n=6)
    matrix = attribute_matrix(Neurons("stages.2", 8), store, attributes, controls={})
    assert matrix[2].verdict == "cannot be significant with 3 units"
    assert matrix.text.startswith("cannot be significant with 3 units")
    assert matrix.findings == ()


def test_a_volume_is_shifted_and_its_middle_block_tested_in_full():
    rng = np.random.default_rng(0)
    curve = rng.normal(size=86)
    acts = torch.from_numpy(rng.normal(size=(86, 2, 6))).float()
    acts[:, :, 1] += 5 * torch.from_numpy(curve).float()[:, None]
    middle = (np.arange(86) >= 20) & (np.arange(86) < 66)
    store = FakeStore(
        acts, (np.arange(86) // 10).astype(str).tolist(), np.where(middle, "test", "train").tolist(), False
    )
    store.groups = [f"{s}{g}" for s, g in zip(store.splits, store.groups, strict=True)]
    attributes = AttributeTable.from_columns(
        [(Attribute("depth", "mm"), curve), (Attribute("other", "1"), curve[::-1])]
    )
    matrix = attribute_matrix(Neurons("stages.2", 6), store, attributes, controls={})
    assert matrix.test.n_compared == 46
    assert np.isfinite(matrix.test.p_corrected).all()  # along a volume all pairs are tested
    assert [(f.feature, f.attribute) for f in matrix.findings] == [(1, "depth")]
    probe = probe_store(store, "stages.2", attributes, "depth", n_boot=100)
    assert probe.interval.text == "not estimable (n = 1)"
    assert probe.p_value == 0.05
    assert probe.unit == "mm"


def test_features_that_never_vary_have_no_attribute():
    features = np.zeros((40, 2))
    features[25:, 1] = np.arange(15)
    matrix = match_attributes(features, table(40), range(20), range(20, 40))
    assert matrix[0].verdict == "does not vary on the discovery images"
    assert matrix[0].attribute == ""
    features[:20, 0] = np.arange(20)
    matrix = match_attributes(features, table(40), range(20), range(20, 40))
    assert matrix[0].verdict == "does not vary on the held-out images"
    assert np.isnan(matrix.highest())


def test_pooling_equals_the_obvious_reductions_in_any_number_of_blocks(monkeypatch):
    store, _ = planted(n=11)
    encoder = Directions("stages.2", torch.eye(8)[:3], torch.ones(8))
    for numbers in (1 << 25, 1):
        monkeypatch.setattr("probes.pooling._NUMBERS", numbers)
        codes = (store.acts - 1)[:, :, :3]
        pooled = pooled_features(encoder, store)
        np.testing.assert_allclose(pooled.take("mean"), codes.mean(1), atol=1e-6)
        np.testing.assert_allclose(pooled.take("max"), codes.amax(1), atol=1e-6)
        np.testing.assert_allclose(pooled.take("active"), (codes > 0).float().mean(1))
        chosen = [7, 2]
        np.testing.assert_allclose(
            pooled_activations(store, "stages.2", images=chosen), store.acts[chosen].mean(1), atol=1e-6
        )
        np.testing.assert_allclose(pooled_activations(store, "stages.2", pooling="max"), store.acts.amax(1))
        active = pooled_activations(store, "stages.2", pooling="active")
        np.testing.assert_allclose(active, (store.acts > 0).float().mean(1))
    with pytest.raises(ConfigError, match="pooling is 'sum'"):
        pooled.take("sum")
    with pytest.raises(ConfigError, match="pooling is 'sum'"):
        pooled_activations(store, "stages.2", pooling="sum")
    with pytest.raises(ConfigError, match="no image to read"):
        pooled_activations(store, "stages.2", images=[])


def test_baselines_are_orthonormal_principal_components_unit_directions_and_the_neurons():
    store, _ = planted(n=90)
    encoders = baseline_encoders(store, "stages.2", 20, images=range(80), seed=3)
    pca, random = encoders["pca"], encoders["random"]
    np.testing.assert_allclose(pca.directions @ pca.directions.T, torch.eye(8), atol=1e-5)
    rows = store.acts[:80].flatten(0, 1)
    variance = pca.encode(rows).var(0)
    assert (variance.diff() <= 1e-4).all()
    singular = np.linalg.svd((rows - rows.mean(0)).numpy(), compute_uv=False) ** 2 / (len(rows) - 1)
    np.testing.assert_allclose(variance, singular, rtol=1e-4)
    assert random.width == 20
    np.testing.assert_allclose(random.directions.norm(dim=1), 1, atol=1e-6)
    again = baseline_encoders(store, "stages.2", 20, images=range(80), seed=3)["random"]
    assert torch.equal(random.directions, again.directions)
    assert encoders["neurons"].width == 8


def test_inputs_that_do_not_fit_are_named():
    store, attributes = planted(n=20)
    with pytest.raises(ShapeError, match="the store has 20 images, the attributes 5"):
        attribute_matrix(Neurons("stages.2", 8), store, attributes.select(range(5)))
    with pytest.raises(ShapeError, match="the store has 20 images, the attributes 5"):
        probe_store(store, "stages.2", attributes.select(range(5)), "depth")
    with pytest.raises(ConfigError, match=r"no image of split 'validation' \(splits: test, train\)"):
        attribute_matrix(Neurons("stages.2", 8), store, attributes, confirmation="validation")
    with pytest.raises(ShapeError, match=r"features have shape \(3, 2\), attributes 20 images"):
        match_attributes(np.zeros((3, 2)), attributes, [0], [1])
    with pytest.raises(LeakageError, match="an image is both"):
        match_attributes(np.zeros((20, 2)), attributes, [0, 1], [1, 2])
    with pytest.raises(LeakageError, match="a group is both"):
        match_attributes(np.zeros((20, 2)), attributes, [0, 1], [2, 3], groups=["x"] * 20)
    with pytest.raises(AttributeTableError, match="no attribute to compare with"):
        match_attributes(np.zeros((20, 2)), AttributeTable.empty(20), [0, 1], [2, 3])


def test_survivors_hold_a_false_discovery_rate_and_carry_intervals_information_and_a_line():
    store, attributes = planted()
    matrix = attribute_matrix(Neurons("stages.2", 8), store, attributes, n_permutations=199)
    assert {f.feature for f in matrix.survivors} >= {2, 5}
    two = matrix[2]
    assert two.q <= 0.05
    assert two.interval[0] < two.rho_confirmation < two.interval[1]
    assert two.information > 0.1
    assert 0.2 < two.r2 < 1
    assert np.isnan(two.auroc)
    loser = next(matrix[i] for i in range(8) if i not in matrix.intervals)
    assert loser.interval is None
    assert matrix.supervised.kind == "mean difference"
    assert len(matrix.supervised) == 2
    assert {f.attribute for f in matrix.supervised.survivors} == {"lesion_area", "depth"}
    assert matrix.controls["pca"].measures is None
    assert set(matrix.to_json()["survivors"]) == {f.feature for f in matrix.survivors}


def test_a_line_fitted_on_some_patients_is_judged_on_others():
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(80, 3)), rng.normal(size=(80, 2))
    y[:, 0] = 2 * x[:, 0] + 1
    y[::7, 1] = np.nan
    x[:, 2] = 5.0
    r2 = held_out_r2((x[:40], y[:40]), (x[40:], y[40:]))
    assert r2[0, 0] == pytest.approx(1)
    for i, j in ((1, 0), (1, 1), (2, 0)):
        a, b = ~np.isnan(y[:40, j]), ~np.isnan(y[40:, j])
        slope, intercept = np.polyfit(x[:40, i][a], y[:40, j][a], 1) if i < 2 else (0.0, y[:40, j][a].mean())
        truth, read = y[40:, j][b], slope * x[40:, i][b] + intercept
        expected = 1 - np.square(truth - read).sum() / np.square(truth - truth.mean()).sum()
        assert r2[i, j] == pytest.approx(expected)


def test_few_patients_are_not_taken_for_many():
    rng = np.random.default_rng(8)
    x = rng.normal(size=(16, 3))
    table = AttributeTable.from_columns([(Attribute("size", "mm"), x[:, 0])])
    matrix = match_attributes(x, table, np.arange(8), np.arange(8, 16), n_permutations=99)
    assert matrix[0].q == matrix[0].p_corrected  # permutations, since Student's t is no approximation here
    assert matrix[0].interval_note == "not estimable (n = 8)"
