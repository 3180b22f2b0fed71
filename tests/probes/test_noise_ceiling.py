"""Signal and noise: known by construction, by the correlation of repeats, and by what must not matter."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mechinterp.errors import ShapeError
from probes.noise_ceiling import noise_ceiling


def simulated(ceiling, n=4000, repeats=3, seed=0):
    random = np.random.default_rng(seed)
    signal = random.standard_normal((n, 1, len(ceiling)))
    return signal + np.sqrt(1 / np.asarray(ceiling) - 1) * random.standard_normal((n, repeats, len(ceiling)))


def test_the_declared_ceiling_is_found():
    declared = np.array([0.1, 0.4, 0.9])
    found = noise_ceiling(simulated(declared))
    assert found.of_trial == pytest.approx(declared, abs=0.03)
    # Spearman and Brown
    assert found.of_mean == pytest.approx(3 * declared / (1 + 2 * declared), abs=0.03)
    assert found.correlation == pytest.approx(np.sqrt(found.of_mean))


def test_it_agrees_with_the_correlation_of_two_repeats():
    responses = simulated([0.5], repeats=2)
    between = np.corrcoef(responses[:, 0, 0], responses[:, 1, 0])[0, 1]
    assert noise_ceiling(responses).of_trial[0] == pytest.approx(between, abs=0.02)


def test_no_prediction_beats_it_and_the_signal_itself_reaches_it():
    random = np.random.default_rng(1)
    signal = random.standard_normal((5000, 1))
    responses = signal[:, None] + random.standard_normal((5000, 3, 1))
    reached = np.corrcoef(signal[:, 0], responses.mean(1)[:, 0])[0, 1]
    assert noise_ceiling(responses).correlation[0] == pytest.approx(reached, abs=0.02)


def test_noise_alone_has_a_ceiling_near_zero_and_a_constant_voxel_one_of_zero():
    random = np.random.default_rng(2)
    responses = np.concatenate([random.standard_normal((3000, 3, 1)), np.ones((3000, 3, 1))], axis=2)
    found = noise_ceiling(responses).of_trial
    assert found[0] < 0.03
    assert found[1] == 0


def test_repeats_without_noise_can_be_predicted_wholly():
    responses = np.repeat(np.random.default_rng(3).standard_normal((20, 1, 2)), 3, axis=1)
    assert noise_ceiling(responses).of_trial == pytest.approx([1, 1])


@settings(max_examples=25, deadline=None)
@given(scale=st.floats(0.01, 100), shift=st.floats(-100, 100))
def test_neither_unit_nor_zero_point_matters(scale, shift):
    responses = simulated([0.3, 0.6], n=60)
    moved = noise_ceiling(scale * responses + shift)
    assert moved.of_trial == pytest.approx(noise_ceiling(responses).of_trial, abs=1e-6)


@pytest.mark.parametrize("shape", [(5, 1, 3), (1, 5, 3), (5, 3)])
def test_too_few_stimuli_or_repeats_are_refused(shape):
    with pytest.raises(ShapeError, match="at least two stimuli and two repeats"):
        noise_ceiling(np.zeros(shape))


def test_missing_responses_are_counted():
    responses = np.zeros((4, 2, 3))
    responses[1, 0, 2] = np.nan
    with pytest.raises(ShapeError, match="1 responses are missing"):
        noise_ceiling(responses)
