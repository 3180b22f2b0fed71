import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mechinterp.errors import ConfigError
from mechinterp.phantoms.coverage import Blobs, blobs_of_area, boxes, disc_of_pixels, ellipse, tubes
from mechinterp.phantoms.view import View


def blobs(centres, sizes=None, wave=0.0, elongation=1.0, direction=0.3):
    n = len(centres)
    return Blobs(
        np.asarray(centres, dtype=float).reshape(n, 2),
        np.ones(n) if sizes is None else np.asarray(sizes, dtype=float),
        np.full((n, 3), wave),
        np.tile([0.3, 1.2, 2.5], (n, 1)),
        np.full(n, elongation),
        np.full(n, direction),
    )


def supersampled(view, inside, factor=12):
    """Share of each pixel's sub-samples that are inside: slow and obvious."""
    fine = (np.arange(view.height * factor) + 0.5) / factor, (np.arange(view.width * factor) + 0.5) / factor
    points = view.to_mm(np.stack(np.meshgrid(*fine, indexing="ij"), -1))
    return inside(points).reshape(view.height, factor, view.width, factor).mean((1, 3))


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.tuples(st.floats(-2, 2), st.floats(-2, 2)), min_size=1, max_size=8),
    st.floats(0.001, 8),
    st.floats(0, 0.15),
    st.floats(1, 3),
    st.integers(24, 70),
)
def test_the_union_covers_just_the_area_asked_for(centres, area, wave, elongation, size):
    view = View(size, size, 6.0 / size)
    covered = blobs_of_area(view, blobs(centres, wave=wave, elongation=elongation), area, np.ones((size, size)))
    assert covered.sum() * view.spacing_mm**2 == pytest.approx(area, rel=1e-5)
    assert covered.min() >= 0
    assert covered.max() <= 1


@settings(deadline=None, max_examples=30)
@given(st.floats(0.01, 3), st.floats(1.01, 3))
def test_a_smaller_area_lies_inside_a_larger_one(area, factor):
    view, drawn = View(48, 48, 0.125), blobs([(0, 0.2), (0.5, 0.4), (-1, -1)], wave=0.1, elongation=1.7)
    small, large = (blobs_of_area(view, drawn, a, np.ones((48, 48))) for a in (area, area * factor))
    assert (small <= large + 1e-9).all()


def test_what_is_cut_off_or_overlaps_is_made_up_for():
    view = View(40, 40, 0.1)
    within = (view.grid_mm[..., 1] < 0).astype(float)
    covered = blobs_of_area(view, blobs([(0, 0), (0.05, 0)]), 1.0, within)
    assert covered.sum() * 0.01 == pytest.approx(1.0, rel=1e-5)
    assert covered[within == 0].max() == 0


def test_a_blob_equals_its_supersampled_twin():
    view = View(40, 40, 0.1, rotation_deg=20, mirrored=True)
    covered = blobs_of_area(view, blobs([(0.3, -0.2)]), 1.5, np.ones((40, 40)))
    radius = np.sqrt(1.5 / np.pi)
    twin = supersampled(view, lambda p: np.linalg.norm(p - (0.3, -0.2), axis=-1) < radius)
    assert np.abs(covered - twin).max() < 0.12
    assert np.abs(covered - twin).mean() < 0.002


def test_no_area_and_no_blob_draw_nothing():
    view = View(40, 40, 0.1)
    assert blobs_of_area(view, blobs([(0, 0)]), 0.0, np.ones((40, 40))).sum() == 0
    assert blobs_of_area(view, blobs(np.zeros((0, 2))), 1.0, np.ones((40, 40))).sum() == 0


def test_too_large_an_area_says_how_much_room_there_is():
    view = View(40, 40, 0.1)
    with pytest.raises(ConfigError, match=r"17 mm² does not fit into the 16 mm² that can be seen"):
        blobs_of_area(view, blobs([(0, 0)]), 17.0, np.ones((40, 40)))


def test_blobs_outside_the_image_grow_until_they_are_seen():
    view = View(40, 40, 0.1)
    assert blobs_of_area(view, blobs([(9.0, 0)]), 0.5, np.ones((40, 40))).sum() * 0.01 == pytest.approx(0.5, rel=1e-5)


@settings(deadline=None, max_examples=30)
@given(st.floats(0.3, 6), st.floats(0.8, 1.3), st.floats(-1, 1), st.floats(-1, 1))
def test_an_ellipse_has_its_area_and_equals_its_supersampled_twin(area, aspect, row, column):
    view = View(50, 50, 0.1)
    covered = ellipse(view, (row, column), area, aspect, np.ones((50, 50)))
    assert covered.sum() * 0.01 == pytest.approx(area, rel=1e-5)
    width = np.sqrt(area / (np.pi * aspect))
    twin = supersampled(view, lambda p: np.square((p - (row, column)) / (aspect * width, width)).sum(-1) < 1, 6)
    assert np.abs(covered - twin).max() < 0.2


def test_the_field_of_view_is_a_disc():
    view = View(60, 60, 0.2)
    assert disc_of_pixels(view, 5.0).sum() * 0.04 == pytest.approx(np.pi * 25, rel=1e-3)


@given(st.floats(0, 3), st.floats(0, 3), st.floats(0.01, 2), st.floats(0.01, 2))
def test_a_box_covers_its_area_exactly(top, left, height, width):
    view = View(50, 50, 0.1)
    assert boxes(view, np.array([[top, left, top + height, left + width]])).sum() * 0.01 == pytest.approx(
        height * width
    )


def test_a_tube_equals_its_supersampled_twin_and_thin_ones_keep_their_area():
    view = View(30, 30, 0.1)
    for radius, tolerance in ((0.25, 0.12), (0.02, 0.12)):
        start, end = np.array([[-1.0, -0.9]]), np.array([[0.8, 0.7]])
        points = np.linspace(start[0], end[0], 21)
        covered, (weighted,) = tubes(view, points[:-1], points[1:], np.full(20, radius), np.full((20, 1), 0.5))

        def inside(p, start=start, end=end, radius=radius):
            axis = (end - start)[0]
            t = np.clip((p - start[0]) @ axis / (axis @ axis), 0, 1)
            return np.linalg.norm(p - (start[0] + t[..., None] * axis), axis=-1) < radius

        twin = supersampled(view, inside)
        assert np.abs(covered - twin).mean() < 0.01
        assert covered.sum() == pytest.approx(twin.sum(), rel=tolerance)
        assert weighted == pytest.approx(0.5 * covered, abs=1e-6)


def test_tubes_outside_the_image_are_not_drawn():
    far = np.array([[50.0, 50.0]])
    covered, _ = tubes(View(20, 20, 0.1), far, far + 0.1, np.array([0.05]), np.ones((1, 1)))
    assert covered.sum() == 0
