import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mechinterp.geometry.spans import (
    Factor,
    Geometry,
    Span,
    joined_along,
    plain,
    regrouped,
    row,
    rows_and_prefix,
    simplified,
    single_row,
    size_of,
    sliced,
    union,
)

PIXELS = Span(axis=0, n=12, step=1, low=0, high=1)


def test_a_window_by_hand():
    # three wide, every second, one pixel of padding: cell 0 sees from -1 to 2
    assert PIXELS.windowed(6, kernel=3, stride=2, padding=1) == Span(0, 6, 2, -1, 2)
    # five apart in a dilated window of two, from cells two pixels wide
    assert Span(0, 6, 2, 0, 2).windowed(1, kernel=2, stride=1, padding=0, dilation=5) == Span(0, 1, 2, 0, 12)


def test_coarser_and_finer_by_hand():
    assert PIXELS.coarsened(4) == Span(0, 3, 4, 0, 4)
    # a cell of four pixels, four times: the last of them still sees the first pixel, three steps back
    assert Span(0, 3, 4, 0, 4).refined(4) == Span(0, 12, 1, -3, 4)


def test_a_hull_covers_both_rows_at_either_end():
    drifting = Span(0, 10, 1.5, 0, 4)
    hull = Span(0, 10, 1, 0, 1).hull(drifting)
    assert hull.step == 1
    for i in range(10):
        assert hull.low + i * hull.step <= min(i, 1.5 * i)
        assert hull.high + i * hull.step >= max(i + 1, 1.5 * i + 4)
    assert hull == drifting.hull(Span(0, 10, 1, 0, 1))


def test_a_row_is_split_into_patches_and_what_is_inside_them():
    outer, inner = Factor(12, (PIXELS,)).split(3)
    assert (outer, inner) == (Factor(3, (Span(0, 3, 4, 0, 4),)), Factor(4))
    assert Factor(12, (PIXELS,)).split(5) is None
    assert Factor(13, (PIXELS,), prefix=1).split(13) is None
    assert Factor(6).split(2) == (Factor(2), Factor(3))


def test_an_axis_is_read_as_one_row_only_if_it_is_one():
    assert single_row(row(PIXELS)) == PIXELS
    assert single_row((Factor(1), Factor(12, (PIXELS,)))) == PIXELS
    assert single_row((Factor(2), Factor(12, (PIXELS,)))) is None
    assert single_row(plain(12)) is None
    assert simplified((Factor(3, (Span(0, 3, 4, 0, 4),)), Factor(4))) == row(Span(0, 12, 1, -3, 4))


def test_prefixes_are_read_only_in_front():
    columns = Span(1, 5, 1, 0, 1)
    tokens = joined_along([None, (Factor(12, (PIXELS,)), Factor(5, (columns,)))], [2, 60])
    assert rows_and_prefix(tokens) == ((PIXELS, columns), 2)
    assert size_of(tokens) == 62
    assert rows_and_prefix(sliced(tokens, 62, 2, 62)) == ((PIXELS, columns), 0)
    assert rows_and_prefix(sliced(tokens, 62, 1, 62)) == ((PIXELS, columns), 1)
    assert sliced(tokens, 62, 0, 62) is tokens
    for start, stop, step in [(0, 2, 1), (3, 62, 1), (2, 62, 2), (2, 61, 1), (4, 4, 1)]:
        assert rows_and_prefix(sliced(tokens, 62, start, stop, step)) is None
    assert joined_along([row(PIXELS), row(PIXELS)], [12, 12]) == plain(24)


def test_what_is_laid_out_differently_has_no_common_place():
    a, b = Geometry((plain(2), row(PIXELS))), Geometry((plain(2), row(Span(1, 12, 1, 0, 1))))
    joined = union([a, b], (2, 12))
    assert joined.dims == (plain(2), plain(12))
    assert joined.everywhere == {0, 1}
    halves = Geometry((plain(2), (Factor(6, (PIXELS.coarsened(2),)), Factor(2))))
    assert union([a, halves], (2, 12)).dims[1] == row(Span(0, 12, 1, -1, 2))


def test_an_axis_laid_out_twice_keeps_its_first_place():
    twice = Geometry((row(PIXELS), row(PIXELS))).settled()
    assert twice.dims == (row(PIXELS), plain(12))
    assert twice.everywhere == {0}


@st.composite
def shapes_and_others(draw):
    """Two shapes of as many entries."""
    factors = draw(st.lists(st.sampled_from([1, 2, 3]), min_size=1, max_size=6))

    def grouped():
        shape, size = [], 1
        for f in factors:
            size *= f
            if draw(st.booleans()):
                shape.append(size)
                size = 1
        return (*shape, size)

    return grouped(), grouped()


@settings(deadline=None)
@given(shapes_and_others())
def test_a_shape_there_and_back_loses_no_place(shapes):
    shape, other = shapes
    longest = max(range(len(shape)), key=shape.__getitem__)
    span = Span(0, shape[longest], 1, 0, 1)
    geometry = Geometry(tuple(row(span) if i == longest else plain(n) for i, n in enumerate(shape)))
    there = regrouped(geometry, shape, other)
    assert tuple(size_of(d) for d in there.dims) == other
    back = regrouped(there, other, shape)
    assert tuple(size_of(d) for d in back.dims) == shape
    assert back.axes == {0}
    found = single_row(back.dims[longest])
    if found is not None:
        assert found.low <= 0
        assert found.high >= 1
        assert (found.low + found.high) / 2 == pytest.approx(0.5)
    elif shape[longest] > 1:
        assert 0 in back.everywhere or any(len(d) > 1 for d in back.dims)
