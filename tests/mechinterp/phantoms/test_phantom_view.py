import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechinterp.phantoms.view import View

views = st.builds(
    View,
    height=st.integers(10, 60),
    width=st.integers(10, 60),
    spacing_mm=st.floats(0.02, 0.5),
    centre_mm=st.tuples(st.floats(-3, 3), st.floats(-3, 3)),
    mirrored=st.booleans(),
    rotation_deg=st.floats(-180, 180),
)


@given(views, st.tuples(st.floats(-9, 9), st.floats(-9, 9)))
def test_there_and_back_again(view, point):
    assert view.to_mm(view.to_pixels(np.array(point))) == pytest.approx(np.array(point), abs=1e-9)


@given(views, st.tuples(st.floats(-9, 9), st.floats(-9, 9)), st.tuples(st.floats(-9, 9), st.floats(-9, 9)))
def test_distances_shrink_by_the_spacing_alone(view, a, b):
    millimetres = np.linalg.norm(np.subtract(a, b))
    pixels = np.linalg.norm(view.to_pixels(np.array(a)) - view.to_pixels(np.array(b)))
    assert pixels * view.spacing_mm == pytest.approx(millimetres, abs=1e-9)


def test_known_by_hand():
    view = View(10, 20, spacing_mm=0.5, centre_mm=(1.0, 2.0))
    assert view.to_pixels(np.array([1.0, 2.0])).tolist() == [5.0, 10.0]
    assert view.to_pixels(np.array([1.5, 3.0])).tolist() == [6.0, 12.0]
    assert view.grid_mm[0, 0].tolist() == [1.0 - 4.5 * 0.5, 2.0 - 9.5 * 0.5]
    mirrored = View(10, 20, spacing_mm=0.5, centre_mm=(1.0, 2.0), mirrored=True)
    assert mirrored.to_pixels(np.array([1.5, 3.0])).tolist() == [6.0, 8.0]


def test_radius_is_measured_from_the_middle():
    assert View(4, 4, 1.0).radius_px[0, 0] == pytest.approx(1.5 * np.sqrt(2))
