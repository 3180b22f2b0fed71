"""A mammogram shows what its parameters say, in millimetres."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import label

from mechinterp.errors import ConfigError
from mechinterp.phantoms.mammogram.kind import mammogram_attributes
from mechinterp.phantoms.mammogram.parameters import MammogramParameters
from mechinterp.phantoms.mammogram.population import MammogramStudy, sample_mammograms
from mechinterp.phantoms.mammogram.renderer import MammogramRenderer
from mechinterp.phantoms.random_streams import Identity

PLAIN = {"noise": 0.0, "blur_mm": 0.0, "view_marker": 0}
RENDERER = MammogramRenderer(128)


@settings(deadline=None, max_examples=10)
@given(st.floats(5, 80), st.sampled_from(["CC", "MLO"]), st.integers(0, 20))
def test_dense_tissue_covers_its_share_of_the_breast(density, view, patient):
    image = RENDERER(MammogramParameters(density_percent=density, view=view), Identity(0, patient))
    muscle = image.coverage["pectoral_muscle"] > 0.5
    breast = image.mask("breast") & ~muscle
    assert image.mask("dense_tissue").sum() / breast.sum() == pytest.approx(density / 100, abs=0.015)
    assert not (image.mask("dense_tissue") & ~image.mask("breast")).any()


@settings(deadline=None, max_examples=10)
@given(st.floats(60, 125), st.sampled_from(["left", "right"]), st.sampled_from(["CC", "MLO"]), st.integers(0, 20))
def test_the_nipple_is_as_far_from_the_chest_wall_as_asked(depth, side, view, patient):
    image = RENDERER(MammogramParameters(breast_depth_mm=depth, laterality=side, view=view), Identity(0, patient))
    columns = np.flatnonzero(image.mask("breast").any(0))
    assert (columns.min() == 0) == (side == "left")
    assert len(columns) * image.spacing_mm[1] == pytest.approx(depth, abs=1.5 * image.spacing_mm[1])
    row, column = image.landmark_px("nipple")
    assert image.coverage["nipple"][int(row), min(max(int(column), 0), image.pixels.shape[1] - 1)] > 0


@pytest.mark.parametrize("view", ["CC", "MLO"])
def test_air_is_exactly_black(view):
    image = RENDERER(MammogramParameters(view=view, view_marker=0, noise=0.05), Identity(0, 1))
    air = (image.coverage["breast"] == 0) & (image.coverage["nipple"] == 0)
    assert air.mean() > 0.3
    assert (image.pixels[air] == 0).all()


def test_the_right_breast_is_the_left_ones_mirror_image():
    left = RENDERER(MammogramParameters(**PLAIN))
    right = left.counterfactual(laterality="right")
    np.testing.assert_allclose(right.pixels, left.pixels[:, ::-1], atol=2e-5)


def test_only_the_mlo_view_shows_the_pectoral_muscle():
    cc = RENDERER(MammogramParameters())
    assert cc.area_mm2("pectoral_muscle") == 0
    assert cc.counterfactual(view="MLO").area_mm2("pectoral_muscle") > 500


def test_a_mass_lies_where_it_is_put_and_adds_its_contrast():
    plain = RENDERER(MammogramParameters(**PLAIN, breast_depth_mm=110))
    ill = plain.counterfactual(mass_diameter_mm=20.0, mass_contrast=0.2, mass_from_nipple_mm=50.0, mass_up_mm=12.0)
    nipple = plain.landmarks_mm["nipple"]
    assert ill.centroid_mm("mass") == pytest.approx((nipple[0] - 12.0, nipple[1] - 50.0), abs=1.0)
    added = (ill.pixels - plain.pixels)[ill.coverage["mass"] > 0.99]
    assert added.max() == pytest.approx(0.2, abs=0.02)
    assert added.min() > 0.05
    # twice the contrast adds twice as much
    double = ill.counterfactual(mass_contrast=0.4)
    inside = (ill.coverage["mass"] > 0.99) & (double.pixels < 0.99)
    np.testing.assert_allclose(
        (double.pixels - plain.pixels)[inside], 2 * (ill.pixels - plain.pixels)[inside], atol=1e-4
    )


@pytest.mark.parametrize(("from_nipple", "up"), [(5.0, 70.0), (110.0, -70.0), (5.0, -70.0), (60.0, 65.0)])
def test_a_mass_put_outside_is_pulled_into_the_breast(from_nipple, up):
    for view in ("CC", "MLO"):
        p = MammogramParameters(
            mass_diameter_mm=14.0, mass_from_nipple_mm=from_nipple, mass_up_mm=up, breast_depth_mm=60.0, view=view
        )
        image = RENDERER(p)
        assert not (image.mask("mass") & ~image.mask("breast")).any()


def test_longer_spicules_reach_farther():
    image = RENDERER(MammogramParameters(mass_diameter_mm=16.0, mass_spiculation=0.3, breast_depth_mm=110))
    reach = [image.counterfactual(mass_spiculation=s).area_mm2("spicules") for s in (0.0, 0.3, 0.6, 0.9)]
    assert reach[0] == 0
    assert reach == sorted(reach)


def test_calcifications_are_as_many_as_asked_and_one_more_does_not_move_them():
    renderer = MammogramRenderer(512)
    p = MammogramParameters(
        calcification_count=7, calcification_extent_mm=40.0, calcification_size_mm=1.4, breast_depth_mm=110
    )
    image = renderer(p)
    assert label(image.mask("calcifications"), np.ones((3, 3)))[1] == 7
    more = image.counterfactual(calcification_count=8)
    assert label(more.mask("calcifications"), np.ones((3, 3)))[1] == 8
    lost = image.mask("calcifications") & ~more.mask("calcifications")
    assert lost.sum() < 0.3 * image.mask("calcifications").sum()


@pytest.mark.parametrize(
    ("found", "category"),
    [
        ({}, 1),
        ({"calcification_count": 3}, 2),
        ({"calcification_count": 9, "calcification_size_mm": 1.5}, 2),
        ({"calcification_count": 9, "calcification_extent_mm": 30.0}, 3),
        ({"mass_diameter_mm": 12.0, "mass_spiculation": 0.1}, 3),
        ({"calcification_count": 9}, 4),
        ({"mass_diameter_mm": 12.0, "mass_spiculation": 0.4}, 4),
        ({"mass_diameter_mm": 8.0, "mass_spiculation": 0.9}, 4),
        ({"mass_diameter_mm": 12.0, "mass_spiculation": 0.6}, 5),
        ({"mass_diameter_mm": 8.0, "mass_spiculation": 0.3, "calcification_count": 9}, 5),
    ],
)
def test_the_category_follows_its_rule(found, category):
    p = MammogramParameters(**found)
    assert p.category == category
    assert p.suspicious == (category >= 4)


def test_what_is_not_there_has_no_contrast():
    table = mammogram_attributes([MammogramParameters(), MammogramParameters(mass_diameter_mm=10.0)])
    assert np.isnan(table.column("mass_contrast")).tolist() == [True, False]
    assert table.column("mass_area_mm2") == pytest.approx([0, 25 * np.pi])
    assert table.column("calcification_count").tolist() == [0, 0]


def test_sizes_that_cannot_be_rendered_are_named():
    with pytest.raises(ConfigError, match="at least 64 pixels"):
        MammogramRenderer(32)
    with pytest.raises(ConfigError, match="extent_mm is 50"):
        MammogramRenderer(128, 50.0)
    with pytest.raises(ConfigError, match="density_percent is 95 %: it must lie between 3 and 85 %"):
        MammogramParameters(density_percent=95.0)


def test_marks_are_drawn_one_by_one_whatever_the_image_shows():
    study = MammogramStudy(patients=600, images_per_patient=1, mark_share=0.5)
    drawn, _, _ = sample_mammograms(study)
    marks = np.array([[getattr(p, mark) for mark in MammogramStudy.MARKS] for p in drawn])
    label = np.array([p.suspicious for p in drawn])
    # standard error of a share: 0.02; of a correlation: 0.04
    np.testing.assert_allclose(marks.mean(0), 0.5, atol=0.08)
    assert np.abs(np.corrcoef(np.c_[marks, label], rowvar=False) - np.eye(4)).max() < 0.16
    # nothing else is drawn anew for their sake
    plain, _, _ = sample_mammograms(dataclasses.replace(study, mark_share=None))
    without = dict.fromkeys(MammogramStudy.MARKS, 0)
    assert [dataclasses.replace(p, **without) for p in drawn] == [dataclasses.replace(p, **without) for p in plain]
    assert {(p.view_marker, p.skin_marker, p.site_tag) for p in plain} == {(1, 0, 0)}


def test_findings_are_as_clear_as_the_study_asks():
    study = MammogramStudy(
        patients=200, images_per_patient=1, least_spiculation=0.6, finest_mm=0.8, fewest_clustered=15
    )
    drawn, _, _ = sample_mammograms(study)
    spiculated = [p.mass_spiculation for p in drawn if p.suspicious and p.mass_diameter_mm > 0]
    assert min(spiculated) >= 0.6
    assert max(p.mass_spiculation for p in drawn if not p.suspicious) <= 0.15
    assert min(p.calcification_size_mm for p in drawn) >= 0.8
    counts = {p.calcification_count for p in drawn} - {0}
    assert min(c for c in counts if c > 4) >= 15
    assert counts & {1, 2, 3, 4}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"mark_share": 1.5}, "mark_share is 1.5: give 0 to 1"),
        ({"least_spiculation": 0.1}, "least_spiculation is 0.1: give 0.25 to 0.9"),
        ({"fewest_clustered": 4}, "fewest_clustered is 4: give 5 to 20"),
        ({"finest_mm": 2.0}, "finest_mm is 2: give 0.3 to 0.9"),
    ],
)
def test_a_study_that_cannot_be_drawn_is_refused(changed, message):
    with pytest.raises(ConfigError, match=message):
        MammogramStudy(**changed)
