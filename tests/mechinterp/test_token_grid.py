import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mechinterp.token_grid import Placement, TokenGrid

# two rows and three columns of patches of 4 × 8 pixels
PATCHES = TokenGrid(rows=2, columns=3, stride=(4, 8), first_centre=(2, 4), extent=(4, 8))

pixels = st.floats(0.25, 64)
grids = st.builds(
    TokenGrid,
    rows=st.integers(1, 9),
    columns=st.integers(1, 9),
    stride=st.tuples(pixels, pixels),
    first_centre=st.tuples(st.floats(-20, 20), st.floats(-20, 20)),
    extent=st.tuples(pixels, pixels),
)


def test_cells_are_counted_row_by_row():
    assert PATCHES.cells == 6
    assert PATCHES.centres().tolist() == [[2, 4], [2, 12], [2, 20], [6, 4], [6, 12], [6, 20]]


def test_patches_tile_the_input_without_gap_or_overlap():
    painted = np.zeros((8, 24))
    for top, left, bottom, right in PATCHES.boxes().astype(int):
        painted[top:bottom, left:right] += 1
    assert (painted == 1).all()
    assert (PATCHES.boxes() == PATCHES.tiles()).all()


def test_a_receptive_field_reaches_beyond_its_tile_and_the_image():
    grid = TokenGrid(rows=2, columns=2, stride=(2, 2), first_centre=(0.5, 0.5), extent=(7, 5))
    assert grid.boxes()[0].tolist() == [-3, -2, 4, 3]
    assert grid.tiles()[0].tolist() == [-0.5, -0.5, 1.5, 1.5]


def test_millimetres_by_hand_with_anisotropic_spacing():
    # the input is a crop of the image, three image rows and two columns per pixel, its corner at (30, 10)
    placement = Placement(scale=(3, 2), offset=(30, 10))
    boxes = PATCHES.boxes_mm(placement, spacing_mm=(0.5, 2.0))
    # patch (1, 2): input rows 4..8, columns 16..24 -> image rows 42..54, columns 42..58 -> times the spacing
    assert boxes[5].tolist() == [21, 84, 27, 116]
    assert boxes.shape == (6, 4)


def test_tiles_in_millimetres_differ_from_what_the_cells_see():
    grid = TokenGrid(rows=1, columns=1, stride=(4, 4), first_centre=(2, 2), extent=(10, 20))
    assert grid.boxes_mm(Placement(), (1.0, 0.5))[0].tolist() == [-3, -4, 7, 6]
    assert grid.boxes_mm(Placement(), (1.0, 0.5), tiles=True)[0].tolist() == [0, 0, 4, 2]


@settings(deadline=None)
@given(grid=grids, spacing=st.tuples(pixels, pixels), scale=st.tuples(pixels, pixels))
def test_a_cells_area_in_square_millimetres_is_its_pixels_times_theirs(grid, spacing, scale):
    boxes = grid.boxes_mm(Placement(scale=scale, offset=(3, -7)), spacing)
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    expected = np.prod(grid.extent) * np.prod(scale) * np.prod(spacing)
    assert area == pytest.approx(np.full(grid.cells, expected), rel=1e-6)


@settings(deadline=None)
@given(grid=grids)
def test_every_centre_is_found_in_its_own_cell(grid):
    for cell, centre in enumerate(grid.centres().tolist()):
        assert grid.cell_at(tuple(centre)) == cell


@settings(deadline=None)
@given(grid=grids)
def test_no_point_outside_has_a_cell(grid):
    tiles = grid.tiles()
    top, left = tiles[:, :2].min(0)
    bottom, right = tiles[:, 2:].max(0)
    for point in [
        (top - 1, left + 1e-3),
        (top + 1e-3, left - 1),
        (bottom + 1, right - 1e-3),
        (bottom - 1e-3, right + 1),
    ]:
        assert grid.cell_at(point) is None


@settings(deadline=None)
@given(
    scale=st.tuples(pixels, pixels),
    offset=st.tuples(st.floats(-100, 100), st.floats(-100, 100)),
    point=st.tuples(st.floats(-500, 500), st.floats(-500, 500)),
)
def test_placement_there_and_back_is_the_same_point(scale, offset, point):
    placement = Placement(scale, offset)
    assert placement.to_input(placement.to_image(np.array([point])))[0] == pytest.approx(point, abs=1e-6)
