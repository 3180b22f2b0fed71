"""A scrambled face or scene is as bright and as contrasted as the intact one, within the same outline, and is none."""

import numpy as np
import pytest

from mechinterp.errors import ConfigError
from mechinterp.phantoms.datasets import stimulus_phantoms
from mechinterp.phantoms.random_streams import Identity
from mechinterp.phantoms.stimuli.kind import stimulus_attributes
from mechinterp.phantoms.stimuli.parameters import ARRANGEMENTS, StimulusParameters
from mechinterp.phantoms.stimuli.population import StimulusStudy
from mechinterp.phantoms.stimuli.renderer import StimulusRenderer
from mechinterp.phantoms.stimuli.scrambling import TILES, with_random_phases, with_tiles_moved
from mechinterp.phantoms.stimuli.voxels import VoxelStudy, record

PLAIN = {"noise": 0.0, "blur_deg": 0.0, "fixation_dot": 0, "size_deg": 7.0}
RENDERER = StimulusRenderer(128)
scrambled = pytest.mark.parametrize("how", ARRANGEMENTS[1:])
contents = pytest.mark.parametrize("content", ["face", "scene"])


@scrambled
@contents
def test_outline_mean_and_contrast_stay(how, content):
    for person in range(4):
        intact = RENDERER(StimulusParameters(**PLAIN, content=content), Identity(0, person))
        other = intact.counterfactual(arrangement=how)
        outline = np.maximum(intact.coverage["head"], intact.coverage["scene"])
        assert np.array_equal(other.coverage["scrambled"], outline)
        assert np.ptp(other.pixels[outline == 0]) < 1e-6
        inside = outline == 1
        assert other.pixels[inside].mean() == pytest.approx(intact.pixels[inside].mean(), abs=0.02)
        assert other.pixels[inside].std() == pytest.approx(intact.pixels[inside].std(), rel=0.15)
        assert np.corrcoef(other.pixels[inside], intact.pixels[inside])[0, 1] < 0.8
        for name in ("face", "head", "eyes", "mouth", "scene", "ground", "buildings", "trees"):
            assert other.area_mm2(name) == 0


def test_random_phases_keep_the_amplitude_of_every_frequency():
    random = np.random.default_rng(0)
    picture, outline = 0.05 * random.standard_normal((32, 24)), np.ones((32, 24))
    found = with_random_phases(picture, outline, Identity(0, 1))
    before, after = (np.abs(np.fft.fft2(x)) for x in (picture, found))
    assert after == pytest.approx(before, rel=1e-6)
    assert not np.allclose(found, picture)


def test_tiles_change_places_one_for_one():
    """Every tile is drawn once, whole, and what lies beyond the tiles stays."""
    steps = (np.arange(8 * TILES) + 0.5) / (8 * TILES) - 0.5
    v, u = np.meshgrid(steps, 0.5 * steps, indexing="ij")
    moved_v, moved_u = with_tiles_moved(v, u, 0.5, Identity(0, 3))
    before, after = (
        sorted(map(tuple, np.stack([a.ravel(), b.ravel()], 1).round(9))) for a, b in ((v, u), (moved_v, moved_u))
    )
    assert after == before
    assert not np.allclose(moved_v, v)
    # neighbours within a tile stay neighbours
    assert np.diff(moved_u[:, :8], axis=1) == pytest.approx(np.diff(u[:, :8], axis=1))
    outside = np.full((2, 2), 0.7)
    assert all(np.array_equal(x, outside) for x in with_tiles_moved(outside, outside, 0.5, Identity(0, 3)))


def test_a_grating_is_never_scrambled():
    plain = RENDERER(StimulusParameters(**PLAIN))
    assert np.array_equal(plain.counterfactual(arrangement="moved-tiles").pixels, plain.pixels)
    assert plain.parameters.shown == "gabor"


def test_a_scrambled_face_is_no_face():
    rows = [StimulusParameters(content="face", arrangement=a) for a in ARRANGEMENTS]
    assert [p.shown for p in rows] == ["face", "scrambled", "scrambled"]
    table = stimulus_attributes(rows)
    assert table.column("is_face").tolist() == [1, 0, 0]
    assert np.isnan(table.column("face_smile")).tolist() == [False, True, True]


def test_the_asked_share_is_scrambled_and_nothing_else_changes():
    plain, some = (
        stimulus_phantoms(StimulusStudy(patients=200, images_per_patient=2, size_px=48, scrambled_share=share))
        for share in (0.0, 0.4)
    )
    assert {p.arrangement for p in plain.parameters} == {"intact"}
    faces = [p for p in some.parameters if p.content != "gabor"]
    assert np.mean([p.shown == "scrambled" for p in faces]) == pytest.approx(0.4, abs=0.08)
    for before, after in zip(plain.parameters, some.parameters, strict=True):
        assert (before.content, before.size_deg, before.face_smile) == (after.content, after.size_deg, after.face_smile)
    with pytest.raises(ConfigError, match=r"scrambled_share is 1\.5: it lies between 0 and 1"):
        StimulusStudy(scrambled_share=1.5)


def test_voxels_of_the_face_and_scene_areas_do_not_answer_to_scrambled_ones():
    shown = stimulus_phantoms(StimulusStudy(patients=40, images_per_patient=1, size_px=64, scrambled_share=0.5))
    recording = record(shown, VoxelStudy(subjects=1, voxels=6))
    seen = np.array([p.shown for p in shown.parameters])
    (voxels,), (signals,) = recording.voxels, recording.signals
    for area, name in ((1, "face"), (2, "scene")):
        mine = signals[:, voxels.area == area]
        assert mine[seen == "scrambled"].max() == pytest.approx(mine[seen == "gabor"].max())
        assert (mine[seen == name].mean(0) > mine[seen == "scrambled"].mean(0)).all()
    early = signals[:, voxels.area == 0]
    assert (early[seen == "scrambled"].mean(0) > -0.5).all()
