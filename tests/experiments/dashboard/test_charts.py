"""What is drawn is what was given; absent values are left out, never drawn as zero."""

import math

from experiments.dashboard.ablation_charts import Curve, before_after, set_size_curves
from experiments.dashboard.charts import (
    attribute_scatter,
    class_effects,
    histogram,
    matrix,
    predicted_against_true,
    probabilities,
    shares,
)


def test_probabilities_follow_the_position_whatever_the_order_given():
    figure = probabilities([3, 1, None, 2], [[0.3], [0.1], [0.9], [0.2]], [(0, "a<b")], "mm", [("low", 0.5, 1.5)], 0.9)
    (line,) = figure.data
    assert line.x == (1, 2, 3)
    assert line.y == (0.1, 0.2, 0.3)
    assert line.name == "a&lt;b"
    band, threshold = figure.layout.shapes
    assert (band.x0, band.x1) == (0.5, 1.5)
    assert threshold.y0 == threshold.y1 == 0.9


def test_a_row_without_that_class_is_a_gap():
    assert probabilities([0, 1], [[0.5, 0.5], [1.0]], [(1, "b")], "x").data[0].y == (0.5, None)


def test_a_histogram_keeps_its_bins_and_goes_logarithmic_only_when_one_bin_hides_the_rest():
    even = histogram([0, 1, 3], [4, 5])
    assert even.data[0].x == (0.5, 2)
    assert even.data[0].width == (1, 2)
    assert even.layout.yaxis.type is None
    crowded = histogram([0, 1, 2, 3, 4], [5000, 3, 2, None])
    assert crowded.layout.yaxis.type == "log"
    assert crowded.layout.yaxis.range[1] == math.log10(10_000)
    assert len(crowded.data[0].y) == 3


def test_a_scatter_leaves_out_images_that_lack_either_value():
    figure = attribute_scatter([1, None, 3, 4], [5, 6, None, 8], "area", "mm²", {"a": [0, 1, 2], "b": [3, 9], "c": [1]})
    assert [(trace.name, trace.x, trace.y) for trace in figure.data] == [("a", (1,), (5,)), ("b", (4,), (8,))]
    assert figure.layout.xaxis.title.text == "area [mm²]"


def test_effects_are_grouped_by_class_with_a_pattern_per_ablation():
    figure = class_effects({"zero": {"x": 1.0}, "mean": {"x": -0.5, "y": 2}}, ["x", "y"])
    assert [trace.y for trace in figure.data] == [(1.0, None), (-0.5, 2)]
    assert figure.data[0].marker.pattern.shape != figure.data[1].marker.pattern.shape


def test_a_matrix_is_centred_on_zero():
    (heat,) = matrix([[0.5, None]], ["area"], ["3", "10"]).data
    assert (heat.zmin, heat.zmax) == (-1, 1)
    assert heat.colorscale[2][0] == 0.5


def test_predictions_stand_against_the_line_of_equality():
    equality, points = predicted_against_true([1, 2, None], [2, 0.5, 3], "area", "mm²").data
    assert equality.x == equality.y == (0.5, 2)
    assert (points.x, points.y) == ((1, 2), (2, 0.5))


def test_shares_write_their_percentage_and_leave_the_absent_blank():
    assert shares(["a", "b"], [0.254, None], "share").data[0].text == ("25.4 %", "")


def curve(name, chosen):
    return Curve(name, [1, 5], chosen, [0.1, 0.2], [0.0, 0.1], [0.2, None])


def test_every_ablation_has_a_column_and_columns_share_their_range():
    flipped, delta = [curve("zero", [0.5, 1]), curve("mean", [0, 0])], [curve("zero", [-9, -2]), curve("mean", [0, 1])]
    figure = set_size_curves(flipped, delta, 5)
    axes = figure.layout.to_plotly_json()
    assert axes["yaxis"]["range"] == axes["yaxis2"]["range"] == [-0.03, 1.05]
    assert axes["yaxis3"]["range"] == axes["yaxis4"]["range"]
    assert axes["yaxis3"]["range"][0] < -9
    assert axes["yaxis3"]["range"][1] > 1
    assert axes["xaxis2"]["domain"][0] > axes["xaxis"]["domain"][1]
    assert axes["yaxis"]["domain"][0] > axes["yaxis3"]["domain"][1]
    assert [note["text"] for note in axes["annotations"]] == ["zero", "mean"]
    assert sum(trace.showlegend for trace in figure.data) == 3
    assert len(axes["shapes"]) == 4


def test_a_band_needs_both_of_its_ends():
    band = set_size_curves([curve("zero", [0, 1])], []).data[0]
    assert (band.x, band.y) == ((1, 1), (0.2, 0.0))


def test_a_curve_without_controls_is_drawn_alone():
    figure = set_size_curves([], [Curve("zero", [1, 2], [0, -1])])
    assert [trace.name for trace in figure.data] == ["chosen set"]
    assert not set_size_curves([], []).data


def test_images_that_fall_are_told_apart_by_more_than_colour():
    figure = before_after([0.9, 0.95, None], [0.2, 0.9, 0.1], ["a", "b"], "tumour", 0.9)
    stays, falls = figure.data
    assert (stays.name, falls.name) == ("stays (1)", "crosses 0.5 (1)")
    assert stays.marker.symbol != falls.marker.symbol
    assert falls.y == (0.9, 0.2, None)
    assert falls.text == ("a",) * 3
    assert len(before_after([0.9], [0.2], [], "t", None).layout.shapes) == 0
