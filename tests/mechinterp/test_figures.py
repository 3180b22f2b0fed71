"""The theme, and that words stay words."""

import plotly.graph_objects as go
import pytest

from mechinterp.figures import COLOURS, SEQUENCE, apply_theme, as_text, class_colour


def luminance(colour):
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_the_theme_is_given_in_place_and_the_figure_returned():
    figure = go.Figure()
    assert apply_theme(figure) is figure
    assert figure.layout.template.layout.colorway == SEQUENCE


@pytest.mark.parametrize("name", ["ink", "muted"])
def test_text_colours_have_the_contrast_that_reading_needs(name):
    assert (luminance(COLOURS["paper"]) + 0.05) / (luminance(COLOURS[name]) + 0.05) >= 4.5


def test_a_class_keeps_its_colour_and_colours_start_over_after_the_last():
    assert class_colour(0) == SEQUENCE[0] != class_colour(1)
    assert class_colour(len(SEQUENCE)) == SEQUENCE[0]


def test_text_is_drawn_as_it_is():
    assert as_text("a<b>c & d") == "a&lt;b&gt;c &amp; d"
