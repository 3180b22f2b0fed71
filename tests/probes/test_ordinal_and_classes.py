"""Levels by proportional odds and classes by multinomial regression: by hand, by gradient, against scikit-learn."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import check_grad, minimize
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mechinterp.errors import AttributeTableError, ConfigError
from probes import fit_probe
from probes.logistic import logistic_path
from probes.ordinal import log_probabilities, negative_log_posterior, ordinal_path


def graded(n=300, width=6, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, width))
    latent = 2 * x[:, 0] + rng.logistic(size=n)
    return x, np.digitize(latent, [-1.5, 0.5, 2.5])


def test_probabilities_of_levels_add_up_to_one_also_far_out():
    log_p = log_probabilities(np.array([-800.0, -3.0, 0.0, 2.0, 800.0]), np.array([-1.0, 0.5, 0.6]))
    np.testing.assert_allclose(np.exp(log_p).sum(1), 1)
    assert np.isfinite(log_p).all()
    # by hand: the middle level between 0 and log 3 at latent 0 has 3/4 - 1/2
    assert np.exp(log_probabilities(np.zeros(1), np.array([0.0, np.log(3)])))[0, 1] == pytest.approx(0.25)


@given(seed=st.integers(0, 50), strength=st.sampled_from([0.01, 1.0, 30.0]))
def test_the_gradient_is_that_of_the_loss(seed, strength):
    rng = np.random.default_rng(seed)
    x, levels = rng.normal(size=(25, 3)), rng.integers(0, 4, size=25)
    levels[:4] = range(4)
    start = rng.normal(size=6)
    error = check_grad(
        lambda p: negative_log_posterior(p, x, levels, strength)[0],
        lambda p: negative_log_posterior(p, x, levels, strength)[1],
        start,
    )
    assert error < 1e-4 * max(1.0, abs(negative_log_posterior(start, x, levels, strength)[0]))


def test_two_levels_are_logistic_regression():
    x, codes = graded()
    two = (codes > 1).astype(int)
    new = np.random.default_rng(1).normal(size=(9, 6))
    found = ordinal_path(x, two, new, (0.05, 3.0), 2)
    for c, log_p in zip((0.05, 3.0), found, strict=True):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=c, tol=1e-10, max_iter=5000)).fit(x, two)
        np.testing.assert_allclose(np.exp(log_p), model.predict_proba(new), atol=1e-5)


def test_the_fit_is_the_optimum_that_a_search_without_gradients_finds():
    x, codes = graded(n=60, width=2)
    z = (x - x.mean(0)) / x.std(0)

    def loss(p):
        thresholds = np.array([p[2], p[2] + np.exp(p[3]), p[2] + np.exp(p[3]) + np.exp(p[4])])
        edges = np.concatenate([[-np.inf], thresholds, [np.inf]])
        cumulative = 1 / (1 + np.exp(-(edges[None] - (z @ p[:2])[:, None])))
        p_level = np.diff(cumulative, axis=1)[np.arange(60), codes]
        return 0.5 * p[:2] @ p[:2] - np.log(p_level).sum()

    slow = minimize(
        loss,
        np.array([0.0, 0, -1, 0, 0]),
        method="Nelder-Mead",
        options={"maxiter": 20000, "xatol": 1e-9, "fatol": 1e-12},
    )
    thresholds = slow.x[2] + np.concatenate([[0], np.cumsum(np.exp(slow.x[3:]))])
    expected = log_probabilities(z @ slow.x[:2], thresholds)
    np.testing.assert_allclose(np.exp(ordinal_path(x, codes, x, (1.0,), 4)[0]), np.exp(expected), atol=2e-4)


def test_wide_activations_give_the_same_as_their_span_and_absent_levels_get_nothing():
    rng = np.random.default_rng(0)
    x, codes = rng.normal(size=(20, 50)), np.tile([0, 2], 10)
    for path in (ordinal_path, logistic_path):
        log_p = path(x, codes, x, (1e-3, 1.0), 3)
        assert log_p.shape == (2, 20, 3)
        assert (np.exp(log_p[..., 1]) < 1e-6).all()
        assert (np.exp(log_p[1]).argmax(1) == codes).all()


def test_a_grade_is_read_with_its_order_and_its_error_in_levels():
    x, codes = graded()
    result = fit_probe(x, codes, kind="ordinal", name="grade", n_shuffles=39, n_boot=100)
    assert result.metric == "C-index"
    assert result.score > 0.75
    assert result.mae < result.mae_of_mean
    assert "levels" in result.text
    assert result.levels == (0, 1, 2, 3)
    np.testing.assert_allclose(result.predicted, np.exp(result.log_p) @ np.arange(4))
    assert result.calibration.error < 0.1
    assert result.claim().verdict == "met"
    shuffled = np.random.default_rng(0).permutation(codes)
    assert (
        fit_probe(x, shuffled, kind="ordinal", n_shuffles=19, n_control_tasks=0, n_boot=100).claim().verdict
        == "not met"
    )


def test_a_camera_is_read_among_several_classes():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(60), 2)
    camera = np.repeat(rng.integers(0, 3, 60), 2)
    x = rng.normal(size=(120, 8))
    x[:, 1] += 3 * (camera == 1)
    x[:, 2] += 3 * (camera == 2)
    result = fit_probe(x, camera, groups=groups, kind="categorical", name="camera", n_shuffles=19, n_boot=100)
    assert result.metric == "mean one-vs-rest AUROC"
    assert result.score > 0.9
    assert np.isnan(result.spearman)
    assert result.mae is None
    assert (result.predicted == camera).mean() > 0.8
    assert {c.name: c.passed for c in result.controls} == {
        "shuffled attribute": True, "control task": True, "description length": True,
    }  # fmt: skip


def test_kinds_that_cannot_be_meant_are_named():
    x = np.random.default_rng(0).normal(size=(40, 3))
    with pytest.raises(ConfigError, match="kind is 'ordinl': did you mean 'ordinal'"):
        fit_probe(x, x[:, 0], kind="ordinl")
    with pytest.raises(AttributeTableError, match="'size' has 40 distinct values, too many for classes"):
        fit_probe(x, x[:, 0], kind="categorical", name="size")
