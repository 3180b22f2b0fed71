"""A chest radiograph shows what its parameters say, in millimetres."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mechinterp.errors import ConfigError
from mechinterp.phantoms.chest.anatomy import angle_row_mm
from mechinterp.phantoms.chest.kind import chest_attributes
from mechinterp.phantoms.chest.parameters import FINDINGS, ChestParameters
from mechinterp.phantoms.chest.renderer import ChestRenderer
from mechinterp.phantoms.random_streams import Identity

RENDERER = ChestRenderer(160)


def width_mm(image, structure):
    return np.ptp(np.flatnonzero(image.mask(structure).any(0))) * image.spacing_mm[1] + image.spacing_mm[1]


@settings(deadline=None, max_examples=12)
@given(st.floats(0.34, 0.68), st.floats(240, 310), st.integers(0, 20))
def test_the_heart_over_the_thorax_is_the_cardiothoracic_ratio(ratio, thorax, patient):
    image = RENDERER(ChestParameters(cardiothoracic_ratio=ratio, thorax_width_mm=thorax), Identity(0, patient))
    pixel = image.spacing_mm[1]
    assert width_mm(image, "heart") == pytest.approx(ratio * thorax, abs=1.5 * pixel)
    assert width_mm(image, "lungs") == pytest.approx(thorax, abs=2.5 * pixel)


@pytest.mark.parametrize("side", ["right", "left"])
def test_fluid_reaches_its_level_at_the_wall_and_takes_the_lungs_place(side):
    dry = RENDERER(ChestParameters())
    for level in (20.0, 60.0, 100.0):
        wet = dry.counterfactual(effusion_level_mm=level, effusion_side=side)
        fluid = wet.mask("effusion")
        assert fluid[:, :80].any() == (side == "right")
        assert fluid[:, 80:].any() == (side == "left")
        assert not (fluid & wet.mask("lungs")).any()
        total = wet.coverage["effusion"] + wet.coverage["lungs"]
        np.testing.assert_allclose(total, dry.coverage["lungs"], atol=1e-5)
        angle = angle_row_mm(wet.parameters, wet.identity, side)
        top, bottom = np.flatnonzero(fluid.any(1))[[0, -1]]
        assert top == pytest.approx(wet.view.to_pixels((angle - level, 0.0))[0], abs=2)
        # the angle's tip is a wedge thinner than a pixel
        assert -4 <= bottom - wet.view.to_pixels((angle, 0.0))[0] <= 1
        # it is highest at the wall
        columns = np.flatnonzero(fluid[top])
        lung = np.flatnonzero((wet.mask(f"{side}_lung") | fluid)[top])
        assert (columns[0] - lung[0] <= 1) if side == "right" else (lung[-1] - columns[-1] <= 1)


@settings(deadline=None, max_examples=12)
@given(st.floats(20, 200), st.floats(40, 140), st.sampled_from(["right", "left"]), st.floats(8, 30))
def test_a_nodule_lies_in_its_lung(below, from_midline, side, diameter):
    p = ChestParameters(
        nodule_diameter_mm=diameter, nodule_below_apex_mm=below, nodule_from_midline_mm=from_midline, nodule_side=side
    )
    image = RENDERER(p)
    _, column = image.centroid_mm("nodule")
    assert (column < 0) == (side == "right")
    within = image.mask(f"{side}_lung") | image.mask("heart") | image.mask("mediastinum")
    assert within[image.mask("nodule")].mean() > 0.9


def test_a_nodule_adds_its_contrast_at_its_middle():
    clear = RENDERER(ChestParameters(noise=0.0, blur_mm=0.0, scatter=0.0, nodule_below_apex_mm=100.0))
    ill = clear.counterfactual(nodule_diameter_mm=25.0, nodule_contrast=0.2)
    assert (ill.pixels - clear.pixels).max() == pytest.approx(0.2, abs=0.01)


def test_the_patients_left_is_at_the_images_right():
    image = RENDERER(ChestParameters())
    half = image.pixels.shape[1] // 2
    heart = image.mask("heart")
    assert heart[:, half:].sum() > heart[:, :half].sum()
    assert np.flatnonzero(image.mask("side_tag").any(0)).min() > 0.8 * image.pixels.shape[1]
    assert image.coverage["right_lung"][:, half + 2 :].sum() == 0


def test_higher_voltage_and_less_mineral_make_bones_fainter():
    image = RENDERER(ChestParameters(noise=0.0, blur_mm=0.0))

    def shown(**changes):
        dense, none = (image.counterfactual(**changes, bone_density=d) for d in (1.4, 0.6))
        return float(np.abs(dense.pixels - none.pixels).mean())

    assert shown(kilovolts=70.0) > shown(kilovolts=110.0) > shown(kilovolts=140.0) > 0


def test_deep_breath_lowers_the_diaphragm():
    image = RENDERER(ChestParameters())
    assert image.counterfactual(inspiration_mm=15.0).area_mm2("lungs") > 1.05 * image.area_mm2("lungs")


def test_a_pacemaker_is_bright_metal_with_leads():
    paced = RENDERER(ChestParameters(pacemaker=1, noise=0.0))
    can = paced.coverage["pacemaker"] > 0.99
    assert 900 < paced.area_mm2("pacemaker") < 2000
    assert np.median(paced.pixels[can]) > 0.75
    assert paced.area_mm2("leads") > 200
    assert RENDERER(ChestParameters()).area_mm2("pacemaker") == 0


def test_air_beside_the_body_is_nearly_black_and_bones_are_brighter_than_lungs():
    image = RENDERER(ChestParameters(noise=0.0))
    assert image.pixels[image.coverage["body"] == 0].max() < 0.1 or image.mask("side_tag").any()
    assert image.pixels[image.mask("spine")].mean() > 1.4 * image.pixels[image.mask("lungs")].mean()


@pytest.mark.parametrize(
    ("found", "finding"),
    [
        ({}, "none"),
        ({"nodule_diameter_mm": 7.9}, "none"),
        ({"nodule_diameter_mm": 8.0}, "nodule"),
        ({"effusion_level_mm": 14.0}, "none"),
        ({"effusion_level_mm": 15.0}, "effusion"),
        ({"cardiothoracic_ratio": 0.55}, "cardiomegaly"),
        ({"cardiothoracic_ratio": 0.6, "effusion_level_mm": 40.0}, "several"),
    ],
)
def test_the_finding_follows_its_rule(found, finding):
    p = ChestParameters(**found)
    assert FINDINGS[p.finding] == finding
    assert p.abnormal == (finding != "none")


def test_attributes_hold_what_follows_from_the_parameters():
    table = chest_attributes([ChestParameters(), ChestParameters(nodule_diameter_mm=10.0, effusion_level_mm=20.0)])
    assert table.column("nodule_area_mm2") == pytest.approx([0, 25 * np.pi])
    assert table.column("heart_width_mm") == pytest.approx([0.45 * 275] * 2)
    assert np.isnan(table.column("effusion_side")).tolist() == [True, False]
    assert [table.categories["finding"][int(v)] for v in table.column("finding")] == ["none", "several"]


def test_sizes_that_cannot_be_rendered_are_named():
    with pytest.raises(ConfigError, match="at least 64 pixels"):
        ChestRenderer(32)
    with pytest.raises(ConfigError, match="extent_mm is 50"):
        ChestRenderer(128, 50.0)
    with pytest.raises(ConfigError, match="kilovolts is 20 kV"):
        ChestParameters(kilovolts=20.0)
