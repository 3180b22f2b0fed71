"""Ellipses of known size and angle are measured so, whatever the pixels' proportions."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.measure import perimeter_crofton

from mechinterp.attributes.measuring import area_mm2, ellipse_of, perimeter_mm


def ellipse(a, b, degrees, spacing, size=120.0, shift=(0.0, 0.0)):
    """Draw an ellipse of half axes a ≥ b in mm, its major axis turned counter-clockwise from the vertical."""
    r = (np.arange(round(size / spacing[0])) + 0.5) * spacing[0] - size / 2 - shift[0]
    c = (np.arange(round(size / spacing[1])) + 0.5) * spacing[1] - size / 2 - shift[1]
    rows, columns = np.meshgrid(r, c, indexing="ij")
    angle = math.radians(degrees)
    along = rows * math.cos(angle) + columns * math.sin(angle)  # down and to the right: the lower end turned ↺
    across = -rows * math.sin(angle) + columns * math.cos(angle)
    return (along / a) ** 2 + (across / b) ** 2 <= 1


def test_area_is_pixels_times_their_area():
    assert area_mm2(np.eye(4, dtype=bool), (3.0, 0.5)) == 4 * 1.5


@settings(max_examples=40, deadline=None)
@given(
    a=st.floats(25, 50),
    ratio=st.floats(0.3, 0.85),
    degrees=st.floats(-89, 89),
    spacing=st.tuples(st.floats(0.4, 2), st.floats(0.4, 2)),
)
def test_an_ellipse_is_measured_as_it_was_drawn(a, ratio, degrees, spacing):
    mask = ellipse(a, a * ratio, degrees, spacing)
    found = ellipse_of(mask, spacing)
    assert area_mm2(mask, spacing) == pytest.approx(math.pi * a * a * ratio, rel=0.03)
    assert found.major_mm == pytest.approx(2 * a, rel=0.03)
    assert found.minor_mm == pytest.approx(2 * a * ratio, rel=0.05)
    assert found.eccentricity == pytest.approx(math.sqrt(1 - ratio**2), abs=0.04)
    wrapped = (found.orientation_deg - degrees + 90) % 180 - 90
    assert abs(wrapped) < 5


@settings(max_examples=40, deadline=None)
@given(
    a=st.floats(25, 50),
    ratio=st.floats(0.4, 1),
    degrees=st.floats(-90, 90),
    spacing=st.tuples(st.floats(0.4, 1.2), st.floats(0.4, 1.2)),
)
def test_the_perimeter_of_an_ellipse_is_ramanujan_s(a, ratio, degrees, spacing):
    b = a * ratio
    h = ((a - b) / (a + b)) ** 2
    exact = math.pi * (a + b) * (1 + 3 * h / (10 + math.sqrt(4 - 3 * h)))
    assert perimeter_mm(ellipse(a, b, degrees, spacing), spacing) == pytest.approx(exact, rel=0.05)


def test_the_perimeter_is_that_of_scikit_image_on_square_pixels():
    mask = ellipse(40, 20, 30, (0.5, 0.5))
    assert perimeter_mm(mask, (0.5, 0.5)) == pytest.approx(0.5 * perimeter_crofton(mask, directions=4), rel=0.02)


def test_a_hole_and_the_picture_s_edge_count_as_outline():
    ring = ellipse(40, 40, 0, (0.5, 0.5)) & ~ellipse(20, 20, 0, (0.5, 0.5))
    assert perimeter_mm(ring, (0.5, 0.5)) == pytest.approx(2 * math.pi * 60, rel=0.02)
    assert perimeter_mm(np.ones((200, 100), dtype=bool), (1.0, 2.0)) == pytest.approx(800, rel=0.06)


def test_the_centre_counts_from_the_corner():
    mask = np.zeros((10, 10), dtype=bool)
    mask[4, 6] = True
    assert ellipse_of(mask, (2.0, 1.0)).centre_mm == (9.0, 6.5)
    shifted = ellipse_of(ellipse(20, 10, 0, (1.0, 1.0), shift=(5, -7)), (1.0, 1.0))
    assert shifted.centre_mm == pytest.approx((65, 53), abs=0.1)


def test_an_empty_mask_has_no_shape():
    assert ellipse_of(np.zeros((3, 3), dtype=bool), (1.0, 1.0)) is None
    assert perimeter_mm(np.zeros((3, 3), dtype=bool), (1.0, 1.0)) == 0
