"""Words become numbers, categories become codes, and what is neither is named with row and column."""

import numpy as np
import pytest

from mechinterp.attributes.columns import ColumnDescription, table_of_columns
from mechinterp.errors import AttributeTableError


def column(words, first_row=2, **said):
    return table_of_columns({"x": words}, {"x": ColumnDescription(**said)}, len(words), first_row)


def test_kinds_are_found_from_the_values():
    table = table_of_columns({"a": ["0", "1", ""], "b": ["0", "2", "1"], "c": ["1", "1", "1"]}, {}, 3)
    assert [a.kind for a in table] == ["binary", "continuous", "continuous"]
    assert table["a"].unit == ""
    assert table["a"].label == "a"


@pytest.mark.parametrize("word", ["", " ", "NaN", "NA", "n/a", "null"])
def test_missing_values_are_nan_in_every_kind(word):
    assert np.isnan(column([word, "1"]).values[0, 0])
    assert np.isnan(column([word, "mild"], kind="categorical").values[0, 0])


def test_none_and_a_declared_na_are_categories():
    np.testing.assert_array_equal(column(["none", " mild", ""], kind="categorical").values[:, 0], [1, 0, np.nan])
    np.testing.assert_array_equal(column(["NA", ""], kind="ordinal", categories=("NA", "x")).values[:, 0], [0, np.nan])


def test_truth_may_be_said_in_words():
    np.testing.assert_array_equal(
        column(["yes", "No", "TRUE", "false", "1"], kind="binary").values[:, 0], [1, 0, 1, 0, 1]
    )


def test_categories_that_nobody_ordered_are_sorted_numbers_first():
    table = column(["b", "10", "a", "9"], kind="categorical")
    assert table.categories["x"] == ("9", "10", "a", "b")
    np.testing.assert_array_equal(table.values[:, 0], [3, 1, 2, 0])


@pytest.mark.parametrize(
    ("words", "said", "message"),
    [
        (["1", "big"], {}, r"row 3, column 'x': 'big' is not a number: correct it, .* 'kind: categorical' of 'x'"),
        (["inf"], {}, r"row 2, column 'x': 'inf' is not finite"),
        (["2"], {"kind": "binary"}, r"row 2, column 'x': '2' is not 0 or 1"),
        (
            ["milt"],
            {"kind": "ordinal", "categories": ("none", "mild")},
            r"row 2, column 'x': 'milt' is no category of it: did you mean 'mild'",
        ),
    ],
)
def test_a_value_that_cannot_be_meant_is_named(words, said, message):
    with pytest.raises(AttributeTableError, match=message):
        column(words, **said)


def test_a_description_of_no_column_is_an_error_and_no_columns_are_none():
    with pytest.raises(AttributeTableError, match="describes a column 'lesion_aria': did you mean 'lesion_area'"):
        table_of_columns({"lesion_area": ["1"]}, {"lesion_aria": ColumnDescription()}, 1)
    assert len(table_of_columns({}, {}, 5)) == 5
