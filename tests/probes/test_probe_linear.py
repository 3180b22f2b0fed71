"""A probe finds what is planted, says when it cannot know, and stands beside its controls."""

import json

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d
from threadpoolctl import threadpool_limits

from mechinterp.errors import AttributeTableError, ConfigError, LeakageError, ShapeError
from probes import fit_probe


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    with threadpool_limits(1):  # small matrices: threads only wait for each other
        yield


def patients(n=60, images=3, width=20, seed=0, strength=1.0):
    rng = np.random.default_rng(seed)
    groups = np.repeat([f"p{i}" for i in range(n)], images)
    area = np.repeat(rng.uniform(10, 90, size=n), images) + rng.normal(size=n * images)
    x = rng.normal(size=(n * images, width))
    x[:, 3] += strength * (area - 50) / 10
    return x, area, groups


def test_a_planted_quantity_is_read_in_its_unit_with_an_interval_and_controls():
    x, area, groups = patients()
    noise = np.random.default_rng(1).normal(size=(len(x), 3))
    result = fit_probe(
        x, area, groups=groups, name="lesion_area", unit="mm²", site="stages.2", baseline=noise, untrained=noise,
        n_shuffles=99, n_boot=300,
    )  # fmt: skip
    assert result.metric == "R²"
    assert result.score > 0.7
    assert result.spearman > 0.8
    assert result.mae < 0.6 * result.mae_of_mean
    assert result.interval.low < result.score < result.interval.high
    assert result.interval.n == result.n_units == 60
    assert result.p_value == pytest.approx(0.01)
    assert {c.name: c.passed for c in result.controls} == {
        "shuffled attribute": True, "pixel baseline": True, "untrained network": True, "control task": True,
        "description length": True,
    }  # fmt: skip
    claim = result.claim()
    assert claim.verdict == "met"
    assert claim.strength == "correlational"
    assert result.claim(threshold=0.99).verdict == "not met"
    assert result.claim(trained=False).verdict == "not met"
    assert "mean absolute error" in result.text
    assert "mm²" in result.text


def test_what_the_pixels_tell_as_well_fails_its_control():
    x, area, groups = patients()
    result = fit_probe(x, area, groups=groups, baseline=area[:, None], n_shuffles=19, n_boot=100)
    baseline = next(c for c in result.controls if c.name == "pixel baseline")
    assert not baseline.passed
    assert result.claim().reasons == (f"control failed: pixel baseline ({baseline.detail})",)


def test_what_is_not_there_is_not_read():
    x, area, groups = patients(strength=0)
    result = fit_probe(x, area, groups=groups, n_shuffles=39, n_boot=100)
    assert result.score < 0.1
    assert result.p_value > 0.05
    assert not result.controls[0].passed
    assert result.claim().verdict == "not met"


def test_no_prediction_comes_from_a_probe_that_saw_the_patient():
    # Each patient has a fingerprint: with leakage the attribute would be read perfectly.
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 5)
    x = rng.normal(size=(40, 30))[groups] + 0.01 * rng.normal(size=(200, 30))
    attribute = rng.normal(size=40)[groups]
    assert fit_probe(x, attribute, groups=groups, n_shuffles=0, n_boot=100).score < 0.2
    assert fit_probe(x, attribute, n_shuffles=0, n_boot=100).score > 0.5


def test_a_binary_attribute_is_read_by_logistic_regression():
    x, area, groups = patients(n=40, images=2)
    result = fit_probe(x, (area > 50).astype(float), groups=groups, name="large", n_shuffles=39, n_boot=200)
    assert result.metric == "AUROC"
    assert result.score > 0.85
    assert result.mae is None
    assert result.p_value == pytest.approx(1 / 40)
    assert result.interval.low > 0.7
    assert result.claim().criterion.startswith("AUROC on held-out images above 0.5")


def test_missing_values_are_left_out_and_the_images_kept_are_named():
    x, area, groups = patients(n=20)
    area[[0, 7]] = np.nan
    result = fit_probe(x, area, groups=groups, n_shuffles=0, n_control_tasks=0, code_length=False, n_boot=100)
    assert len(result.truth) == 58
    assert {0, 7}.isdisjoint(result.images.tolist())
    assert result.p_value is None
    assert result.controls == ()
    assert result.claim().verdict == "not met"


def volume(n=86, seed=0, sigma=1.0, width=30):
    rng = np.random.default_rng(seed)
    x = gaussian_filter1d(rng.normal(size=(n, width)), 2, axis=0)
    curve = gaussian_filter1d(rng.normal(size=n), sigma)
    return x, curve / curve.std()


def test_a_rough_curve_along_one_volume_is_read_and_no_interval_over_patients_is_given():
    x, curve = volume()
    x[:, 4] = curve + 0.05 * x[:, 4]
    result = fit_probe(x, curve, order=np.arange(86), gap=3)
    assert result.score > 0.7
    assert result.interval.text == "not estimable (n = 1)"
    assert result.p_value == 0.05
    assert result.p_scheme == "shifts of ±19 slices over a window of 48"
    assert result.claim().interval_note == "not estimable (n = 1)"


def test_smooth_curves_unrelated_to_the_activations_are_rarely_significant():
    found = 0
    for seed in range(40):
        x, curve = volume(seed=seed, sigma=6.0)
        found += fit_probe(x, curve, order=np.arange(86), n_boot=100).p_value <= 0.05
    assert found <= 7  # one test in a thousand at its level finds more


def test_a_short_volume_says_that_nothing_can_be_significant():
    x, curve = volume(n=40)
    result = fit_probe(x, curve, order=np.arange(40))
    assert result.controls[0].detail.startswith("cannot be significant with 40 units")
    assert not result.controls[0].passed


def test_folds_of_a_volume_may_be_given():
    x, curve = volume()
    result = fit_probe(x, curve, order=np.arange(86), folds=np.arange(86) // 10)
    np.testing.assert_array_equal(result.fold, np.arange(86) // 10)


def test_a_result_is_plain_json():
    x, area, groups = patients(n=12)
    result = fit_probe(x, area, groups=groups, n_shuffles=9, n_boot=100)
    text = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert text["interval"]["text"] == result.interval.text
    assert text["score"] == result.score
    assert text["controls"][0]["name"] == "shuffled attribute"
    assert len(text["predicted"]) == 36


def test_inputs_that_do_not_fit_are_named():
    x, area, groups = patients(n=12)
    with pytest.raises(ShapeError, match=r"baseline have shape \(3, 2\) for 36 values of 'area'"):
        fit_probe(x, area, baseline=np.zeros((3, 2)), name="area")
    with pytest.raises(AttributeTableError, match="'area' has 5 values"):
        fit_probe(x, np.where(np.arange(36) < 5, area, np.nan), name="area")
    with pytest.raises(AttributeTableError, match="'area' is 3 on every image"):
        fit_probe(x, np.full(36, 3.0), name="area")
    with pytest.raises(AttributeTableError, match="'area' has values besides 0 and 1"):
        fit_probe(x, area, name="area", kind="binary")
    with pytest.raises(LeakageError, match="a group stands in both fold '0' and fold '1'"):
        fit_probe(x, area, groups=groups, folds=np.arange(36) % 2)
    with pytest.raises(ConfigError, match="parts of one subject: give order"):
        fit_probe(x, area, groups=groups, units_are_patients=False)
