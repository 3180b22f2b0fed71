"""A stimulus shows what its parameters say, in degrees."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mechinterp.errors import ConfigError
from mechinterp.phantoms.random_streams import Identity
from mechinterp.phantoms.stimuli.kind import stimulus_attributes
from mechinterp.phantoms.stimuli.parameters import StimulusParameters
from mechinterp.phantoms.stimuli.renderer import StimulusRenderer

PLAIN = {"noise": 0.0, "blur_deg": 0.0, "fixation_dot": 0}
RENDERER = StimulusRenderer(128)


@settings(deadline=None, max_examples=20)
@given(st.floats(0, 179), st.floats(0.5, 2.5), st.floats(-180, 180))
def test_a_gabor_has_its_frequency_and_orientation(orientation, frequency, phase):
    p = StimulusParameters(
        **PLAIN, size_deg=8.0, orientation_deg=orientation, frequency_cpd=frequency, phase_deg=phase, contrast=1.0
    )
    pixels = RENDERER(p).pixels - 0.5
    power = np.abs(np.fft.fft2(pixels, s=(512, 512))) ** 2
    rows, columns = np.meshgrid(*(np.fft.fftfreq(512, RENDERER.spacing_deg),) * 2, indexing="ij")
    peak = np.unravel_index(np.argmax(power), power.shape)
    assert np.hypot(rows[peak], columns[peak]) == pytest.approx(frequency, abs=0.08)
    # the wave runs at right angles to the bars; rows grow downwards
    bars = np.rad2deg(np.arctan2(-rows[peak], columns[peak])) + 90
    assert abs((bars - orientation + 90) % 180 - 90) < 8


def test_contrast_is_that_of_the_brightest_and_darkest_bar():
    for contrast in (0.2, 0.8):
        p = StimulusParameters(**PLAIN, size_deg=8.0, contrast=contrast, frequency_cpd=0.5)
        pixels = RENDERER(p).pixels
        michelson = (pixels.max() - 0.5) / 0.5
        assert michelson == pytest.approx(contrast, rel=0.05)


def test_nothing_is_drawn_outside_of_the_content():
    for content in ("gabor", "face", "scene"):
        image = RENDERER(StimulusParameters(**PLAIN, content=content, size_deg=5.0, up_deg=2.0, right_deg=-1.5))
        drawn = sum(image.coverage[n] for n in ("gabor", "head", "scene"))
        assert np.ptp(image.pixels[drawn == 0]) < 1e-6
        name = {"face": "face"}.get(content, content)
        row, column = image.centroid_mm(name)
        assert np.array([-row, column]) / RENDERER.mm_per_degree == pytest.approx([2.0, -1.5], abs=0.05)


def test_a_smile_raises_the_corners_of_the_mouth():
    sad = RENDERER(StimulusParameters(**PLAIN, content="face", size_deg=8.0, face_smile=-0.9))
    glad = sad.counterfactual(face_smile=0.9)

    def corners_above_middle(image):
        mask = image.mask("mouth")
        columns = np.flatnonzero(mask.any(0))
        rows = [np.flatnonzero(mask[:, c]).mean() for c in columns]
        return rows[len(rows) // 2] - (rows[0] + rows[-1]) / 2

    assert corners_above_middle(glad) > corners_above_middle(sad) + 1.0


def test_eyes_are_as_far_apart_as_asked():
    p = StimulusParameters(**PLAIN, content="face", size_deg=8.0, face_eye_distance=0.36)
    mask = RENDERER(p).mask("eyes")
    left, right = (np.argwhere(half)[:, 1].mean() for half in (mask[:, :64], mask[:, 64:]))
    assert (right + 64 - left) * RENDERER.spacing_deg == pytest.approx(0.36 * 8.0, abs=RENDERER.spacing_deg)


def test_the_ground_begins_at_the_horizon():
    for horizon in (0.3, 0.6):
        p = StimulusParameters(**PLAIN, content="scene", size_deg=8.0, scene_horizon=horizon)
        image = RENDERER(p)
        assert image.area_mm2("ground") / image.area_mm2("scene") == pytest.approx(horizon, abs=0.03)


def test_buildings_and_trees_can_be_left_out():
    image = RENDERER(StimulusParameters(content="scene", scene_buildings=0, scene_trees=0))
    assert image.area_mm2("buildings") == image.area_mm2("trees") == 0
    built = image.counterfactual(scene_buildings=4)
    assert built.area_mm2("buildings") > 0
    one_more = built.counterfactual(scene_buildings=5)
    assert (one_more.coverage["buildings"] >= built.coverage["buildings"] - 1e-6).all()


def test_persons_differ_and_each_looks_the_same_again():
    p = StimulusParameters(**PLAIN, content="face", size_deg=8.0)
    first, again, other = (RENDERER(p, Identity(0, k, i)) for k, i in ((1, 0), (1, 1), (2, 0)))
    assert np.array_equal(first.pixels, again.pixels)
    assert np.abs(first.pixels - other.pixels).max() > 0.1


def test_a_farther_screen_has_longer_degrees():
    near, far = StimulusRenderer(64), StimulusRenderer(64, 17.0, 1200.0)
    assert far.mm_per_degree == pytest.approx(2 * near.mm_per_degree)
    assert near.mm_per_degree == pytest.approx(600 * np.tan(np.pi / 180))
    assert far().spacing_mm[0] == pytest.approx(2 * near().spacing_mm[0])


def test_what_is_of_another_content_is_missing():
    table = stimulus_attributes([StimulusParameters(content=c) for c in ("gabor", "face", "scene")])
    assert np.isnan(table.column("orientation_deg")).tolist() == [False, True, True]
    assert np.isnan(table.column("face_smile")).tolist() == [True, False, True]
    assert np.isnan(table.column("scene_horizon")).tolist() == [True, True, False]
    assert table.column("is_face").tolist() == [0, 1, 0]
    assert table.column("area_deg2") == pytest.approx([np.pi / 4 * 25, np.pi / 4 * 25 * 0.76, 25])


def test_sizes_that_cannot_be_rendered_are_named():
    with pytest.raises(ConfigError, match="at least 48 pixels"):
        StimulusRenderer(16)
    with pytest.raises(ConfigError, match="extent_deg is 5"):
        StimulusRenderer(128, 5.0)
    with pytest.raises(ConfigError, match="viewing_distance_mm is 0"):
        StimulusRenderer(128, 17.0, 0.0)
