"""Figures of encoding models show every voxel, mark what is true, and refuse what does not belong together."""

import numpy as np
import pytest

from mechinterp.errors import ShapeError
from probes.encoding_figures import field_figure, region_score_figure
from probes.receptive_fields import ReceptiveFields

FIELDS = ReceptiveFields(np.array([1.0, -2.0, 0.5]), np.array([0.0, 1.0, 2.0]), np.ones(3))


def test_every_voxel_stands_at_its_place_under_its_region():
    figure = field_figure(FIELDS, ["V1", "FFA", "V1"])
    assert [trace.name for trace in figure.data] == ["V1", "FFA"]
    assert list(figure.data[0].x) == [0.0, 2.0]
    assert list(figure.data[0].y) == [1.0, 0.5]
    # regions differ by symbol too, not by colour alone
    assert figure.data[0].marker.symbol != figure.data[1].marker.symbol


def test_a_line_leads_from_the_true_middle():
    figure = field_figure(FIELDS, ["V1"] * 3, ReceptiveFields(np.zeros(3), np.zeros(3), np.ones(3)))
    line = figure.data[0]
    assert list(line.x[:2]) == [0.0, 0.0]
    assert list(line.y[:2]) == [0.0, 1.0]
    assert np.isnan(line.x[2])
    # the legend says which is which
    assert [trace.name for trace in figure.data if trace.showlegend is not False] == ["V1: true middle", "V1: found"]


def test_each_region_has_a_panel_that_counts_its_voxels():
    figure = field_figure(FIELDS, ["V1", "FFA", "V1"])
    assert [note.text for note in figure.layout.annotations] == ["V1 (2 voxels)", "FFA (1 voxels)"]
    assert [trace.xaxis for trace in figure.data] == ["x", "x2"]
    assert tuple(figure.layout.xaxis.range) == tuple(figure.layout.xaxis2.range)


def test_no_voxel_is_an_empty_panel():
    assert len(field_figure(FIELDS[np.array([], dtype=np.int64)], []).data[0].x) == 0


def test_degrees_are_as_long_up_as_to_the_side():
    figure = field_figure(FIELDS, ["V1"] * 3)
    assert figure.layout.yaxis.scaleanchor == "x"
    assert tuple(figure.layout.xaxis.range) == tuple(figure.layout.yaxis.range)


def test_a_name_with_markup_is_shown_as_text():
    assert "<b>" not in field_figure(FIELDS, ["<b>V1</b>"] * 3).data[0].name


def test_one_region_for_each_voxel():
    with pytest.raises(ShapeError, match="3 fields and 2 regions"):
        field_figure(FIELDS, ["V1", "V1"])


def test_controls_are_grey_and_the_ceiling_is_a_line():
    figure = region_score_figure({"model": {"V1": 0.5}, "untrained": {"V1": 0.4}}, {"V1": 0.8})
    assert [trace.name for trace in figure.data] == ["model", "untrained", "noise ceiling"]
    assert figure.data[0].marker.color != figure.data[1].marker.color
    assert list(figure.data[2].y) == [0.8]
    assert len(region_score_figure({"model": {"V1": 0.5}}).data) == 1
