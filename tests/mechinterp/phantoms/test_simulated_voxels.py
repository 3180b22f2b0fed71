"""Voxels answer where and to what they are tuned, and as noisily as they are declared."""

import numpy as np
import pytest

from mechinterp.errors import ConfigError
from mechinterp.phantoms.datasets import FundusStudy, fundus_phantoms, stimulus_phantoms
from mechinterp.phantoms.stimuli.energy import FREQUENCIES_CPD, ORIENTATIONS_DEG, EnergyFilters
from mechinterp.phantoms.stimuli.parameters import StimulusParameters
from mechinterp.phantoms.stimuli.population import StimulusStudy
from mechinterp.phantoms.stimuli.renderer import StimulusRenderer
from mechinterp.phantoms.stimuli.voxels import AREAS, VoxelStudy, draw_voxels, record


@pytest.fixture(scope="module")
def shown():
    return stimulus_phantoms(StimulusStudy(patients=90, images_per_patient=1, size_px=64))


@pytest.fixture(scope="module")
def recording(shown):
    return record(shown, VoxelStudy(subjects=2, voxels=25, repeats=4, noise_ceiling=0.5))


def test_a_filter_answers_most_to_the_grating_it_is_made_for():
    renderer = StimulusRenderer(96)
    filters = EnergyFilters.of(96, renderer.spacing_deg)
    for orientation in (0.0, 45.0, 90.0, 135.0):
        for frequency in (0.5, 1.0, 2.0):
            p = StimulusParameters(
                size_deg=8.0, orientation_deg=orientation, frequency_cpd=frequency, noise=0.0, fixation_dot=0
            )
            energy = filters(renderer(p).pixels)[:, 44:52, 44:52].mean((1, 2))
            best = int(np.argmax(energy))
            assert ORIENTATIONS_DEG[best // len(FREQUENCIES_CPD)] == orientation
            assert FREQUENCIES_CPD[best % len(FREQUENCIES_CPD)] == frequency


def test_energy_does_not_depend_on_phase():
    renderer = StimulusRenderer(96)
    filters = EnergyFilters.of(96, renderer.spacing_deg)
    plain = {"size_deg": 8.0, "noise": 0.0, "fixation_dot": 0, "frequency_cpd": 1.0}
    first, second = (
        filters(renderer(StimulusParameters(**plain, phase_deg=phase)).pixels).max(0)[48, 48] for phase in (0.0, 90.0)
    )
    assert first == pytest.approx(second, rel=0.05)


def test_the_noise_ceiling_is_the_correlation_of_repeats(recording):
    for v, responses in zip(recording.voxels, recording.responses, strict=True):
        reached = recording.signals[0].std(0) > 0
        measured = [
            np.mean([np.corrcoef(responses[:, a, k], responses[:, b, k])[0, 1] for a in range(4) for b in range(a)])
            for k in np.flatnonzero(reached)
        ]
        assert np.mean(measured) == pytest.approx(v.noise_ceiling[reached].mean(), abs=0.03)
        assert np.corrcoef(measured, v.noise_ceiling[reached])[0, 1] > 0.9


def test_the_ceiling_of_a_mean_follows_spearman_and_brown():
    v = draw_voxels(VoxelStudy(voxels=5), 0)
    c = v.noise_ceiling[0]
    assert v.ceiling_of_mean(1)[0] == pytest.approx(c)
    assert v.ceiling_of_mean(3)[0] == pytest.approx(c / (c + (1 - c) / 3))


def test_face_voxels_see_faces_and_scene_voxels_scenes(shown, recording):
    content = np.array([p.content for p in shown.parameters])
    for v, signal in zip(recording.voxels, recording.signals, strict=True):
        for k, name in ((1, "face"), (2, "scene")):
            mine = signal[:, v.area == k]
            assert (mine[content == name].mean(0) > mine[content != name].mean(0)).all()
        assert AREAS[0] == "V1"


def test_a_voxel_answers_where_its_receptive_field_is():
    """The response to a small grating falls with its distance from the receptive field, by the field's own Gaussian."""
    from mechinterp.phantoms.stimuli.voxels import Voxels, _coarse, _signals

    renderer = StimulusRenderer(128)
    filters = EnergyFilters.of(128, renderer.spacing_deg)
    one = np.ones(1)
    v = Voxels(np.zeros(1, int), 2.0 * one, -1.0 * one, 1.2 * one, 90.0 * one, 1.0 * one, 0.5 * one)
    places = [(2.0, -1.0), (0.8, -1.0), (2.0, 0.2), (-2.0, 3.0)]
    energy = []
    for up, right in places:
        p = StimulusParameters(
            size_deg=2.0, up_deg=up, right_deg=right, orientation_deg=90.0, frequency_cpd=1.0, noise=0.0, fixation_dot=0
        )
        energy.append(_coarse(np.sqrt(filters(renderer(p).pixels))))
    response = _signals(v, np.stack(energy), np.zeros((4, 2, 32 * 32)), renderer)[:, 0]
    assert response.argmax() == 0
    assert response[1] == pytest.approx(response[2], rel=0.25)
    assert response[3] < 0.1 * response[0] < response[1] < response[0]


def test_subjects_differ_and_a_recording_is_the_same_every_time(shown, recording):
    again = record(shown, VoxelStudy(subjects=2, voxels=25, repeats=4, noise_ceiling=0.5))
    assert all(np.array_equal(a, b) for a, b in zip(again.responses, recording.responses, strict=True))
    assert recording.subjects == ("s000", "s001")
    assert not np.array_equal(recording.voxels[0].up_deg, recording.voxels[1].up_deg)
    more = record(shown, VoxelStudy(subjects=3, voxels=25, repeats=4, noise_ceiling=0.5))
    assert np.array_equal(more.responses[1], recording.responses[1])


def test_users_mistakes_are_named(shown):
    with pytest.raises(ConfigError, match="noise_ceiling is 1: it lies between 0 and 1"):
        VoxelStudy(noise_ceiling=1.0)
    with pytest.raises(ConfigError, match="subjects is 0"):
        VoxelStudy(subjects=0)
    with pytest.raises(ConfigError, match="voxels see stimuli, not a fundus phantom"):
        record(fundus_phantoms(FundusStudy(patients=4)))
    with pytest.raises(ConfigError, match="1 stimuli are shown"):
        record(shown, images=[0])
