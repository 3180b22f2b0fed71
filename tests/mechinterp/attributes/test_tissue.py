"""A slice drawn from known areas, shares and angles is measured so."""

import dataclasses
import math

import numpy as np
import pytest

from mechinterp.attributes.tissue import TissueSlice, tissue_attributes, tissue_by_intensity
from mechinterp.errors import AttributeTableError, ShapeError


def drawn(spacing=(1.0, 1.0), degrees=0.0, position=0.0, a=60.0, b=45.0, size=160.0, ventricle=12.0):
    """Draw an elliptic brain: white core, grey shell, a ventricle of pure CSF in the middle."""
    r = (np.arange(round(size / spacing[0])) + 0.5) * spacing[0] - size / 2
    c = (np.arange(round(size / spacing[1])) + 0.5) * spacing[1] - size / 2
    rows, columns = np.meshgrid(r, c, indexing="ij")
    angle = math.radians(degrees)
    along, across = rows * np.cos(angle) + columns * np.sin(angle), -rows * np.sin(angle) + columns * np.cos(angle)
    radius = np.hypot(along / a, across / b)
    mask, core, hole = radius <= 1, radius <= 0.8, np.hypot(rows, columns) <= ventricle
    white = (core & ~hole).astype(np.float32)
    grey = (mask & ~core).astype(np.float32)
    intensity = (0.9 * white + 0.6 * grey + 0.1 * (mask & hole)).astype(np.float32)
    return TissueSlice(intensity, mask, spacing, position, grey, white, midline_column=size / 2 / spacing[1])


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (2.0, 0.5), (0.5, 1.5)])
@pytest.mark.parametrize("degrees", [0.0, 20.0, -30.0, 90.0])
def test_areas_fractions_and_angle_are_those_drawn(spacing, degrees):
    table = tissue_attributes([drawn(spacing, degrees)])
    brain, ventricle = math.pi * 60 * 45, math.pi * 12**2
    expected = {
        "brain_area": brain,
        "grey_area": 0.36 * brain,
        "white_area": 0.64 * brain - ventricle,
        "csf_area": ventricle,
        "deep_csf_area": ventricle,
        "grey_fraction": 0.36,
        "white_fraction": 0.64 - ventricle / brain,
        "csf_fraction": ventricle / brain,
        "mean_intensity": (0.9 * (0.64 * brain - ventricle) + 0.6 * 0.36 * brain + 0.1 * ventricle) / brain,
        "eccentricity": math.sqrt(1 - (45 / 60) ** 2),
    }
    for name, value in expected.items():
        assert table.column(name)[0] == pytest.approx(value, rel=0.05), name
    assert table.column("orientation")[0] == pytest.approx(degrees, abs=2)


def test_every_attribute_has_a_unit_and_says_how_it_was_measured():
    table = tissue_attributes([drawn()], "test map")
    assert {a.name: a.unit for a in table} == {
        "slice_position": "mm",
        "distance_from_centre": "mm",
        "brain_area": "mm²",
        "grey_fraction": "1",
        "white_fraction": "1",
        "csf_fraction": "1",
        "grey_area": "mm²",
        "white_area": "mm²",
        "csf_area": "mm²",
        "deep_csf_area": "mm²",
        "mean_intensity": "1",
        "orientation": "°",
        "eccentricity": "1",
        "asymmetry": "1",
    }
    for name in ("csf_fraction", "csf_area", "deep_csf_area"):
        assert "derived as 1 − grey − white inside the brain mask, not measured" in table[name].measured
    assert "test map" in table["grey_fraction"].measured


def test_fractions_sum_to_one_where_maps_are_soft():
    soft = drawn()
    rng = np.random.default_rng(0)
    grey = rng.uniform(0, 0.6, soft.mask.shape).astype(np.float32)
    white = rng.uniform(0, 0.4, soft.mask.shape).astype(np.float32)
    table = tissue_attributes([dataclasses.replace(soft, grey=grey, white=white)])
    total = sum(table.column(f"{t}_fraction")[0] for t in ("grey", "white", "csf"))
    assert total == pytest.approx(1, abs=1e-6)
    assert soft.csf.max() == 1
    assert soft.csf[~soft.mask].max() == 0


def test_csf_near_the_outline_is_not_deep():
    brain = drawn(ventricle=0)
    rim = drawn(a=56, b=41, ventricle=0).mask
    table = tissue_attributes([dataclasses.replace(brain, grey=brain.grey * rim)])
    assert table.column("csf_area")[0] > 1000
    assert table.column("deep_csf_area")[0] == 0


def test_a_picture_s_edge_is_an_outline_too():
    full = np.ones((60, 60), dtype=np.float32)
    table = tissue_attributes([TissueSlice(full, full > 0, (1.0, 1.0), 0.0, 0 * full, 0 * full)])
    assert table.column("deep_csf_area")[0] == (60 - 2 * 24) ** 2


def test_the_centre_is_that_of_the_brain_s_volume():
    slices = [drawn(position=0.0, a=60, b=30), drawn(position=10.0, a=60, b=60)]
    table = tissue_attributes(slices)
    centre = 10 * 60 / 90  # areas are as 30 to 60
    np.testing.assert_allclose(table.column("distance_from_centre"), [centre, 10 - centre], rtol=0.01)
    np.testing.assert_array_equal(table.column("slice_position"), [0, 10])


def test_a_wide_brain_does_not_jump_between_plus_and_minus_ninety():
    angles = tissue_attributes([drawn(degrees=d) for d in (88, 90, 92, 94)]).column("orientation")
    np.testing.assert_allclose(angles, [88, 90, 92, 94], atol=0.7)
    assert tissue_attributes([drawn()]).column("orientation")[0] == 0  # exactly: ranks must not see rounding


def test_asymmetry_by_hand():
    mask = np.zeros((4, 8), dtype=bool)
    mask[:, 1:7] = True
    intensity = np.zeros((4, 8), dtype=np.float32)
    intensity[:, 1:4], intensity[:, 4:7] = 1.0, 0.5
    one = TissueSlice(intensity, mask, (1.0, 1.0), 0.0, midline_column=4.0)
    assert tissue_attributes([one]).column("asymmetry")[0] == pytest.approx(0.5 / 1.5)
    even = dataclasses.replace(one, intensity=np.ones((4, 8), dtype=np.float32))
    assert tissue_attributes([even]).column("asymmetry")[0] == 0
    # Around the centre of column 2, columns 5 and beyond have no partner and are left out.
    off = dataclasses.replace(one, midline_column=2.5)
    assert tissue_attributes([off]).column("asymmetry")[0] == pytest.approx(
        (0.5 + 0 + 0 + 0 + 0.5) / (0.5 + 2 + 2 + 2 + 0.5)
    )


def test_an_empty_slice_has_an_area_and_no_shape():
    empty = drawn(position=3.0)
    empty = dataclasses.replace(empty, mask=np.zeros_like(empty.mask))
    table = tissue_attributes([empty])
    assert table.column("brain_area")[0] == 0
    assert table.column("csf_area")[0] == 0
    for name in ("grey_fraction", "orientation", "eccentricity", "mean_intensity", "asymmetry"):
        assert np.isnan(table.column(name)[0])
    assert table.column("distance_from_centre")[0] == 0


def test_without_maps_or_midline_those_columns_are_left_out():
    bare = dataclasses.replace(drawn(), grey=None, white=None, midline_column=None)
    names = tissue_attributes([bare]).names
    assert bare.csf is None
    assert "grey_fraction" not in names
    assert "asymmetry" not in names
    assert "brain_area" in names


def test_otsu_finds_the_three_tissues_drawn():
    one = drawn()
    rng = np.random.default_rng(0)
    noisy = one.intensity + rng.normal(0, 0.03, one.intensity.shape).astype(np.float32)
    grey, white = tissue_by_intensity(noisy, one.mask)
    assert np.mean(grey[one.mask] == one.grey[one.mask]) > 0.999
    assert np.mean(white[one.mask] == one.white[one.mask]) > 0.999
    assert grey[~one.mask].max() == white[~one.mask].max() == 0


def test_what_does_not_fit_together_is_named():
    one = drawn()
    with pytest.raises(AttributeTableError, match="a map of one tissue alone"):
        dataclasses.replace(one, grey=None)
    with pytest.raises(ShapeError, match=r"mask has shape \(3, 3\), its slice \(160, 160\)"):
        dataclasses.replace(one, mask=np.ones((3, 3), dtype=bool))
    with pytest.raises(AttributeTableError, match="no slices"):
        tissue_attributes([])
    with pytest.raises(AttributeTableError, match="fewer than three intensities"):
        tissue_by_intensity(np.ones((4, 4), dtype=np.float32), np.ones((4, 4), dtype=bool))
