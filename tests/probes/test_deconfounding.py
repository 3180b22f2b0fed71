"""A readout of size goes along with contrast; held fixed, only the attribute that is used keeps its slope."""

import numpy as np
import pytest
from scipy.stats import binom
from sklearn.linear_model import LinearRegression

from mechinterp.attributes.table import Attribute, AttributeTable
from mechinterp.errors import AttributeTableError, ConfigError, ShapeError
from probes import (
    check_erasure,
    confounder_figure,
    confounder_graph,
    deconfounded,
    leace,
    make_folds,
    matched_effect,
    naive_effect,
    partial_correlation,
    residualised_effect,
)
from probes.cross_fitting import BasisResiduals


def lesions(n=150, images=2, rho=0.8, seed=0):
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n), images)
    both = rng.multivariate_normal([0, 0], [[1, rho], [rho, 1]], size=n)[groups] + 0.1 * rng.normal(
        size=(n * images, 2)
    )
    noise = 0.5 * rng.normal(size=n)[groups] + 0.3 * rng.normal(size=n * images)
    return both[:, 0], both[:, 1], noise, groups


def test_held_fixed_the_unused_attribute_has_no_slope_and_the_used_one_keeps_its_own():
    size, contrast, noise, groups = lesions()
    readout = 2 * size + noise
    assert naive_effect(readout, contrast, groups=groups, n_boot=200).excludes_zero
    for used, other, truth in ((size, contrast, 2), (contrast, size, 0)):
        found = deconfounded(readout, used, other, groups=groups, unit="mm²", n_boot=200)
        assert [e.method for e in found] == ["naive", "partial correlation", "residualised", "matched"]
        for effect in found[1:]:
            assert effect.excludes_zero == (truth != 0)
        for effect in found[2:]:
            assert effect.value == pytest.approx(truth, abs=0.35)
            assert effect.unit == "per mm²"
            assert effect.interval.low < truth < effect.interval.high
    assert "residualised: " in found[2].text
    assert found[2].to_json()["interval"]["n"] == 150


def test_a_bent_confounding_fools_a_straight_line_and_not_splines():
    rng = np.random.default_rng(0)
    c = rng.normal(size=800)
    a = c**2 + 0.5 * rng.normal(size=800)
    readout = c**2 + 0.1 * rng.normal(size=800)
    assert residualised_effect(readout, a, c, learner="linear", n_boot=100).value > 0.5
    assert residualised_effect(readout, a, c, n_boot=100).value == pytest.approx(0, abs=0.03)
    two = rng.normal(size=(800, 2))
    a, readout = two.prod(1) + 0.5 * rng.normal(size=800), two.prod(1) + 0.1 * rng.normal(size=800)
    assert residualised_effect(readout, a, two, n_boot=100).value == pytest.approx(0, abs=0.05)
    a, readout = c**2 + 0.5 * rng.normal(size=800), c**2 + 0.1 * rng.normal(size=800)
    assert matched_effect(readout, a, c, n_boot=100).value == pytest.approx(0, abs=0.05)


def test_the_partial_correlation_is_the_textbooks():
    rng = np.random.default_rng(0)
    a, b, c = rng.multivariate_normal(np.zeros(3), [[1, 0.5, 0.6], [0.5, 1, 0.3], [0.6, 0.3, 1]], size=90).T
    (_, ab, ac), (_, _, bc) = np.corrcoef([a, b, c])[0], np.corrcoef([a, b, c])[1]
    by_hand = (ab - ac * bc) / np.sqrt((1 - ac**2) * (1 - bc**2))
    assert partial_correlation(a, b, c, n_boot=100).value == pytest.approx(by_hand)
    ranked = [v.argsort().argsort().astype(float) for v in (a, b, c)]
    assert partial_correlation(np.exp(a), b, c**3, ranks=True, n_boot=100).value == pytest.approx(
        partial_correlation(*ranked, n_boot=100).value
    )


def test_residuals_of_a_resample_are_those_of_scikit_learn_fitted_on_it():
    rng = np.random.default_rng(0)
    c, targets = rng.normal(size=(40, 2)), rng.normal(size=(40, 2))
    folds = make_folds(40, 4)
    residuals = BasisResiduals(c, targets, folds, "linear")
    drawn = rng.integers(0, 40, size=40)
    expected = np.empty((40, 2))
    for k in range(4):
        train, test = drawn[folds.fold[drawn] != k], folds.fold[drawn] == k
        expected[test] = targets[drawn[test]] - LinearRegression().fit(c[train], targets[train]).predict(c[drawn[test]])
    np.testing.assert_allclose(residuals(drawn), expected, atol=1e-3)


@pytest.mark.slow
def test_intervals_of_the_unused_attribute_cover_zero_at_their_nominal_rate():
    covered = {"partial correlation": 0, "residualised": 0, "matched": 0}
    for seed in range(100):
        size, contrast, noise, groups = lesions(seed=seed)
        for effect in deconfounded(size + noise, contrast, size, groups=groups, n_boot=300, seed=seed)[1:]:
            covered[effect.method] += not effect.excludes_zero
    low, high = binom.interval(0.999, 100, 0.95)
    assert all(low <= n <= high for n in covered.values()), covered


def test_what_cannot_be_estimated_is_named():
    size, contrast, noise, _ = lesions(20)
    with pytest.raises(ConfigError, match="learner is 'splin': did you mean 'spline'"):
        residualised_effect(noise, size, contrast, learner="splin")
    with pytest.raises(AttributeTableError, match="the confounders decide the attribute"):
        residualised_effect(noise, size, 2 * size, learner="linear")
    with pytest.raises(AttributeTableError, match="0 pairs of patients are alike within 1e-09"):
        matched_effect(noise, size, contrast, caliper=1e-9)
    assert len(deconfounded(noise, size, np.linspace(0, 1e6, 40) ** 2, n_boot=100)) in {3, 4}
    with pytest.raises(ShapeError, match=r"have shapes \(40,\), \(39,\) and \(40, 1\)"):
        naive_or_partial(noise, size[1:], contrast)
    with pytest.raises(AttributeTableError, match="the attribute is the same on every image"):
        naive_effect(noise, np.ones(40))
    with pytest.raises(AttributeTableError, match="3 images have readout"):
        naive_effect(noise[:3], size[:3])
    assert naive_effect(noise, size, groups=np.repeat(range(8), 5)).interval.text == "not estimable (n = 8)"


def naive_or_partial(readout, attribute, confounders):
    return partial_correlation(readout, attribute, confounders)


def test_erasing_removes_what_a_linear_probe_reads_exactly_and_leaves_the_rest():
    rng = np.random.default_rng(0)
    size, contrast, _, groups = lesions(300, 1)
    mixing = rng.normal(size=(2, 12))
    x = 1e-3 * (np.column_stack([size, contrast]) @ mixing + 0.3 * rng.normal(size=(300, 12)))
    erased = leace(x, contrast)(x)
    slopes = LinearRegression().fit(erased, contrast).coef_ * x.std()
    np.testing.assert_allclose(slopes, 0, atol=1e-6)
    covariance = (erased - erased.mean(0)).T @ (contrast - contrast.mean())
    np.testing.assert_allclose(covariance / 300, 0, atol=1e-9)
    check = check_erasure(x, size, contrast, groups=groups, names=("size", "contrast"), n_boot=200)
    assert check.erased_before > 0.8
    assert check.erased_after < 0.02
    assert check.kept_before > 0.5
    assert check.kept_after > 0.9 * check.kept_before
    assert check.claim.verdict == "met"
    assert "R²" in check.claim.statement
    # activations of contrast alone hold nothing of size's own
    only = contrast[:, None] + 0.1 * rng.normal(size=(300, 3))
    assert check_erasure(only, size, contrast, n_boot=200).claim.verdict == "not met"
    with pytest.raises(ShapeError, match="one row per image"):
        leace(x, contrast[1:])


def test_the_graph_joins_what_goes_together_and_points_solid_from_what_is_used():
    size, contrast, noise, groups = lesions()
    other = np.random.default_rng(5).normal(size=len(size))
    table = AttributeTable.from_columns(
        [
            (Attribute("lesion_area", "mm²"), size),
            (Attribute("<i>contrast", "1"), contrast),
            (Attribute("depth", "mm"), other),
        ]
    )
    graph = confounder_graph(size + noise, table, table.names, groups=groups, readout_name="logit", n_boot=200)
    assert [e.excludes_zero for e in graph.adjusted] == [True, False, False]
    assert graph.naive[1].excludes_zero
    figure = confounder_figure(graph)
    arrows = [t for t in figure.data if t.mode == "lines" and t.hovertemplate]
    assert [a.line.dash for a in arrows] == ["solid", "dash", "dash"]
    assert sum(t.mode == "lines" and not t.hovertemplate for t in figure.data) == 1  # of three pairs one goes together
    said = " ".join(a.text for a in figure.layout.annotations)
    assert "&lt;i&gt;contrast" in said
    assert "ρ +0.7" in said
    assert graph.to_json()["attributes"][0] == "lesion area [mm²]"
    with pytest.raises(AttributeTableError, match="1 attribute named"):
        confounder_graph(size, table, ["depth"])
