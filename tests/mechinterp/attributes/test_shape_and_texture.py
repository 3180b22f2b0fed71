"""Shapes and textures whose measures are known by hand, on pixels that are no squares."""

import numpy as np
import pytest

from mechinterp.attributes.shape import feret_of, fractal_dimension, shape_attributes
from mechinterp.attributes.texture import (
    contrast_of,
    cooccurrence,
    density_of,
    entropy_of,
    noise_of,
    sharpness_of,
    texture_attributes,
)
from mechinterp.attributes.token_level import token_attributes
from mechinterp.errors import ConfigError, ShapeError
from mechinterp.token_grid import Placement, TokenGrid

SPACINGS = [(1.0, 1.0), (0.5, 2.0), (2.0, 0.5)]


def grid_mm(extent_mm, spacing):
    shape = [round(e / s) for e, s in zip(extent_mm, spacing, strict=True)]
    rows, columns = np.indices(shape)
    return (rows + 0.5) * spacing[0], (columns + 0.5) * spacing[1]


def ellipse(spacing, semi_mm=(30.0, 18.0), centre_mm=(50.0, 60.0), extent_mm=(100.0, 120.0)):
    y, x = grid_mm(extent_mm, spacing)
    return ((y - centre_mm[0]) / semi_mm[0]) ** 2 + ((x - centre_mm[1]) / semi_mm[1]) ** 2 <= 1


@pytest.mark.parametrize("spacing", SPACINGS)
def test_an_ellipse_has_its_textbook_measures_in_millimetres(spacing):
    table = shape_attributes([ellipse(spacing)], [spacing], "lesion", landmarks_px={"fovea": [(0.0, 0.0)]})
    value = {name.removeprefix("lesion_"): table.column(name)[0] for name in table.names}
    assert value["area"] == pytest.approx(np.pi * 30 * 18, rel=0.01)
    assert value["perimeter"] == pytest.approx(153.2, rel=0.05)  # Ramanujan's formula
    assert value["largest_diameter"] == pytest.approx(60, abs=2)
    assert value["smallest_diameter"] == pytest.approx(36, abs=2)
    assert value["equivalent_diameter"] == pytest.approx(2 * np.sqrt(30 * 18), rel=0.01)
    assert value["eccentricity"] == pytest.approx(0.8, abs=0.01)
    assert value["solidity"] == pytest.approx(1, abs=0.05)
    assert value["below_fovea"] == pytest.approx(50, abs=0.3)
    assert value["right_of_fovea"] == pytest.approx(60, abs=0.3)
    assert value["distance_from_fovea"] == pytest.approx(np.hypot(50, 60), abs=0.4)
    assert table["lesion_area"].unit == "mm²"


@pytest.mark.parametrize("spacing", SPACINGS)
def test_a_rectangle_and_an_l_are_exact(spacing):
    y, x = grid_mm((40.0, 40.0), spacing)
    rectangle = (y > 10) & (y < 22) & (x > 4) & (x < 20)
    found = feret_of(rectangle, spacing)
    assert (found.largest_mm, found.smallest_mm, found.hull_mm2) == pytest.approx((20, 12, 192))
    corner = rectangle & ~((y > 16) & (x > 12))
    table = shape_attributes([corner], [spacing], "l")
    assert table.column("l_area")[0] == pytest.approx(144)
    assert table.column("l_solidity")[0] == pytest.approx(144 / 168)
    assert table.column("l_from_top")[0] == pytest.approx((96 * 13 + 48 * 19) / 144)


def test_an_absent_structure_has_no_area_and_no_shape():
    table = shape_attributes([np.zeros((8, 8), dtype=bool)], [(1.0, 1.0)], "lesion")
    assert table.column("lesion_area")[0] == 0
    assert np.isnan(np.delete(table.values[0], table.names.index("lesion_area"))).all()
    one = feret_of(np.eye(1, dtype=bool), (3.0, 4.0))
    assert (one.largest_mm, one.smallest_mm) == pytest.approx((5, 3))
    with pytest.raises(ShapeError, match="1 masks need as many spacings"):
        shape_attributes([np.ones((2, 2), dtype=bool)], [], "x")


@pytest.mark.parametrize("spacing", SPACINGS)
def test_fractal_dimensions_of_area_lines_and_a_carpet(spacing):
    y, x = grid_mm((256.0, 256.0), spacing)
    assert fractal_dimension(np.ones_like(y, dtype=bool), spacing) == pytest.approx(2, abs=0.02)
    assert fractal_dimension(np.abs(y - 101) < 1.01, spacing) == pytest.approx(1, abs=0.05)
    assert fractal_dimension(np.abs(x - 101) < 1.01, spacing) == pytest.approx(1, abs=0.05)
    assert np.isnan(fractal_dimension(np.zeros((64, 64), dtype=bool), spacing))
    assert np.isnan(fractal_dimension(np.ones((4, 4), dtype=bool), spacing))


def test_sierpinskis_carpet_has_its_dimension():
    carpet = np.ones((1, 1), dtype=bool)
    for _ in range(6):
        carpet = np.kron(np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]], dtype=bool), carpet)
    assert fractal_dimension(carpet, (1.0, 1.0)) == pytest.approx(np.log(8) / np.log(3), abs=0.05)


@pytest.mark.parametrize("spacing", SPACINGS)
def test_contrast_is_that_to_a_ring_as_wide_in_all_directions(spacing):
    y, x = grid_mm((60.0, 60.0), spacing)
    inside = (abs(y - 30) < 8) & (abs(x - 30) < 8)
    near = (abs(y - 30) < 12) & (abs(x - 30) < 12)
    image = np.where(inside, 150.0, np.where(near, 100.0, 0.0))
    difference, ratio, to_noise = contrast_of(image, inside, spacing, ring_mm=2.0)
    assert (difference, ratio) == pytest.approx((50.0, 0.5))
    assert np.isnan(to_noise)  # the ring does not vary
    noisy = image + np.where((np.indices(image.shape).sum(0) % 2) == 0, 5.0, -5.0)
    assert contrast_of(noisy, inside, spacing, ring_mm=2.0)[2] == pytest.approx(10, rel=0.05)
    assert np.isnan(contrast_of(image, np.zeros_like(inside), spacing)).all()
    assert np.isnan(contrast_of(image, inside, spacing, within=np.zeros_like(inside))).all()


def test_density_is_the_share_that_is_covered():
    whole = np.zeros((10, 10), dtype=bool)
    whole[:, :5] = True
    part = np.zeros((10, 10), dtype=bool)
    part[:5] = True
    assert density_of(part, whole) == 0.5
    assert np.isnan(density_of(part, ~np.ones_like(whole)))


@pytest.mark.parametrize("spacing", SPACINGS)
def test_stripes_repeat_at_their_distance_in_millimetres_whatever_the_pixels(spacing):
    _, x = grid_mm((64.0, 64.0), spacing)
    image = ((x // 4) % 2).astype(float)  # stripes along the columns, 4 mm wide
    everywhere = np.ones_like(image, dtype=bool)
    found = cooccurrence(image, everywhere, spacing, distance_mm=4, limits=(0, 1))
    differ = []
    for across_mm in (4, 4 / np.sqrt(2), 0, -4 / np.sqrt(2)):
        step = abs(round(across_mm / spacing[1]))
        differ.append(np.mean(image[:, step:] != image[:, : image.shape[1] - step]))
    assert differ[0] == 1  # 4 mm across, every pair differs; 4 mm down, none does
    assert found["contrast"] == pytest.approx(31**2 * np.mean(differ))
    flat = cooccurrence(np.zeros_like(image), everywhere, spacing, distance_mm=4, limits=(0, 1))
    assert (flat["contrast"], flat["homogeneity"], flat["energy"]) == pytest.approx((0, 1, 1))


def test_cooccurrence_equals_scikit_image_and_looks_at_the_mask_alone():
    from skimage.feature import graycomatrix, graycoprops

    rng = np.random.default_rng(0)
    image = rng.random((20, 20))
    everywhere = np.ones((20, 20), dtype=bool)
    found = cooccurrence(image, everywhere, (1.0, 1.0), distance_mm=1, limits=(0, 1))
    levels = (image * 32).astype(np.uint8)
    counts = graycomatrix(levels, [1], [0, np.pi / 2], 32, symmetric=True)
    diagonal = graycomatrix(levels, [np.sqrt(2)], [np.pi / 4, 3 * np.pi / 4], 32, symmetric=True)
    for name in ("contrast", "energy"):
        expected = np.mean([*graycoprops(counts, name)[0], *graycoprops(diagonal, name)[0]])
        assert found[name] == pytest.approx(expected)
    left = everywhere.copy()
    left[:, 10:] = False
    other = np.where(left, image, rng.random((20, 20)))
    assert cooccurrence(other, left, (1.0, 1.0), distance_mm=1, limits=(0, 1)) == cooccurrence(
        image, left, (1.0, 1.0), distance_mm=1, limits=(0, 1)
    )
    with pytest.raises(ConfigError, match="the limits must rise"):
        cooccurrence(image, left, (1.0, 1.0), distance_mm=1, limits=(1, 1))


@pytest.mark.parametrize("spacing", SPACINGS)
def test_a_ramp_is_as_steep_as_it_is_per_millimetre_and_has_no_noise(spacing):
    y, x = grid_mm((40.0, 40.0), spacing)
    ramp = 3 * y + 4 * x
    everywhere = np.ones_like(ramp, dtype=bool)
    assert sharpness_of(ramp, everywhere, spacing) == pytest.approx(5)
    inner = everywhere.copy()
    inner[[0, -1]] = inner[:, [0, -1]] = False
    assert noise_of(ramp, inner) == pytest.approx(0, abs=1e-9)


def test_noise_is_found_beside_structure():
    rng = np.random.default_rng(1)
    rows, columns = np.indices((200, 200))
    image = 0.3 * rows + 20 * np.sin(columns / 40) + rng.normal(0, 2.5, (200, 200))
    assert noise_of(image, np.ones((200, 200), dtype=bool)) == pytest.approx(2.5, rel=0.05)
    assert np.isnan(noise_of(image, np.zeros((200, 200), dtype=bool)))


def test_entropy_is_that_of_the_bins():
    assert entropy_of(np.linspace(0, 1, 6400, endpoint=False), (0.0, 1.0)) == pytest.approx(6)
    assert entropy_of(np.full(10, 0.5), (0.0, 1.0)) == 0
    assert np.isnan(entropy_of(np.empty(0), (0.0, 1.0)))


def test_textures_come_as_a_table_in_the_images_unit():
    rng = np.random.default_rng(2)
    images = [rng.normal(40, 10, (64, 48)) for _ in range(2)]
    masks = [np.zeros((64, 48), dtype=bool), np.zeros((64, 48), dtype=bool)]
    masks[0][10:50, 10:40] = True
    table = texture_attributes(images, masks, [(0.7, 0.9)] * 2, "liver", unit="HU", limits=(-100, 200))
    assert table["liver_contrast"].unit == "HU"
    assert table["liver_sharpness"].unit == "HU/mm"
    assert table.column("liver_mean")[0] == pytest.approx(40, abs=1)
    assert table.column("liver_noise")[0] == pytest.approx(10, rel=0.1)
    assert np.isfinite(table.values[0]).all()
    assert np.isnan(table.values[1]).all()
    with pytest.raises(ShapeError, match="2 images, 1 masks"):
        texture_attributes(images, masks[:1], [(1.0, 1.0)] * 2, "liver")
    with pytest.raises(ShapeError, match="use one grid"):
        texture_attributes([np.ones((3, 3))], [masks[0]], [(1.0, 1.0)], "liver")


def test_tokens_share_out_a_structure_and_lose_none_of_it():
    coverage = np.zeros((30, 50))
    coverage[5:20, 7:33] = 1
    grid = TokenGrid(4, 4, (8.0, 8.0), (4.0, 4.0), (8.0, 8.0))
    placement = Placement((30 / 32, 50 / 32))
    table = token_attributes({"lesion": coverage}, grid, placement, (0.5, 2.0), image=np.full((30, 50), 7.0), unit="HU")
    assert {a.level for a in table} == {"token"}
    assert len(table) == 16
    assert table.column("lesion_area").sum() == pytest.approx(15 * 26 * 0.5 * 2.0)
    np.testing.assert_allclose(table.column("intensity"), 7)
    # the second cell of the first row: rows 0 to 7.5, columns 12.5 to 25; the lesion fills rows 5 to 7.5 of it
    assert table.column("lesion_share")[1] == pytest.approx(2.5 / 7.5)


def test_a_tile_in_the_padding_sees_nothing_and_one_on_the_edge_its_part():
    grid = TokenGrid(1, 3, (10.0, 10.0), (5.0, 5.0), (10.0, 10.0))
    image = np.tile(np.arange(10.0), (10, 1))
    table = token_attributes({}, grid, Placement(offset=(0.0, -5.0)), (1.0, 1.0), image=image)
    np.testing.assert_allclose(table.column("intensity"), [2.0, 7.0, np.nan])
    with pytest.raises(ShapeError, match="planes of shapes"):
        token_attributes({"a": np.ones((3, 3)), "b": np.ones((4, 4))}, grid, Placement(), (1.0, 1.0))
