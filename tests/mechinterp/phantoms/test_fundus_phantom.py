"""Pixels, masks and parameters agree, and a counterfactual changes only what it must."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mechinterp.errors import ConfigError, ImagesError
from mechinterp.phantoms.fundus import DARK_LESION, STRUCTURES, FundusRenderer
from mechinterp.phantoms.fundus_parameters import FundusParameters
from mechinterp.phantoms.quantities import EVERYWHERE, quantities
from mechinterp.phantoms.random_streams import Identity

ILL = {
    "microaneurysm_area_mm2": 0.1,
    "haemorrhage_area_mm2": 0.9,
    "exudate_area_mm2": 0.6,
    "camera_tag": 1,
    "ruler_mark": 1,
}
LOCAL = [name for name, what in quantities(FundusParameters).items() if EVERYWHERE not in what.structures]


def perimeter_mm(mask, spacing):
    """Length of the pixels' edges between inside and outside: never shorter than the true outline."""
    padded = np.pad(mask, 1).astype(int)
    return spacing * (np.abs(np.diff(padded, axis=0)).sum() + np.abs(np.diff(padded, axis=1)).sum())


@st.composite
def eyes(draw):
    values = {}
    for name, what in quantities(FundusParameters).items():
        if what.choices:
            values[name] = draw(st.sampled_from(what.choices))
        elif isinstance(getattr(FundusParameters(), name), int):
            values[name] = draw(st.integers(max(int(what.low), int(name.endswith("count"))), int(min(what.high, 12))))
        else:
            values[name] = draw(st.floats(what.low, what.high, allow_subnormal=False))
    identity = Identity(draw(st.integers(0, 5)), draw(st.integers(0, 50)), draw(st.integers(0, 3)))
    return FundusParameters(**values), identity


@settings(deadline=None, max_examples=40)
@given(eyes(), st.sampled_from([48, 64, 96, 130]))
def test_areas_of_masks_equal_the_parameters(eye, size):
    phantom = FundusRenderer(size)(*eye)
    p, spacing = phantom.parameters, phantom.spacing_mm[0]
    wanted = {
        "microaneurysms": p.microaneurysm_area_mm2,
        "haemorrhages": p.haemorrhage_area_mm2,
        "exudates": p.exudate_area_mm2,
    }
    for structure, area in wanted.items():
        mask = phantom.mask(structure)
        # a mask of spots smaller than a pixel may be empty: their outline is that of circles of their area
        circles = 2 * np.sqrt(np.pi * area * getattr(p, f"{structure[:-1]}_count"))
        outline = max(perimeter_mm(mask, spacing), circles)
        assert abs(mask.sum() * spacing**2 - area) <= outline * spacing / 2 + 1e-9
        assert phantom.area_mm2(structure) == pytest.approx(area, rel=1e-4, abs=1e-6)
    assert phantom.pixels.dtype == np.float32
    assert phantom.pixels.min() >= 0
    assert phantom.pixels.max() <= 1


@settings(deadline=None, max_examples=20)
@given(st.floats(1.6, 3.3), st.floats(0.2, 0.8), st.sampled_from([64, 128]), st.integers(0, 30))
def test_disc_and_cup_have_the_area_that_was_asked_for(area, ratio, size, patient):
    phantom = FundusRenderer(size)(FundusParameters(disc_area_mm2=area, cup_to_disc_ratio=ratio), Identity(0, patient))
    spacing = phantom.spacing_mm[0]
    for structure, wanted in (("disc", area), ("cup", area * ratio**2)):
        mask = phantom.mask(structure)
        assert abs(mask.sum() * spacing**2 - wanted) <= perimeter_mm(mask, spacing) * spacing / 2
        assert phantom.area_mm2(structure) == pytest.approx(wanted, rel=1e-4)


@settings(deadline=None, max_examples=60)
@given(eyes(), st.sampled_from(LOCAL), st.data())
def test_a_counterfactual_changes_pixels_only_where_its_structures_are(eye, name, data):
    phantom = FundusRenderer(64)(*eye)
    what, now = quantities(FundusParameters)[name], getattr(phantom.parameters, name)
    if isinstance(now, int):
        value = data.draw(st.integers(max(int(what.low), int(name.endswith("count"))), int(min(what.high, 12))))
    else:
        value = data.draw(st.floats(what.low, what.high, allow_subnormal=False))
    changed = phantom.counterfactual(**{name: value})
    differs = (phantom.pixels != changed.pixels).any(-1)
    assert not (differs & ~phantom.may_differ(changed, name)).any()
    for structure in STRUCTURES:
        if structure not in (*what.structures, "arteries", "veins"):
            assert np.array_equal(phantom.coverage[structure], changed.coverage[structure])


@pytest.mark.parametrize("name", LOCAL)
def test_every_local_parameter_changes_something_and_not_everything(name):
    phantom = FundusRenderer(96)(FundusParameters(**ILL))
    now = getattr(phantom.parameters, name)
    value = 1 - now if name in {"camera_tag", "ruler_mark"} else now * 1.3 + (1 if isinstance(now, int) else 0)
    changed = phantom.counterfactual(**{name: int(value) if isinstance(now, int) else value})
    differs = (phantom.pixels != changed.pixels).any(-1)
    assert 0 < differs.sum() < 0.6 * differs.size
    assert not (differs & ~phantom.may_differ(changed, name)).any()


def test_a_counterfactual_that_changes_nothing_is_the_same_image_to_the_bit():
    phantom = FundusRenderer(64)(FundusParameters(**ILL), Identity(3, 2, 1))
    same = phantom.counterfactual(exudate_area_mm2=0.6)
    assert np.array_equal(phantom.pixels, same.pixels)


def test_a_global_parameter_may_change_everything():
    phantom = FundusRenderer(64)(FundusParameters(**ILL))
    assert phantom.may_differ(phantom.counterfactual(illumination=0.8), "illumination").all()


@pytest.mark.parametrize("size", [64, 160])
def test_contrast_is_weber_contrast_of_the_green_channel(size):
    clean = {"noise": 0.0, "blur_mm": 0.0, "illumination": 0.7, "camera": "north"}
    renderer = FundusRenderer(size)
    healthy = renderer(FundusParameters(**clean))
    for lesion, contrast, sign in (("exudate", 0.8, 1), ("haemorrhage", 0.5, -1)):
        changes = {f"{lesion}_area_mm2": 1.2, f"{lesion}_contrast": contrast}
        ill = healthy.counterfactual(**changes)
        inside = ill.coverage[f"{lesion}s"] > 0.999
        assert inside.sum() > 5
        before, after = healthy.pixels[inside, 1] - 0.012, ill.pixels[inside, 1] - 0.012
        assert after / before - 1 == pytest.approx(np.full(inside.sum(), sign * contrast * DARK_LESION[1]), abs=1e-4)


def test_one_more_lesion_does_not_move_the_others():
    few = FundusRenderer(96)(FundusParameters(haemorrhage_count=3, haemorrhage_area_mm2=0.9))
    more = few.counterfactual(haemorrhage_count=4, haemorrhage_area_mm2=1.3)
    smaller = few.mask("haemorrhages").sum() - (few.mask("haemorrhages") & more.mask("haemorrhages")).sum()
    assert smaller <= 0.35 * few.mask("haemorrhages").sum()
    from scipy.ndimage import label

    assert label(few.mask("haemorrhages"))[1] == 3
    assert label(more.mask("haemorrhages"))[1] == 4


def test_lesions_lie_where_they_are_put():
    renderer = FundusRenderer(96)
    for angle, row_sign, column_sign in ((90, -1, 0), (-90, 1, 0), (0, 0, -1)):
        p = FundusParameters(exudate_area_mm2=0.5, exudate_eccentricity_mm=2.5, exudate_angle_deg=angle)
        row, column = renderer(p).centroid_mm("exudates")
        assert (row, column) == pytest.approx((2.5 * row_sign, 2.5 * column_sign), abs=0.8)


def test_no_exudate_lies_on_the_disc_even_when_put_there():
    renderer = FundusRenderer(64)
    p = FundusParameters(exudate_area_mm2=0.3, exudate_eccentricity_mm=4.0, exudate_angle_deg=180.0)
    for patient in range(20):
        phantom = renderer(p, Identity(0, patient))
        assert not (phantom.mask("exudates") & phantom.mask("disc")).any()


def test_large_vessels_reflect_light_in_their_middle_where_pixels_are_small():
    p = FundusParameters(vessel_width_mm=0.2, noise=0.0, blur_mm=0.0)
    phantom = FundusRenderer(512)(p)
    from scipy.ndimage import distance_transform_edt

    depth = distance_transform_edt(phantom.mask("arteries") & ~phantom.mask("disc") & ~phantom.mask("veins"))
    green = phantom.pixels[..., 1]
    wall, middle = green[(depth > 1.2) & (depth < 2.1)], green[depth >= 2.1]
    assert np.median(middle) > 1.03 * np.median(wall)


def test_images_of_a_patient_share_vessels_and_disc_but_not_noise():
    renderer, p = FundusRenderer(64), FundusParameters()
    first, second, other = (renderer(p, Identity(0, *who)) for who in ((0, 0), (0, 1), (1, 0)))
    assert np.array_equal(first.coverage["vessels"], second.coverage["vessels"])
    assert not np.array_equal(first.coverage["vessels"], other.coverage["vessels"])
    assert not np.array_equal(first.pixels, second.pixels)


def test_a_left_eye_has_its_disc_on_the_left_and_gaze_moves_both_alike():
    renderer = FundusRenderer(96)
    right, left = renderer(FundusParameters()), renderer(FundusParameters(laterality="left"))
    assert right.landmark_px("disc")[1] > 48 > left.landmark_px("disc")[1]
    for eye in (right, left):
        before = np.array(eye.landmark_px("fovea"))
        moved = np.array(eye.counterfactual(gaze_column_mm=0.25, gaze_row_mm=0.5).landmark_px("fovea"))
        assert moved - before == pytest.approx((-4, -2))


def test_the_disc_is_bright_vessels_and_haemorrhages_are_dark_exudates_yellow():
    phantom = FundusRenderer(128)(FundusParameters(**ILL))
    green, plain = phantom.pixels[..., 1], phantom.mask("field_of_view").copy()
    for structure in ("disc", "vessels", "haemorrhages", "exudates", "microaneurysms"):
        plain &= phantom.coverage[structure] == 0
    retina = np.median(green[plain])
    assert np.median(green[phantom.mask("disc")]) > 1.5 * retina
    assert np.median(green[phantom.mask("veins")]) < 0.8 * retina
    assert np.median(green[phantom.mask("haemorrhages")]) < 0.7 * retina
    assert np.median(green[phantom.mask("exudates")]) > 1.3 * retina
    assert phantom.pixels[0, 0].max() < 0.1


def test_resolution_changes_pixels_not_anatomy():
    p = FundusParameters(**ILL)
    small, large = FundusRenderer(64)(p), FundusRenderer(192)(p)
    pooled = large.pixels.reshape(64, 3, 64, 3, 3).mean((1, 3))
    inside = small.coverage["field_of_view"] == 1
    inside &= (small.coverage["camera_tag"] == 0) & (small.coverage["ruler_mark"] == 0)
    assert np.corrcoef(pooled[inside].ravel(), small.pixels[inside].ravel())[0, 1] > 0.97
    assert small.centroid_mm("haemorrhages") == pytest.approx(large.centroid_mm("haemorrhages"), abs=0.05)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"exudate_area_mm2": -1.0}, r"exudate_area_mm2 is -1 mm²: it must lie between 0 and 6 mm²"),
        ({"camera": "norht"}, r"camera is 'norht': did you mean 'north'"),
        ({"pigmentation": 2.0}, r"pigmentation is 2: it must lie between 0 and 1$"),
    ],
)
def test_what_cannot_be_rendered_is_refused_with_its_range(settings, message):
    with pytest.raises(ConfigError, match=message):
        FundusParameters(**settings)


def test_users_mistakes_are_named():
    phantom = FundusRenderer(64)()
    with pytest.raises(ConfigError, match="no parameter 'exudate_area': did you mean 'exudate_area_mm2'"):
        phantom.counterfactual(exudate_area=1.0)
    with pytest.raises(ConfigError, match=r"exudate_area_mm2 is 0\.5 but exudate_count is 0: give both"):
        phantom.counterfactual(exudate_area_mm2=0.5, exudate_count=0)
    with pytest.raises(ImagesError, match="no structure 'exudate': did you mean 'exudates'"):
        phantom.mask("exudate")
    with pytest.raises(ImagesError, match="no landmark 'fova': did you mean 'fovea'"):
        phantom.landmark_px("fova")
    with pytest.raises(ConfigError, match="size_px is 8"):
        FundusRenderer(8)
    with pytest.raises(ConfigError, match="extent_mm is 40"):
        FundusRenderer(64, 40.0)
    assert phantom.centroid_mm("exudates") is None


def test_parameters_cannot_be_changed_in_place():
    with pytest.raises(dataclasses.FrozenInstanceError):
        FundusParameters().noise = 0.5


@pytest.mark.parametrize(
    ("areas", "grade", "referable"),
    [
        ((0, 0, 0), 0, False),
        ((0.1, 0, 0), 1, False),
        ((0, 0.1, 0.1), 1, False),
        ((0, 0.2, 0.1), 2, True),
        ((0, 0, 0.5), 2, True),
        ((0.2, 1.6, 0), 3, True),
    ],
)
def test_the_grade_follows_its_rule(areas, grade, referable):
    micro, haemorrhage, exudate = areas
    p = FundusParameters(
        microaneurysm_area_mm2=micro, haemorrhage_area_mm2=haemorrhage, exudate_area_mm2=exudate
    )  # fmt: skip
    assert (p.grade, p.referable) == (grade, referable)


@pytest.mark.slow
def test_a_thousand_images_of_96_pixels_a_minute_on_one_core():
    import time

    renderer, p = FundusRenderer(96), FundusParameters(**ILL)
    renderer(p)
    start = time.process_time()
    for i in range(60):
        renderer(p, Identity(0, i // 2, i % 2))
    assert 60 * 60 / (time.process_time() - start) > 1000
