"""Whatever is asked of a record is answered."""

from hypothesis import given
from hypothesis import strategies as st

from experiments.dashboard.record import Record

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=8,
)


@given(json_values)
def test_no_json_makes_an_access_fail(value):
    record = Record(value)
    for part in (record, record["a"], record[0], record["a"][1]["b"]):
        assert part.number() is None or isinstance(part.number(), (int, float))
        assert isinstance(part.text(), str)
        assert all(isinstance(entry, Record) for entry in part.entries())
        assert all(isinstance(n, int) for n in part.integers())
        assert len(part.texts()) == len(part.numbers()) == len(part.entries())
        rows = part.grid()
        assert not rows or len({len(row) for row in rows}) == 1
        pair = part.pair()
        assert pair is None or len(pair) == 2
        assert part.flag() in {True, False, None}
        assert isinstance(part.items(), list)
        bool(part)


def test_what_is_there_is_returned():
    record = Record(
        {"n": 3, "x": [1, 2.5], "name": "a", "yes": True, "map": [[1, None], [2, 3]], "none": None, "zero": 0}
    )
    assert record["n"].number() == 3
    assert record["n"].integer() == 3
    assert Record(2.5).integer() is None
    assert record["x"].pair() == (1, 2.5)
    assert record["name"].text() == "a"
    assert record["n"].text() == "3"
    assert record["yes"].flag() is True
    assert record["yes"].number() is None
    assert record["map"].grid() == [[1, None], [2, 3]]
    assert record["zero"]
    assert not record["none"]
    assert not record["missing"]
    assert record["missing"].text("nothing") == "nothing"
    assert [key for key, _ in record.items()][:2] == ["n", "x"]


def test_a_ragged_map_is_no_grid():
    assert Record([[1, 2], [3]]).grid() == []
    assert Record([[], []]).grid() == []


def test_infinite_numbers_count_as_absent():
    assert Record(float("inf")).number() is None
