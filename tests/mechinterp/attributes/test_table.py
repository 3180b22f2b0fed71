"""A table keeps what its columns mean through selecting and joining."""

import numpy as np
import pytest

from mechinterp.attributes.table import Attribute, AttributeTable
from mechinterp.errors import AttributeTableError


@pytest.fixture
def table():
    return AttributeTable.from_columns(
        [(Attribute("lesion_area", "mm²"), [1.0, 2.0, np.nan]), (Attribute("grade", "1", kind="ordinal"), [0, 1, 1])]
    )


def test_columns_are_found_by_name_and_near_names_proposed(table):
    assert table.names == ("lesion_area", "grade")
    assert table["grade"].kind == "ordinal"
    np.testing.assert_array_equal(table.column("lesion_area"), [1, 2, np.nan])
    with pytest.raises(AttributeTableError, match="no attribute 'lesion_are': did you mean 'lesion_area'"):
        table.column("lesion_are")


def test_a_label_shows_the_unit_where_there_is_one(table):
    assert [a.label for a in table] == ["lesion area [mm²]", "grade"]
    assert Attribute("age", "").label == "age"


def test_selecting_takes_rows_in_the_given_order(table):
    np.testing.assert_array_equal(table.select([1, 0]).column("lesion_area"), [2, 1])
    assert len(table.select([])) == 0


def test_joining_replaces_columns_of_the_same_name(table):
    other = AttributeTable((Attribute("grade", "%"), Attribute("age", "a")), np.ones((3, 2)), {"grade": ("a", "b")})
    joined = table.joined(other)
    assert joined.names == ("lesion_area", "grade", "age")
    assert joined["grade"].unit == "%"
    assert joined.categories == {"grade": ("a", "b")}
    with pytest.raises(AttributeTableError, match="tables of 3 and 2 images cannot be joined"):
        table.joined(AttributeTable.empty(2))


def test_what_does_not_fit_together_is_named():
    with pytest.raises(AttributeTableError, match=r"1 attributes but values of shape \(3, 2\)"):
        AttributeTable((Attribute("a", ""),), np.zeros((3, 2)))
    with pytest.raises(AttributeTableError, match="an attribute stands twice: a"):
        AttributeTable((Attribute("a", ""), Attribute("a", "mm")), np.zeros((3, 2)))
    with pytest.raises(AttributeTableError, match="no columns"):
        AttributeTable.from_columns([])
