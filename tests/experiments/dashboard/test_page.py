"""The page model: a feature table selects, sorts and keeps absent values last."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.dashboard.page import (
    Column,
    Details,
    FeatureTable,
    Heading,
    Link,
    Page,
    Side,
    Text,
    sort_key,
    walk,
)

COLUMNS = (Column("feature"), Column("attribute"), Column("rho", form="signed"))


def table(rows):
    return FeatureTable(
        "t", COLUMNS, tuple((Link(f"feature {i}", f"feature/{i}"), a, r) for i, a, r in rows), filters=(1,)
    )


@pytest.fixture
def features():
    return table([(2, "area", 0.5), (10, "position", -0.25), (1, None, None), (3, "Area", 0.75)])


def ids(rows):
    return [row[0].slug for row in rows]


def test_features_sort_by_number_not_by_text(features):
    assert ids(features.select()) == ["feature/1", "feature/2", "feature/3", "feature/10"]


def test_absent_values_come_last_both_ways(features):
    assert ids(features.select(sort=2))[-1] == "feature/1"
    assert ids(features.select(sort=2, descending=True)) == ["feature/3", "feature/2", "feature/10", "feature/1"]


def test_every_word_must_be_found_whatever_its_case(features):
    assert ids(features.select("AREA")) == ["feature/2", "feature/3"]
    assert ids(features.select("area +0.750")) == ["feature/3"]
    assert features.select("area position") == []


def test_a_filter_wants_the_exact_value(features):
    assert ids(features.select(filters={1: "area"})) == ["feature/2"]
    assert len(features.select(filters={1: ""})) == 4
    assert features.choices(1) == ("Area", "area", "position", "–")


@given(
    st.lists(
        st.tuples(st.integers(0, 99), st.sampled_from(["a", "b", None]), st.none() | st.floats(-1, 1)), max_size=12
    )
)
def test_selecting_loses_no_row_and_agrees_with_a_slow_sort(rows):
    made = table(rows)
    found = made.select(sort=2, descending=True)
    assert sorted(map(repr, found)) == sorted(map(repr, made.rows))
    values = [row[2] for row in found if row[2] is not None]
    assert values == sorted(values, reverse=True)
    assert all(row[2] is None for row in found[len(values) :])


def test_a_mixed_column_sorts_numbers_before_texts():
    made = FeatureTable("t", (Column("x"),), (("b",), (2.0,), ("a",), (1.0,)))
    assert [row[0] for row in made.select()] == [1.0, 2.0, "a", "b"]


def test_sort_keys_of_every_kind_of_cell():
    assert sort_key(None) is None
    assert sort_key(float("nan")) is None
    assert sort_key(True) == 1
    assert sort_key(Link("feature 12", "x")) == 12
    assert sort_key(Link("Other", "x")) == "other"
    assert sort_key("Text 3") == "text 3"


def test_walking_a_page_meets_nested_blocks_in_reading_order():
    blocks = (Heading("a"), Side((Text(("b",)), Details("c", (Text(("d",)),)))), Heading("e"))
    kinds = [type(block).__name__ for block in walk(blocks)]
    assert kinds == ["Heading", "Side", "Text", "Details", "Text", "Heading"]
    assert Page("p", "P", blocks).figures() == []
