"""What the study measures, where its value is known by hand."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression

from experiments.studies.brain_encoding.actions import _trusted, response_to_chosen
from experiments.studies.brain_encoding.attribution import CHANGES, own_part, slope
from experiments.studies.brain_encoding.features import Driving, matched_sets, taken_away
from experiments.studies.brain_encoding.localization import _at_fixation, nearest_disc
from experiments.studies.brain_encoding.recognizability import reached_by_chance
from experiments.studies.brain_encoding.transparency import lost
from mechinterp.feature_encoder import Neurons
from mechinterp.phantoms.stimuli.parameters import StimulusParameters
from probes.receptive_fields import ReceptiveFields


def test_the_slope_of_half_a_change_is_a_half():
    true = np.random.default_rng(0).standard_normal((10, 4))
    assert slope(0.5 * true, true) == pytest.approx(0.5)
    assert slope(-true, true) == pytest.approx(-1)
    assert np.isnan(slope(true, np.zeros_like(true)))


@given(st.integers(1, 12), st.integers(3, 6), st.integers(0, 2**32 - 1))
def test_the_slope_is_that_of_a_regression_without_intercept(n, voxels, seed):
    predicted, true = np.random.default_rng(seed).standard_normal((2, n, voxels))
    fitted = LinearRegression(fit_intercept=False).fit(true.reshape(-1, 1), predicted.ravel())
    assert slope(predicted, true) == pytest.approx(fitted.coef_[0])


@given(st.integers(1, 5), st.integers(3, 6), st.integers(0, 2**32 - 1))
def test_a_voxels_own_part_is_what_it_does_beside_the_mean_of_its_region(n, voxels, seed):
    changes = np.random.default_rng(seed).standard_normal((n, voxels))
    slow = [[row[v] - sum(row) / voxels for v in range(voxels)] for row in changes.tolist()]
    assert own_part(changes) == pytest.approx(np.array(slow))
    # what all voxels do alike is nobody's own
    assert own_part(changes + np.arange(n)[:, None]) == pytest.approx(np.array(slow))


@pytest.mark.parametrize("change", CHANGES[::2])
def test_of_a_height_only_what_intact_stimuli_do_to_single_voxels_counts(change):
    random = np.random.default_rng(0)
    face, place, scrambled = random.standard_normal((3, 8, 5))
    alike = random.standard_normal((8, 1))
    # whatever is there is followed to its place, and all voxels answer more: an untrained convolution
    by_place = change.effect(np.stack([place + alike, scrambled, scrambled + place]))
    assert by_place == pytest.approx(np.zeros((8, 5)))
    # what only a face does is left, apart from what all do alike
    by_face = change.effect(np.stack([face + place + alike, scrambled, scrambled + place]))
    assert by_face == pytest.approx(face - face.mean(1, keepdims=True))


def test_scrambled_stimuli_are_not_moved_to_where_they_cannot_be_shown():
    high, scrambling = StimulusParameters(content="face", up_deg=2.6), CHANGES[1]
    assert [c.possible(high) for c in CHANGES] == [False, True, False, False]
    assert CHANGES[0].possible(dataclasses.replace(high, up_deg=2.5))
    assert not scrambling.possible(dataclasses.replace(high, arrangement="moved-tiles"))


def test_what_is_lost_is_all_where_nothing_is_predicted_and_nothing_where_all_is_kept():
    random = np.random.default_rng(0)
    measured = random.standard_normal((400, 3))
    predicted = measured + random.standard_normal((400, 3))
    assert lost(predicted, predicted, measured) == pytest.approx(0)
    assert lost(predicted, np.ones_like(measured), measured) == pytest.approx(1)
    assert np.isnan(lost(np.ones_like(measured), measured, measured))


def test_choosing_by_the_responses_themselves_finds_the_largest():
    measured = np.stack([np.arange(20.0), -np.arange(20.0)], axis=1)
    # the two largest of each: 18 and 19, 0 and -1
    assert response_to_chosen(measured, measured, share=0.1) == pytest.approx((18.5 - 0.5) / 2)


def test_the_nearest_disc_is_mirrored_through_fixation():
    discs = ReceptiveFields.candidates(3.0, 1.5, (1.5,))
    field = ReceptiveFields(np.array([1.4]), np.array([-1.6]), np.array([1.0]))
    at = {side: nearest_disc(discs, field, side)[0] for side in (1.0, -1.0, 0.0)}
    assert (discs.up_deg[at[1.0]], discs.right_deg[at[1.0]]) == (1.5, -1.5)
    assert (discs.up_deg[at[-1.0]], discs.right_deg[at[-1.0]]) == (-1.5, 1.5)
    assert discs.eccentricity_deg[at[0.0]] == 0


def test_what_names_of_other_random_features_reach_is_the_spread_of_their_mean():
    random = np.random.default_rng(0)
    there = (random.uniform(size=(400, 60)) < 0.5).astype(float)
    # each name is right as often as it is: from half (chance) to always
    right = random.uniform(0.5, 1.0, 60)
    says = np.where(random.uniform(size=there.shape) < right, there, 1 - there)
    gains = [there[says[:, n] > 0, n].mean() - there[:, n].mean() for n in range(60)]
    reached = reached_by_chance(says, there, seed=0)
    # the mean of sixty draws is nearly normal: 1.645 standard errors above it
    assert reached == pytest.approx(np.mean(gains) + 1.645 * np.std(gains) / 60**0.5, abs=0.004)
    assert reached > np.mean(gains)
    assert np.isnan(reached_by_chance(says[:, :0], there[:, :0], seed=0))


def driven(norm):
    return Driving(np.array([0, 3]), np.zeros(len(norm)), torch.zeros(len(norm)), np.asarray(norm, dtype=float))


def test_random_sets_are_as_strong_as_what_they_stand_beside_and_hold_none_of_it():
    norm = np.concatenate([[5.0, 0.0, 0.0, 1.0], np.linspace(4, 6, 30), np.linspace(0.8, 1.2, 30)])
    for chosen in matched_sets(driven(norm), 10, np.random.default_rng(0)):
        assert len(set(chosen)) == 2
        assert not {0, 1, 2, 3} & set(chosen)
        assert norm[chosen] == pytest.approx([5.0, 1.0], abs=1.0)


def test_there_is_no_random_set_where_too_few_other_features_live():
    assert matched_sets(driven([5.0, 0.0, 0.0, 1.0, 2.0]), 10, np.random.default_rng(0)) == []


def test_features_are_replaced_by_their_mean_or_by_those_of_another_stimulus():
    acts = torch.arange(24.0).reshape(4, 2, 3)
    neurons, chosen = Neurons("site", 3), np.array([1])
    by_mean = taken_away(neurons, chosen, torch.tensor([0.0, 7.0, 0.0]))(acts.clone())
    assert torch.equal(by_mean[..., 1], torch.full((4, 2), 7.0))
    assert torch.equal(by_mean[..., [0, 2]], acts[..., [0, 2]])
    by_another = taken_away(neurons, chosen, None)(acts.clone())
    assert torch.equal(by_another[..., 1], torch.roll(acts[..., 1], 2, 0))


def test_features_that_are_taken_away_by_half_go_half_the_way():
    acts = torch.rand(4, 2, 3)
    neurons, chosen, mean = Neurons("site", 3), np.array([0, 2]), torch.tensor([1.0, 2.0, 3.0])
    half = taken_away(neurons, chosen, mean, 0.5)(acts.clone())
    whole = taken_away(neurons, chosen, mean)(acts.clone())
    assert half == pytest.approx((acts + whole) / 2)


def test_leaving_out_no_voxel_is_no_gain_that_holds():
    random = np.random.default_rng(0)
    measured = random.standard_normal((40, 6))
    confirmed = SimpleNamespace(
        predicted=measured + random.standard_normal((40, 6)), measured=measured, groups=np.arange(40).astype(object)
    )
    bench = SimpleNamespace(
        config=SimpleNamespace(seed=0, sizes=SimpleNamespace(n_random=20)), model=SimpleNamespace(trained=True)
    )
    everybody = _trusted(bench, SimpleNamespace(called=np.ones(6, dtype=bool)), confirmed)
    assert everybody.value is None
    assert everybody.verdict != "met"
    assert "none is left out" in everybody.statement
    confirmed.predicted[:, 3:] = random.standard_normal((40, 3))
    half = _trusted(bench, SimpleNamespace(called=np.arange(6) < 3), confirmed)
    assert half.value > 0
    assert half.statement.startswith("Leaving out 3 of 6 voxels changes the mean correlation from")


@pytest.mark.parametrize(("own", "passes"), [(1.0, True), (0.4, False)])
def test_fixation_is_a_control_for_voxels_whose_field_leaves_it_free(own, passes):
    discs = ReceptiveFields.candidates(6.0, 1.5, (1.5,))
    near, far = np.full(6, 2.0), np.full(6, 4.5)
    fields = ReceptiveFields(np.concatenate([near, far]), np.zeros(12), np.ones(12))
    at = {side: nearest_disc(discs, fields, side) for side in (1.0, 0.0, -1.0)}
    random = np.random.default_rng(0)
    moved = 0.01 * random.uniform(size=(len(discs), 20, 12))
    moved[at[0.0][0]] += 0.5
    # what fixation does to the fields that reach there is not asked
    moved[at[0.0][0], :, :6] += 9.0
    moved[at[1.0], :, np.arange(12)] += own
    groups, bench = np.arange(20).astype(object), SimpleNamespace(config=SimpleNamespace(seed=0))
    control, numbers = _at_fixation(bench, moved, discs, fields, groups, 1.5)
    assert control.passed is passes
    assert control.value == pytest.approx(0.5, abs=0.01)
    assert "of 6 voxels" in control.detail
    assert numbers == {"fields that leave fixation free": 6, "own disc, of those": pytest.approx(own, abs=0.01)}
    few, _ = _at_fixation(bench, moved[:, :, :6], discs, fields[np.arange(6)], groups, 1.5)
    assert few.value is None
    assert few.passed is None
