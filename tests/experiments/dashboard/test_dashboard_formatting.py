"""Numbers as they are read, by hand."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.dashboard.formatting import counted, format_value, label_with_unit, with_unit


@pytest.mark.parametrize(
    ("value", "form", "text"),
    [
        (None, "number", "–"),
        (float("nan"), "number", "–"),
        (float("inf"), "number", "∞"),
        (-float("inf"), "number", "−∞"),
        (0, "number", "0"),
        (0.0, "signed", "0"),
        (3, "number", "3"),
        (-4.5, "number", "−4.50"),
        (2.5, "signed", "+2.50"),
        (-0.01234, "number", "−0.0123"),
        (12345.6, "number", "12,346"),
        (1.5e-7, "number", "1.50e−7"),
        (2.5e9, "number", "2.50e9"),
        (0.104, "percent", "10.4 %"),
        (0.5, "percent", "50 %"),
        (0, "percent", "0 %"),
        (0.004, "percent", "0.4 %"),
        (-0.0004, "percent", "0.0 %"),
        (-0.1, "integer", "0"),
        (0.00001, "p", "< 0.001"),
        (0, "p", "< 0.001"),
        (0.0123, "p", "0.012"),
        (0.5, "p", "0.50"),
        (1234.4, "integer", "1,234"),
        (True, "number", "yes"),
        (False, "percent", "no"),
        (7, "text", "7"),
        ("plain", "number", "plain"),
    ],
)
def test_a_value_is_written_as_people_read_it(value, form, text):
    assert format_value(value, form) == text


@given(st.floats(-1e12, 1e12))
def test_a_number_keeps_its_value_to_half_a_percent(value):
    read = format_value(value).replace("−", "-").replace(",", "")
    assert math.isclose(float(read), value, rel_tol=0.00501, abs_tol=1e-300)


@given(st.floats(0, 1, exclude_min=True))
def test_a_p_value_is_never_zero(p):
    assert format_value(p, "p") not in {"0", "0.00", "0.000"}


def test_units_follow_values_and_head_columns():
    assert with_unit(4.0, "mm") == "4 mm"
    assert with_unit(None, "mm") == "–"
    assert with_unit(0.25, "1") == "0.250"
    assert label_with_unit("area", "mm²") == "area [mm²]"
    assert label_with_unit("fraction", "1") == "fraction"


def test_counts_agree_with_their_noun():
    assert counted(1, "feature") == "1 feature"
    assert counted(1200, "feature") == "1,200 features"
    assert counted(2, "axis", "axes") == "2 axes"
