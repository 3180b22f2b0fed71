"""The overlay's coordinates by hand, its scale bar, and that words stay words."""

import base64
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mechinterp.errors import ShapeError
from mechinterp.picture_figures import cells_in_mm, image_with_overlay, picture_url, scale_bar_mm
from mechinterp.token_grid import Placement, TokenGrid


@given(width=st.floats(1e-3, 1e4))
def test_the_scale_bar_is_a_round_number_that_fits(width):
    length = scale_bar_mm(width)
    assert 0.3 * width / 2.5 * (1 - 1e-6) < length <= 0.3 * width * (1 + 1e-6)
    assert f"{length:e}"[0] in "125"


def test_the_picture_lies_in_millimetres_with_rows_downwards():
    figure = image_with_overlay("images/a.png", (233, 197))
    picture = figure.layout.images[0]
    assert (picture.x, picture.y, picture.sizex, picture.sizey) == (0, 0, 197, 233)
    assert (picture.xanchor, picture.yanchor, picture.sizing) == ("left", "top", "stretch")
    assert figure.layout.xaxis.range == (0, 197)
    assert figure.layout.yaxis.range == (233, 0)
    assert figure.layout.yaxis.scaleanchor == "x"


def test_cells_are_painted_around_their_centres():
    values = np.arange(1.0, 7).reshape(2, 3)
    (heat,) = image_with_overlay("a.png", (20, 30), values, first_centre_mm=(2, 3), step_mm=(4, 5)).data
    assert (heat.y0, heat.dy, heat.x0, heat.dx) == (2, 4, 3, 5)
    np.testing.assert_array_equal(heat.z, values)
    assert (heat.zmin, heat.zmax) == (0, 6)


def test_a_cell_of_zero_shows_the_picture_unless_asked_otherwise():
    values = np.array([[0.0, 2.0]])
    (hidden,) = image_with_overlay("a.png", (1, 2), values).data
    (painted,) = image_with_overlay("a.png", (1, 2), values, paint_zero=True).data
    assert np.isnan(hidden.z[0, 0])
    assert painted.z[0, 0] == 0


def test_limits_are_as_given_and_never_empty():
    (given_limits,) = image_with_overlay("a.png", (1, 1), np.ones((1, 1)), limits=(-1, 3)).data
    (silent,) = image_with_overlay("a.png", (1, 1), np.zeros((1, 1))).data
    (negative,) = image_with_overlay("a.png", (1, 1), -np.ones((1, 1))).data
    assert (given_limits.zmin, given_limits.zmax) == (-1, 3)
    assert (silent.zmin, silent.zmax) == (0, 1)
    assert (negative.zmin, negative.zmax) == (-1, 0)


def test_the_figure_has_the_pictures_aspect_and_its_bar_and_letters():
    figure = image_with_overlay("a.png", (200, 100), width_px=300, orientation={"left": "R", "top": ""})
    assert (figure.layout.width, figure.layout.height) == (300, 600)
    bars = [s for s in figure.layout.shapes if s.name == "scale bar"]
    assert {s.x1 - s.x0 for s in bars} == {20}
    assert [a.text for a in figure.layout.annotations] == ["20 mm", "R"]


def test_tags_in_labels_stay_text():
    figure = image_with_overlay(
        "a.png", (1, 1), np.ones((1, 1)), label="<script>", unit="a<b", orientation={"top": "<b>"}
    )
    assert figure.data[0].colorbar.title.text == "&lt;script&gt; [a&lt;b]"
    assert figure.layout.annotations[-1].text == "&lt;b&gt;"


def test_a_grids_cells_land_where_its_boxes_do():
    grid = TokenGrid(rows=3, columns=4, stride=(16, 16), first_centre=(7.5, 8.5), extent=(100, 100))
    placement, spacing = Placement(scale=(0.9, 1.2), offset=(-3.0, 5.0)), (1.0, 0.5)
    first, step = cells_in_mm(grid, placement, spacing)
    tiles = grid.boxes_mm(placement, spacing, tiles=True)
    np.testing.assert_allclose(first, [(tiles[0, 0] + tiles[0, 2]) / 2, (tiles[0, 1] + tiles[0, 3]) / 2])
    np.testing.assert_allclose(step, [tiles[4, 0] - tiles[0, 0], tiles[1, 1] - tiles[0, 1]])


def test_pixels_become_a_png_with_the_window_applied():
    url = picture_url(np.array([[-5, 0], [50, 200]]), window=(0, 100))
    assert url.startswith("data:image/png;base64,")
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))))
    np.testing.assert_array_equal(pixels, [[0, 0], [128, 255]])


def test_a_constant_picture_is_black_and_colour_stays_colour():
    assert picture_url(np.ones((2, 2))).startswith("data:")
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(picture_url(np.eye(3)[None]).split(",")[1]))))
    assert pixels.shape == (1, 3, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size_mm": (0, 5)}, "size_mm is .0, 5.: give"),
        ({"size_mm": (5, 5), "values": np.ones(3)}, r"values have shape \(3,\)"),
        ({"size_mm": (5, 5), "values": np.ones((2, 2)), "step_mm": (1, 0)}, "step_mm is"),
    ],
)
def test_what_cannot_be_drawn_is_named(arguments, message):
    with pytest.raises(ShapeError, match=message):
        image_with_overlay("a.png", **arguments)
