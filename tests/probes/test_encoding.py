"""Encoding models: planted fields and weights are found again; ridge as scikit-learn's; errors by message."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

from mechinterp.errors import ShapeError
from probes.encoding import fit_encoding, seen_through
from probes.receptive_fields import ReceptiveFields

N, VOXELS = 160, 4


@pytest.fixture(scope="module")
def planted():
    """Two sites of unequal grids and widths; each voxel sees both through one field."""
    random = np.random.default_rng(0)
    maps, places = {}, {}
    for name, side, width in (("early", 6, 3), ("late", 3, 2)):
        at = (np.arange(side) - (side - 1) / 2) * 9 / side
        places[name] = np.stack([a.ravel() for a in np.meshgrid(at, at, indexing="ij")], axis=1)
        maps[name] = random.standard_normal((N, side * side, width)).astype(np.float32)
    candidates = ReceptiveFields.candidates(3.0, 1.5, (1.0, 2.0))
    true = candidates[np.array([3, 11, 18, 25])]
    weights = random.standard_normal((5, VOXELS))
    shown = np.stack(
        [seen_through(maps, places, true[np.array([v])])[0] @ weights[:, v] for v in range(VOXELS)], axis=1
    )
    return maps, places, candidates, true, weights, shown + 3.0


def fitted(planted, responses=None, **more):
    maps, places, candidates, _, _, shown = planted
    return fit_encoding(maps, places, shown if responses is None else responses, candidates, **more)


def test_planted_fields_and_weights_are_found_again(planted):
    maps, _, _, true, weights, shown = planted
    model = fitted(planted, penalties=(1e-6,))
    assert model.fields.distance_deg(true) == pytest.approx(np.zeros(VOXELS))
    assert model.fields.size_deg.tolist() == true.size_deg.tolist()
    assert model.weights == pytest.approx(weights, abs=1e-3)
    assert model.predict(maps) == pytest.approx(shown, abs=1e-3)
    # nothing else accounts for them
    assert model.spread_deg == pytest.approx(np.zeros(VOXELS), abs=1e-6)


def test_fields_are_found_through_noise_too_and_of_noise_alone_they_say_that_nothing_is_known(planted):
    *_, candidates, true, _, shown = planted
    random = np.random.default_rng(1)
    responses = np.concatenate(
        [shown + 0.3 * shown.std(0) * random.standard_normal(shown.shape), random.standard_normal((N, 2))], 1
    )
    model = fitted(planted, responses)
    assert model.fields[np.arange(VOXELS)].distance_deg(true).max() < 0.3
    assert model.spread_deg[:VOXELS].max() < 0.5
    # of a field that may lie anywhere among the candidates
    anywhere = np.hypot(candidates.up_deg, candidates.right_deg)
    assert model.spread_deg[VOXELS:].min() > 0.5 * np.sqrt(np.square(anywhere).mean())


def test_the_weights_are_those_of_scikit_learns_ridge(planted):
    maps, places, candidates, *_, shown = planted
    alone = candidates[np.array([7])]
    model = fit_encoding(maps, places, shown, alone, penalties=(10.0,))
    x = seen_through(maps, places, alone)[0]
    scaler = StandardScaler().fit(x)
    theirs = Ridge(alpha=10.0).fit(scaler.transform(x), shown)
    assert model.predict(maps) == pytest.approx(theirs.predict(scaler.transform(x)), abs=1e-5)


def test_seeing_through_a_field_is_a_weighted_sum_over_tokens(planted):
    maps, places, candidates, *_ = planted
    some = candidates[np.array([5, 20])]
    found = seen_through(maps, places, some)
    for f in range(2):
        slow = [
            sum(some.over(places[s])[f][t] * maps[s][:, t].astype(float) for t in range(len(places[s]))) for s in places
        ]
        assert found[f] == pytest.approx(np.concatenate(slow, 1), abs=1e-5)


def test_the_model_of_some_voxels_predicts_them_as_before(planted):
    maps, *_ = planted
    model, chosen = fitted(planted), np.array([3, 1])
    assert model.of(chosen).predict(maps) == pytest.approx(model.predict(maps)[:, chosen])


def test_a_regions_map_sums_to_its_mean_prediction(planted):
    maps, *_ = planted
    model = fitted(planted)
    chosen = np.array([0, 2, 3])
    by_site = model.region_map(chosen)
    summed = sum(np.einsum("itw,tw->i", maps[s].astype(float), by_site[s]) for s in by_site)
    assert summed + model.intercept[chosen].mean() == pytest.approx(model.predict(maps)[:, chosen].mean(1), abs=1e-5)


def test_a_channel_that_never_varies_is_left_out(planted):
    maps, places, candidates, *_, shown = planted
    constant = {
        "early": np.concatenate([maps["early"], np.full((*maps["early"].shape[:2], 1), 7, np.float32)], 2),
        "late": maps["late"],
    }
    model = fit_encoding(constant, places, shown, candidates)
    assert np.isfinite(model.weights).all()
    assert (model.weights[3] == 0).all()


def test_a_voxel_that_never_answers_is_predicted_by_its_mean(planted):
    model = fitted(planted, np.full((N, 1), 2.5))
    assert model.predict(planted[0])[:, 0] == pytest.approx(np.full(N, 2.5))
    assert model.fields.eccentricity_deg[0] == pytest.approx(0, abs=1e-9)


def test_what_does_not_belong_together_is_refused(planted):
    maps, places, candidates, *_, shown = planted
    with pytest.raises(ShapeError, match="no map of site 'late'"):
        fit_encoding({"early": maps["early"]}, places, shown, candidates)
    with pytest.raises(ShapeError, match="36 tokens"):
        fit_encoding({**maps, "early": maps["early"][:, :5]}, places, shown, candidates)
    with pytest.raises(ShapeError, match=r"\[150, 160\]"):
        fit_encoding({**maps, "early": maps["early"][:150]}, places, shown, candidates)
    with pytest.raises(ShapeError, match="give both of the same"):
        fit_encoding(maps, places, shown[:-1], candidates)
    broken = shown.copy()
    broken[3, 1] = np.nan
    with pytest.raises(ShapeError, match="1 responses are missing"):
        fit_encoding(maps, places, broken, candidates)
