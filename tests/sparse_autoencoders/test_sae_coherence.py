"""Directions kept apart: duplicates and merged features by hand, left-overs by what was planted, and what a training gains."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_store import MemoryStore

from sparse_autoencoders.architectures import matching_pursuit
from sparse_autoencoders.architectures.coherence import apart, duplicates, shared
from sparse_autoencoders.architectures.matching_pursuit import MatchingPursuitLearner
from sparse_autoencoders.config import TrainSAEConfig
from sparse_autoencoders.ground_truth import DictionarySettings, SyntheticDictionary, matching_pursuit_codes, recovery
from sparse_autoencoders.initialisation import start
from sparse_autoencoders.training import train_saes

ROOT = 0.5**0.5


def unit(rows):
    return torch.nn.functional.normalize(torch.as_tensor(rows, dtype=torch.float32), dim=1)


def test_of_two_that_say_the_same_the_rarer_is_the_duplicate():
    directions = unit([[1.0, 0.1, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [-1.0, 0.0, 0.0]])
    assert duplicates(directions, torch.tensor([0.1, 0.2, 0.3, 0.1]), 0.9).tolist() == [True, False, False, False]
    assert duplicates(directions, torch.tensor([0.2, 0.1, 0.3, 0.1]), 0.9).tolist() == [False, True, False, False]
    # that point opposite ways is not the same; of two that fire alike the first stays
    assert duplicates(directions, torch.zeros(4), 0.9).tolist() == [False, True, False, False]


def test_a_sum_of_two_features_becomes_what_it_is_beside_the_more_frequent():
    directions = unit([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    merged, rest = apart(directions, torch.tensor([0.1, 0.2, 0.3]), 0.5, 0.8)
    assert merged.tolist() == [0]
    assert torch.allclose(rest, torch.tensor([[0.0, 1.0, 0.0]]), atol=1e-6)
    # the parent keeps its place where its child's sum fires more often: then it is the parent that is taken out of
    merged, rest = apart(directions, torch.tensor([0.2, 0.1, 0.3]), 0.5, 0.8)
    assert merged.tolist() == [1]
    assert torch.allclose(rest, torch.tensor([[ROOT, -ROOT, 0.0]]), atol=1e-6)


def test_of_several_the_nearest_is_taken_out_and_duplicates_have_nothing_to_be_taken_from():
    directions = unit([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.8, 0.6, 0.5], [1.0, 0.0, 0.0]])
    merged, rest = apart(directions, torch.tensor([0.4, 0.3, 0.2, 0.1]), 0.5, 0.8)
    assert merged.tolist() == [2]
    assert torch.allclose(rest, unit([[0.0, 0.6, 0.5]]), atol=1e-6)


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_both_are_those_of_a_loop_over_pairs(seed):
    g = torch.Generator().manual_seed(seed)
    directions = unit(torch.randn(12, 4, generator=g))
    frequency = torch.randint(0, 5, (12,), generator=g) / 10
    double = duplicates(directions, frequency, 0.8)
    merged, rest = apart(directions, frequency, 0.5, 0.8)
    expected = {}
    for i in range(12):
        others = [j for j in range(12) if (frequency[j], -j) > (frequency[i], -i)]
        cosines = {j: float(directions[i] @ directions[j]) for j in others}
        assert bool(double[i]) == any(cosine > 0.8 for cosine in cosines.values())
        if cosines and 0.5 < max(cosines.values()) <= 0.8:
            nearest = max(cosines, key=cosines.__getitem__)
            expected[i] = directions[i] - cosines[nearest] * directions[nearest]
    assert merged.tolist() == list(expected)
    for row, found in zip(expected.values(), rest, strict=True):
        assert torch.allclose(unit(row[None])[0], found, atol=1e-4)


def test_what_alike_rows_leave_over_is_found_where_each_row_holds_something_else_as_well():
    g = torch.Generator().manual_seed(0)
    planted = unit(torch.randn(5, 40, generator=g))
    of = torch.randint(5, (400,), generator=g)
    other = torch.randn(400, 40, generator=g) / 40**0.5
    found = shared(planted[of] + other, 30, 32, torch.Generator().manual_seed(1))
    single = shared(planted[of] + other, 30, 1, torch.Generator().manual_seed(1))
    assert found.norm(dim=1).tolist() == pytest.approx([1.0] * 30)
    assert (found @ planted.t()).amax(1).mean() > 0.95
    assert (single @ planted.t()).amax(1).mean() < 0.8


def test_rows_that_leave_nothing_over_are_never_drawn():
    left_over = torch.zeros(50, 3)
    left_over[7, 2] = -2.0
    assert shared(left_over, 4, 1, torch.Generator().manual_seed(0)).tolist() == [[0.0, 0.0, -1.0]] * 4


def learner_for(sample, width=12, **more):
    begin = start("data", sample, width, 3, torch.Generator().manual_seed(1))
    return MatchingPursuitLearner(begin, TrainSAEConfig(k=3, arch="matching-pursuit", **more), 5)


@pytest.mark.parametrize(("lr", "stays"), [(1e-3, False), (5e-4, False), (4e-4, True)])
def test_a_duplicate_starts_anew_when_the_time_comes_and_not_at_a_low_rate(lr, stays):
    x = torch.randn(200, 16, generator=torch.Generator().manual_seed(0))
    learner = learner_for(x, lr=1e-3)
    for _ in range(24):
        learner.step(x, lr=lr, k=3)
    with torch.no_grad():
        learner.decoder[3] = learner.decoder[5]
    learner.step(x, lr=lr, k=3)
    same = torch.nn.functional.cosine_similarity(learner.decoder[3], learner.decoder[5], dim=0) > 0.99
    assert bool(same) == stays
    assert bool((learner.state()["exp_avg.decoder"][[3, 5]] == 0).all(1).any()) != stays


def test_where_nothing_is_left_over_nothing_starts_anew():
    learner = learner_for(torch.randn(64, 16, generator=torch.Generator().manual_seed(0)))
    with torch.no_grad():
        learner.decoder.copy_(torch.eye(12, 16))
        learner.decoder[3] = learner.decoder[5]
    learner.taken.fill_(25)
    learner._keep_apart()
    assert torch.equal(learner.decoder[3], learner.decoder[5])


def test_a_state_taken_before_directions_are_kept_apart_goes_on_to_the_same_bits():
    x = torch.randn(300, 16, generator=torch.Generator().manual_seed(0))
    whole, again = learner_for(x, width=40), learner_for(x, width=40)

    def steps(learner, first, last):
        return [learner.step(x[step : step + 128], lr=1e-3, k=3).loss for step in range(first, last)]

    steps(whole, 0, 140)
    state = {name: tensor.clone() for name, tensor in whole.state().items()}
    expected = steps(whole, 140, 160)
    again.load_state(state)
    assert steps(again, 140, 160) == expected
    assert all(torch.equal(tensor, again.state()[name]) for name, tensor in whole.state().items())


def test_how_often_features_fire_is_a_running_mean():
    x = torch.randn(200, 16, generator=torch.Generator().manual_seed(0))
    learner = learner_for(x)
    seen = learner.step(x, lr=1e-3, k=3)
    assert float(learner.frequency.sum()) == pytest.approx(seen.l0 / 25, rel=1e-5)
    assert torch.equal(learner.left_over[:-200], torch.zeros(4096 - 200, 16))
    assert float(learner.left_over.square().sum()) / 200 == pytest.approx(seen.squared_error, rel=1e-5)


@pytest.mark.slow
def test_features_that_fire_only_beside_another_are_found_and_no_variance_is_lost(monkeypatch):
    truth = SyntheticDictionary(
        DictionarySettings(width=40, features=60, active=4, zipf=0.5, correlation=0.3, children=15)
    )
    generator = torch.Generator().manual_seed(1)
    store = MemoryStore(truth.draw(6000, generator)[0].reshape(60, 100, 40))
    x, codes = truth.draw(1000, generator)

    def found():
        sae = train_saes(
            store, arch="matching-pursuit", k=4, expansion=1.5, batch_size=128, steps=1200, lr=3e-3, seeds=(0,)
        )[0]
        oracle = matching_pursuit_codes(x, truth.directions, 4)
        score = recovery(sae.directions, sae.encode(x), truth, codes, oracle)
        return score, sae.provenance["metrics"]["train"]["explained_variance"]

    kept, explained = found()
    monkeypatch.setattr(matching_pursuit, "_HIGH", float("inf"))
    left, explained_before = found()
    assert kept.cosine > left.cosine + 0.03
    assert kept.f1 > left.f1 + 0.05
    assert kept.f1 >= 0.95 * kept.oracle_f1
    assert explained >= explained_before
