"""The evidence of a receptive field: a Gaussian's density written out; fields weighed by it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import multivariate_t

from probes.encoding_evidence import log_evidence, probable_fields
from probes.receptive_fields import ReceptiveFields


def centring(n):
    """Rows that are orthonormal and know nothing of the mean."""
    return np.linalg.qr(np.concatenate([np.ones((n, 1)), np.eye(n)[:, 1:]], 1))[0][:, 1:].T


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 1000), st.integers(4, 12), st.integers(1, 20))
def test_the_evidence_is_the_density_of_the_responses_up_to_a_constant(seed, n, width):
    """With the scale integrated out, responses without their mean follow Student's t of many dimensions, of few freedoms."""
    random = np.random.default_rng(seed)
    x, y = random.standard_normal((n, width)), random.standard_normal((n, 3))
    penalties = np.array([0.3, 4.0])
    found = log_evidence(x, y, penalties)
    without = centring(n)
    slow = np.empty((2, 3))
    for p, penalty in enumerate(penalties):
        covariance = np.eye(n - 1) + without @ x @ x.T @ without.T / penalty
        # freedoms towards 0 are the improper prior on the scale
        slow[p] = multivariate_t(np.zeros(n - 1), covariance, df=1e-9).logpdf((without @ y).T)
    difference = found - slow
    assert difference == pytest.approx(np.broadcast_to(difference[0, 0] * np.ones((2, 1)), (2, 3)), abs=1e-4)


def test_a_voxel_that_never_varies_says_nothing_of_its_field():
    x = np.random.default_rng(0).standard_normal((10, 3))
    assert log_evidence(x, np.full((10, 1), 2.5), np.array([1.0, 2.0])).tolist() == [[0.0], [0.0]]


def test_perfect_responses_have_finite_evidence():
    x = np.random.default_rng(0).standard_normal((10, 3))
    assert np.isfinite(log_evidence(x, x[:, :1], np.array([1e-14]))).all()


def test_fields_as_probable_as_each_other_are_met_half_way():
    candidates = ReceptiveFields(np.array([1.0, 1.0, 4.0]), np.array([-2.0, 2.0, 4.0]), np.array([1.0, 4.0, 9.0]))
    fields, spread = probable_fields(candidates, np.array([[-1e4, 0.0], [-1e4, -50.0], [-2e4, -50.0]]))
    assert (fields.up_deg[0], fields.right_deg[0], fields.size_deg[0]) == pytest.approx((1, 0, 2))
    assert spread == pytest.approx([2, 0], abs=1e-9)
    # one field alone
    assert (fields.up_deg[1], fields.right_deg[1], fields.size_deg[1]) == pytest.approx((1, -2, 1))


def test_the_mean_of_probable_fields_is_nearer_than_the_best_where_noise_decides():
    random = np.random.default_rng(0)
    candidates = ReceptiveFields.candidates(4.0, 0.5, (1.0,))
    places = np.stack([candidates.up_deg, candidates.right_deg], 1)
    shown = random.standard_normal((60, len(places)))
    smooth = np.exp(-np.square(places[:, None] - places[None]).sum(2) / 4)
    shown = shown @ smooth
    true = random.integers(0, len(candidates), 40)
    signal = shown @ candidates.over(places)[true].T
    y = signal + 1.0 * signal.std(0) * random.standard_normal(signal.shape)
    evidence = np.stack([
        np.logaddexp.reduce(log_evidence(shown @ g[:, None], y, np.array([0.01, 1.0]))) for g in candidates.over(places)
    ])  # fmt: skip
    fields, _ = probable_fields(candidates, evidence)
    truth = candidates[true]
    assert fields.distance_deg(truth).mean() < candidates[evidence.argmax(0)].distance_deg(truth).mean()
