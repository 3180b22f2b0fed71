"""Textures, curves and letters against values known by hand."""

from itertools import pairwise

import numpy as np
import pytest

from mechinterp.errors import ConfigError
from mechinterp.phantoms.curves import Curve, covered, smooth_line
from mechinterp.phantoms.lettering import letters, text_boxes, text_width_mm
from mechinterp.phantoms.random_streams import stream
from mechinterp.phantoms.textures import power_law, ridges, sampled
from mechinterp.phantoms.view import View


@pytest.mark.parametrize("beta", [1.0, 2.0, 3.0])
def test_power_falls_with_its_exponent(beta):
    field = power_law(stream("texture"), 256, beta)
    assert field.mean() == pytest.approx(0, abs=1e-4)
    assert field.std() == pytest.approx(1, abs=1e-4)
    power = np.abs(np.fft.fft2(field)) ** 2
    frequency = np.hypot(*np.meshgrid(*(np.fft.fftfreq(256) * 256,) * 2))
    bins = np.geomspace(4, 100, 12)
    means = [power[(frequency >= a) & (frequency < b)].mean() for a, b in pairwise(bins)]
    slope = np.polyfit(np.log(np.sqrt(bins[1:] * bins[:-1])), np.log(means), 1)[0]
    assert -slope == pytest.approx(beta, abs=0.15)


def test_ridges_are_brightest_where_the_field_crosses_zero():
    assert ridges(np.array([0.0, 1.0, -1.0]), 2.0) == pytest.approx([1, np.exp(-2), np.exp(-2)])


def test_a_lattice_repeats():
    lattice = power_law(stream("texture"), 32, 2.0)
    rows, columns = np.meshgrid(np.linspace(0, 1, 9), np.linspace(0, 1, 9), indexing="ij")
    np.testing.assert_allclose(sampled(lattice, rows, columns), sampled(lattice, rows + 2, columns - 1), atol=1e-5)
    assert sampled(lattice, np.array([[4 / 32]]), np.array([[7 / 32]]))[0, 0] == pytest.approx(lattice[4, 7])


def test_the_depth_under_a_circle_is_radius_less_distance():
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    # on its right side the line runs downwards, so outwards is to the right
    circle = smooth_line(np.stack([20 * np.sin(angle), 20 * np.cos(angle)], -1), 2000, closed=True)
    curve = Curve.through(circle)
    places = np.array([(0.0, 0.0), (0.0, 15.0), (10.0, 10.0), (0.0, 25.0), (30.0, 40.0)])
    assert curve.depth_of(places) == pytest.approx(20 - np.linalg.norm(places, axis=1), abs=0.03)
    view = View(101, 90, 0.7)
    drawn = covered(curve.depth_mm(view), view)
    assert drawn.sum() * 0.7**2 == pytest.approx(np.pi * 400, rel=0.003)


def test_a_mirrored_curve_stands_on_both_sides():
    line = np.stack([np.linspace(-50, 50, 50), np.full(50, 10.0)], -1)
    depth = Curve.through(line).depth_mm(View(40, 60, 1.0), mirrored=True)
    assert depth[20, 45] == pytest.approx(10 - 15.5, abs=0.01)
    assert depth[20, 35] == pytest.approx(10 - 5.5, abs=0.01)
    np.testing.assert_allclose(depth[20], depth[20, ::-1], atol=1e-6)


def test_letters_cover_the_area_of_their_dots():
    view = View(64, 64, 0.37)
    strokes = text_boxes("L", 2.0, 3.0, 1.1)
    # an L of 5 × 7 dots has 6 + 5
    assert letters(view, strokes).sum() * 0.37**2 == pytest.approx(11 * 1.1**2)
    assert text_width_mm("LL", 1.0) == 11.0
    assert letters(view, text_boxes(" ", 0.0, 0.0, 1.0)).sum() == 0
    with pytest.raises(ConfigError, match="'€' cannot be burnt in"):
        text_boxes("€", 0.0, 0.0, 1.0)
