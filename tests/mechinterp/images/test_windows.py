"""Windows by name show the tissues they are named after."""

import pytest

from mechinterp.errors import ConfigError
from mechinterp.images.windows import NAMED_WINDOWS, window_range

# HU of tissues, from textbooks.
TISSUES = {
    "brain": 35,
    "lung": -800,
    "bone": 700,
    "liver": 60,
    "mediastinum": 40,
    "subdural": 70,
    "abdomen": 40,
    "soft-tissue": 50,
}


@pytest.mark.parametrize("name", TISSUES)
def test_a_named_window_shows_its_tissue_as_grey(name):
    low, high = window_range(name)
    assert low + 0.1 * (high - low) < TISSUES[name] < high - 0.1 * (high - low)


def test_every_named_window_runs_about_its_centre():
    for name, (centre, width) in NAMED_WINDOWS.items():
        assert window_range(name) == (centre - width / 2, centre + width / 2)
    assert window_range("Soft Tissue") == window_range("soft_tissue") == window_range("soft-tissue")
    assert window_range("40, 80") == (0, 80)


@pytest.mark.parametrize(
    ("window", "message"),
    [
        ("brian", "there is no window 'brian': did you mean 'brain'"),
        ("1,2,3", "there is no window '1,2,3'"),
        ("40,0", "window '40,0' cannot be meant: the width must be a positive number"),
        ("nan,5", "cannot be meant"),
    ],
)
def test_a_window_that_is_none_is_refused(window, message):
    with pytest.raises(ConfigError, match=message):
        window_range(window)
