import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mechinterp.errors import ShapeError
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


# two slices of two rows and three columns of cells, 4 × 8 × 2 voxels each
VOLUME = TokenGrid(2, 3, stride=(4, 8, 2), first_centre=(2, 4, 1), extent=(4, 8, 2), depth=2)


def test_cells_of_a_volume_are_counted_slice_by_slice():
    assert (VOLUME.shape, VOLUME.cells) == ((2, 2, 3), 12)
    assert VOLUME.centres()[[0, 1, 3, 6]].tolist() == [[2, 4, 1], [2, 4, 3], [2, 12, 1], [6, 4, 1]]
    assert VOLUME.boxes()[7].tolist() == [4, 0, 2, 8, 8, 4]
    assert VOLUME.cell_at((5, 9, 5.5)) == 11
    assert VOLUME.cell_at((8, 0, 0)) is None


def test_a_volumes_boxes_in_millimetres_by_hand():
    placement = Placement(scale=(0.5, 2, 1), offset=(10, -4, 0))
    boxes = VOLUME.boxes_mm(placement, spacing_mm=(3, 0.5, 0.25))
    # cell (1, 0, 1): slices 4..8 -> 12..14 -> 36..42 mm; rows 0..8 -> -4..12 -> -2..6 mm; columns 2..4 -> 0.5..1 mm
    assert boxes[7].tolist() == [36, -2, 0.5, 42, 6, 1]


def test_several_cells_see_a_point_where_their_boxes_overlap():
    grid = TokenGrid(1, 4, stride=(2, 2), first_centre=(1, 1), extent=(2, 6))
    assert grid.cells_seeing((1, 3.5)) == [0, 1, 2]
    assert PATCHES.cells_seeing((4, 8)) == [4]
    assert PATCHES.cells_seeing((8, 8)) == []


@settings(deadline=None)
@given(grid=st.one_of(grids, st.just(VOLUME)))
def test_a_grid_comes_back_from_json(grid):
    raw = grid.to_json()
    assert TokenGrid.from_json(raw) == grid
    assert ("depth" in raw) == (len(grid.shape) == 3)


def test_lengths_that_are_not_one_for_each_axis_are_named():
    with pytest.raises(ShapeError, match="a grid of 3 axes has a stride of 2 lengths: give one for each axis"):
        TokenGrid(2, 3, stride=(4, 8), first_centre=(2, 4, 1), extent=(4, 8, 2), depth=2)
    with pytest.raises(ShapeError, match="a grid of 3 axes was given a placement of 2: give one for each axis"):
        VOLUME.boxes_mm(Placement(), (1, 1, 1))
    with pytest.raises(ShapeError, match="a grid of 2 axes was given a spacing of 3: give one for each axis"):
        PATCHES.boxes_mm(Placement(), (1, 1, 1))
