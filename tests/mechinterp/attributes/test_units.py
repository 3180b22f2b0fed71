"""A unit means what it says: converted by known factors, refused by name when nobody knows it."""

import numpy as np
import pytest

from mechinterp.attributes.table import Attribute, AttributeTable
from mechinterp.attributes.units import USUAL, _meaning, check_unit, convert
from mechinterp.errors import AttributeTableError, ShapeError


@pytest.mark.parametrize(
    ("value", "unit", "to", "expected"),
    [
        (250.0, "mm²", "cm²", 2.5),
        (1.0, "mm²", "µm²", 1e6),
        (180.0, "°", "rad", np.pi),
        (25.0, "%", "1", 0.25),
        (0.25, "fraction", "%", 25.0),
        (2.0, "1/mm", "1/cm", 20.0),
        (1.0, "a", "month", 12.0),
        (20.0, "degC", "K", 293.15),
        (3.0, "mAs", "mA*s", 3.0),
        (-40.0, "HU", "HU", -40.0),
        (-40.0, "hu", "HU", -40.0),  # and not hundred atomic mass units
    ],
)
def test_values_are_converted_by_factors_known_by_hand(value, unit, to, expected):
    assert convert(value, unit, to) == pytest.approx(expected)


def test_missing_values_stay_missing_and_what_was_given_is_not_changed():
    given = np.array([1.0, np.nan])
    np.testing.assert_array_equal(convert(given, "cm", "mm"), [10.0, np.nan])
    np.testing.assert_array_equal(given, [1.0, np.nan])


def test_every_unit_that_is_let_through_unasked_is_one_that_pint_knows():
    for unit in USUAL:
        assert _meaning(unit) is not None


@pytest.mark.parametrize(
    ("unit", "said"),
    [
        ("mmm²", r"no unit 'mmm' in 'mmm²': did you mean 'mm'"),
        ("milimetre", r"no unit 'milimetre': did you mean 'millimeter'"),
        ("houndsfield", r"no unit 'houndsfield'"),
        ("mm-1", r"'mm-1' is no unit: write it as mm², 1/mm"),
        (")(", r"'\)\(' is no unit"),
    ],
)
def test_an_unknown_unit_is_named_with_near_ones(unit, said):
    with pytest.raises(AttributeTableError, match=said):
        check_unit(unit)
    with pytest.raises(AttributeTableError, match=f"attribute 'size': {said}"):
        Attribute("size", unit)


@pytest.mark.parametrize(
    ("unit", "to", "said"),
    [
        ("mm", "mm²", "they measure different things"),
        ("px", "mm", "a spacing connects the two"),
        ("HU", "1", "they measure different things"),
        ("", "mm", "name both units"),
    ],
)
def test_what_measures_different_things_is_not_converted(unit, to, said):
    with pytest.raises(AttributeTableError, match=said):
        convert(1.0, unit, to)


def table():
    return AttributeTable.from_columns(
        [
            (Attribute("area", "px²"), [100.0, np.nan]),
            (Attribute("length", "px"), [10.0, 20.0]),
            (Attribute("volume", "mL"), [1.0, 2.0]),
        ]
    )


def test_one_attribute_of_a_table_is_given_in_another_unit_and_the_rest_stays():
    converted = table().in_unit("volume", "mm³")
    assert [a.unit for a in converted] == ["px²", "px", "mm³"]
    np.testing.assert_allclose(converted.column("volume"), [1000.0, 2000.0])
    np.testing.assert_array_equal(converted.column("length"), [10.0, 20.0])
    with pytest.raises(AttributeTableError, match="no attribute 'volum'"):
        table().in_unit("volum", "mL")


def test_pixels_become_millimetres_by_each_image_own_spacing():
    converted = table().in_mm([(0.5, 0.5), (2.0, 2.0)])
    assert [a.unit for a in converted] == ["mm²", "mm", "mL"]
    np.testing.assert_allclose(converted.column("area"), [25.0, np.nan])
    np.testing.assert_allclose(converted.column("length"), [5.0, 40.0])


def test_a_length_in_pixels_that_are_no_squares_has_no_direction_but_an_area_is_clear():
    with pytest.raises(AttributeTableError, match="'length' is a length in px"):
        table().in_mm([(0.5, 2.0)] * 2)
    area = AttributeTable.from_columns([(Attribute("area", "px²"), [100.0, 50.0])])
    np.testing.assert_allclose(area.in_mm([(0.5, 2.0)] * 2).column("area"), [100.0, 50.0])
    with pytest.raises(ShapeError, match="1, 2"):
        table().in_mm([(0.5, 0.5)])
