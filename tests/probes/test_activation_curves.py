"""The curve of a feature over an attribute: patients' means in bins, values by hand, one bin for those without a lesion."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechinterp.attributes.table import Attribute
from mechinterp.errors import AttributeTableError, ShapeError
from probes import activation_curve, activation_curve_figure

AREA = Attribute("lesion_area", "mm²")


def test_a_line_has_its_slope_per_unit_and_bins_on_it():
    area = np.linspace(0.1, 4, 40)
    curve = activation_curve(2 * area + 1, area, AREA, n_boot=200)
    assert curve.count == (10, 10, 10, 10)
    assert np.array(curve.reading) == pytest.approx(2 * np.array(curve.value) + 1)
    assert curve.value[0] == pytest.approx(area[:10].mean())
    assert curve.slope.value == pytest.approx(2)
    assert curve.slope.unit == "per mm²"
    assert "changes by 2 per mm²" in curve.text


def test_a_patients_images_are_averaged_first():
    patients = np.repeat(np.arange(20), 2)
    area = np.repeat(np.arange(20.0), 2)
    feature = area + np.tile([-5.0, 5.0], 20)
    curve = activation_curve(feature, area, AREA, groups=patients, n_boot=200)
    np.testing.assert_allclose(curve.patients, np.stack([np.arange(20.0)] * 2, 1))
    # mean 4.5 of 0 to 9: half width 2.262 × 3.0277 / √10
    assert curve.interval[0].ends == pytest.approx((4.5 - 2.166, 4.5 + 2.166), abs=0.001)


def test_patients_without_a_lesion_are_one_bin():
    area = np.r_[np.zeros(50), np.linspace(1, 2, 30)]
    curve = activation_curve(area, area, AREA, n_boot=200)
    assert curve.value[0] == 0
    assert curve.count[0] == 50
    assert sum(curve.count) == 80


def test_bins_of_few_patients_have_no_interval():
    curve = activation_curve(np.arange(12.0), np.arange(12.0), AREA, n_boot=200)
    assert curve.count == (6, 6)
    assert [i.text for i in curve.interval] == ["not estimable (n = 6)"] * 2
    assert curve.slope.interval.warning.startswith("fewer than 30")


@given(seed=st.integers(0, 1000), n=st.integers(10, 120), levels=st.integers(2, 200))
def test_every_patient_is_in_one_bin_and_values_rise(seed, n, levels):
    random = np.random.default_rng(seed)
    area = random.integers(0, levels, n).astype(float)
    area[:2] = 0, 1
    curve = activation_curve(random.normal(size=n), area, AREA, n_boot=100)
    assert sum(curve.count) == n
    assert len(curve.count) <= 8
    assert (np.diff(curve.value) > 0).all()


def test_missing_values_are_left_out_and_the_figure_says_the_unit():
    area, feature = np.arange(30.0), np.arange(30.0)
    area[3], feature[5] = np.nan, np.nan
    curve = activation_curve(feature, area, AREA, name="feature 7", n_boot=200)
    assert len(curve.patients) == 28
    figure = activation_curve_figure(curve)
    assert figure.layout.xaxis.title.text == "lesion area [mm²]"
    assert "feature 7: 1 per mm²" in figure.layout.title.text
    assert curve.to_json()["unit"] == "mm²"


def test_users_mistakes_are_named():
    with pytest.raises(AttributeTableError, match="'lesion_area' does not vary"):
        activation_curve(np.arange(12.0), np.ones(12), AREA)
    with pytest.raises(ShapeError, match="one value per image each"):
        activation_curve(np.arange(12.0), np.arange(11.0), AREA)
