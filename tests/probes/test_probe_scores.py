"""Ridge, logistic regression and their scores: by hand and against scikit-learn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from mechinterp.errors import AttributeTableError
from probes import make_folds
from probes.classifiers import STRENGTHS, nested_classes
from probes.logistic import logistic_path
from probes.ridge import ALPHAS, nested_ridge, ridge_path
from probes.scores import Reading, auroc, concordance, one_hot, r_squared, rank_correlation


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    with threadpool_limits(1):  # small matrices: threads only wait for each other
        yield


@settings(deadline=None, max_examples=20)
@given(n=st.integers(5, 40), width=st.integers(1, 40), seed=st.integers(0, 99))
def test_the_ridge_path_equals_scikit_learn_for_wide_and_for_tall_activations(n, width, seed):
    rng = np.random.default_rng(seed)
    x, y, t = rng.normal(size=(n, width)) * 3 + 1, rng.normal(size=(n, 2)), rng.normal(size=(6, width))
    for alpha, found in zip((0.3, 20.0), ridge_path(x, y, t, (0.3, 20.0)), strict=True):
        model = make_pipeline(StandardScaler(), Ridge(alpha=alpha)).fit(x, y)
        np.testing.assert_allclose(found, model.predict(t), atol=1e-8)


def test_neurons_that_never_vary_are_left_out_also_where_they_vary_in_the_test():
    rng = np.random.default_rng(0)
    x, y, t = rng.normal(size=(20, 3)), rng.normal(size=(20, 1)), rng.normal(size=(5, 3))
    dead = np.full((20, 1), 0.1)
    with_dead = ridge_path(np.hstack([x, dead]), y, np.hstack([t, 1e6 * np.ones((5, 1))]))
    np.testing.assert_allclose(with_dead, ridge_path(x, y, t), atol=1e-10)


def test_nested_ridge_equals_the_obvious_two_loops():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(30, 6))
    y = x[:, :1] + rng.normal(size=(30, 1))
    folds = make_folds(30, 3, groups=np.repeat(np.arange(10), 3))
    found, reference, chosen = nested_ridge(x, y, folds)
    for k in range(3):
        train, test = folds.split(k)
        errors = []
        for alpha in ALPHAS:
            error = 0.0
            for inner in set(folds.fold[train]):
                a, b = train[folds.fold[train] != inner], train[folds.fold[train] == inner]
                model = make_pipeline(StandardScaler(), Ridge(alpha=alpha)).fit(x[a], y[a])
                error += ((model.predict(x[b]).reshape(-1, 1) - y[b]) ** 2).sum()
            errors.append(error)
        assert chosen[k, 0] == np.argmin(errors)
        model = make_pipeline(StandardScaler(), Ridge(alpha=ALPHAS[chosen[k, 0]])).fit(x[train], y[train])
        np.testing.assert_allclose(found[test, 0], model.predict(x[test]).ravel(), atol=1e-8)
        np.testing.assert_allclose(reference[test, 0], y[train].mean())


def test_many_targets_are_read_as_each_alone():
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(25, 40)), rng.normal(size=(25, 5))
    folds = make_folds(25, 5)
    together = nested_ridge(x, y, folds)[0]
    for j in range(5):
        np.testing.assert_allclose(together[:, [j]], nested_ridge(x, y[:, [j]], folds)[0], atol=1e-10)


def test_nested_logistic_equals_scikit_learn_with_the_penalty_of_the_least_log_loss():
    rng = np.random.default_rng(3)
    for width in (4, 45):
        x = rng.normal(size=(36, width))
        y = (x[:, 0] + rng.normal(size=36) > 0).astype(float)
        folds = make_folds(36, 3, classes=y)
        log_p, chosen = nested_classes(logistic_path, x, y.astype(int), 2, folds, "tumour")
        found = log_p[:, 1] - log_p[:, 0]
        for k in range(3):
            train, test = folds.split(k)
            loss = []
            for c in STRENGTHS:
                p = np.empty(len(train))
                for inner in set(folds.fold[train]):
                    a, b = folds.fold[train] != inner, folds.fold[train] == inner
                    model = make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=2000))
                    p[b] = model.fit(x[train][a], y[train][a]).predict_proba(x[train][b])[:, 1]
                loss.append(log_loss(y[train], p))
            assert chosen[k] == STRENGTHS[int(np.argmin(loss))]
            model = make_pipeline(StandardScaler(), LogisticRegression(C=chosen[k], max_iter=2000))
            expected = model.fit(x[train], y[train]).decision_function(x[test])
            np.testing.assert_allclose(found[test], expected, atol=5e-3)


def test_a_training_set_of_one_class_says_which_attribute_and_what_to_do():
    y = np.r_[np.zeros(10), np.ones(10)]
    with pytest.raises(AttributeTableError, match=r"'tumour' has one class only .* use fewer folds"):
        nested_classes(
            logistic_path, np.random.default_rng(0).normal(size=(20, 2)), y.astype(int), 2, make_folds(20, y), "tumour"
        )


def test_r_squared_is_one_for_perfect_zero_for_the_training_mean_and_below_for_worse():
    truth, reference = np.array([[1.0], [2], [6]]), np.full((3, 1), 2.5)
    assert r_squared(truth, truth, reference)[0] == 1
    assert r_squared(truth, reference, reference)[0] == 0
    assert r_squared(truth, -truth, reference)[0] < 0
    assert np.isnan(r_squared(reference, reference, reference)[0])


@settings(deadline=None, max_examples=30)
@given(n=st.integers(2, 40), levels=st.integers(2, 9), seed=st.integers(0, 99))
def test_auroc_equals_scikit_learn_with_ties(n, levels, seed):
    rng = np.random.default_rng(seed)
    truth, score = rng.integers(0, 2, size=(n, 1)).astype(float), rng.integers(0, levels, size=(n, 1)).astype(float)
    if np.ptp(truth) == 0:
        assert np.isnan(auroc(truth, score)[0])
    else:
        assert auroc(truth, score)[0] == pytest.approx(roc_auc_score(truth, score))


def test_the_rank_correlation_of_a_constant_prediction_has_no_answer():
    truth = np.array([[1.0], [2], [3]])
    assert rank_correlation(truth, truth**3)[0] == pytest.approx(1)
    assert np.isnan(rank_correlation(truth, np.ones((3, 1)))[0])


@settings(deadline=None, max_examples=30)
@given(n=st.integers(2, 30), levels=st.integers(1, 5), seed=st.integers(0, 99))
def test_concordance_equals_the_loop_over_pairs_and_with_two_levels_the_auroc(n, levels, seed):
    rng = np.random.default_rng(seed)
    truth, score = rng.integers(0, levels, size=n).astype(float), rng.integers(0, 6, size=n).astype(float)
    pairs = [(a, b) for a in range(n) for b in range(n) if truth[a] < truth[b]]
    found = concordance(truth[:, None], score[:, None])[0]
    if not pairs:
        assert np.isnan(found)
        return
    slow = np.mean([1.0 if score[b] > score[a] else 0.5 if score[b] == score[a] else 0.0 for a, b in pairs])
    assert found == pytest.approx(slow)
    if levels == 2:
        assert found == pytest.approx(auroc(truth[:, None], score[:, None])[0])


def test_the_score_of_classes_is_scikit_learns_mean_of_one_against_the_rest():
    rng = np.random.default_rng(0)
    codes, p = rng.integers(0, 3, size=60), rng.dirichlet(np.ones(3), size=60)
    reading = Reading("categorical", one_hot(codes, 3), np.log(p), np.zeros((60, 3)), classes=3)
    expected = roc_auc_score(codes, p, multi_class="ovr", average="macro")
    assert reading.scores()[0] == pytest.approx(expected)
    assert reading.score_of(np.arange(60)) == pytest.approx(expected)
    assert np.isnan(reading.score_of(np.flatnonzero(codes < 2)))  # a class that was not drawn has no score
