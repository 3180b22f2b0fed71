"""A silent feature's encoder grows until one row takes it in, no further, and no other feature changes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_store import MemoryStore

from mechinterp.errors import ConfigError
from sparse_autoencoders import evaluate_sae, train_saes
from sparse_autoencoders.config import TrainSAEConfig
from sparse_autoencoders.initialisation import start
from sparse_autoencoders.saelens import SAELensLearner
from sparse_autoencoders.single_training import make_learner
from sparse_autoencoders.waking import Waking, due, growth


def test_a_feature_grows_by_what_is_missing_on_the_row_that_suits_it_best():
    hidden = torch.tensor([[9.0, 5, 2, 1], [8, 3, 2, 0.5]])
    silent, norms = torch.tensor([False, False, True, True]), torch.tensor([9.0, 9, 1, 1])
    # the second largest are 5 and 3: feature 2 reaches 2/5 and 2/3 of them, feature 3 1/5 and 1/6
    assert growth(hidden, norms, silent, 2, whole_batch=False).tolist() == pytest.approx([3 / 2, 5], rel=1e-3)
    # two rise: of the batch's four places one is left to them, but a tenth of four is none; the bar is 3
    assert growth(hidden, norms, silent, 2, whole_batch=True).tolist() == pytest.approx([3 / 2, 3], rel=1e-3)


def test_none_grows_beyond_twice_the_norm_of_those_that_are_heard_and_none_shrinks():
    hidden = torch.tensor([[9.0, 5, 2, -1, 4]])
    silent, norms = torch.arange(5) > 1, torch.tensor([2.0, 4, 4, 1, 30])
    assert growth(hidden, norms, silent, 2, whole_batch=False).tolist() == pytest.approx([6 / 4, 6, 1])


def test_what_points_away_from_every_row_grows_tenfold_at_most():
    hidden, silent = torch.tensor([[9.0, -1]]), torch.tensor([False, True])
    assert float(growth(hidden, torch.tensor([100.0, 1.0]), silent, 1, whole_batch=False)) == pytest.approx(
        10, rel=1e-3
    )


def test_a_whole_batch_makes_room_for_all_that_grow_up_to_a_tenth_of_its_places():
    hidden = torch.arange(1, 1001.0).view(50, 20)
    silent = torch.arange(20) < 4
    hidden[:, :4] /= 4
    grown = hidden.clone()
    norms = torch.where(silent, 1.0, 9.0)
    grown[:, :4] *= growth(hidden, norms, silent, 2, whole_batch=True)
    assert kept(grown, 2, True)[:, :4].sum(0).tolist() == [1, 1, 1, 1]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), k=st.integers(1, 5), whole_batch=st.booleans())
def test_what_has_grown_is_kept_on_one_row_and_was_on_none(seed, k, whole_batch):
    hidden = torch.rand(20, 12, generator=torch.Generator().manual_seed(seed)) + 1
    silent = torch.arange(12) == 7
    hidden[:, 7] /= 5
    norms = torch.where(silent, 0.01, 1.0)
    grown = hidden.clone()
    grown[:, silent] *= growth(hidden, norms, silent, k, whole_batch=whole_batch)
    assert kept(grown, k, whole_batch)[:, 7].sum() == 1
    assert not kept(hidden, k, whole_batch)[:, 7].any()


def kept(hidden, k, whole_batch):
    """Slow twin: sort, and look."""
    if whole_batch:
        return (hidden >= hidden.flatten().sort(descending=True).values[k * len(hidden) - 1]) & (hidden > 0)
    return (hidden >= hidden.sort(dim=1, descending=True).values[:, k - 1 : k]) & (hidden > 0)


def test_silence_is_looked_for_once_in_as_many_steps_as_it_lasts_and_not_in_the_last_tenth():
    assert [step for step in range(100) if due(step, 100, 40, 0.5)] == [19, 39, 59, 79]
    assert due(19, 100, 40, 0.5) == 20
    assert due(0, 100, 40, 0.001) == 1
    assert not any(due(step, 100, 40, 0.0) for step in range(100))


@pytest.fixture
def sample():
    return torch.randn(64, 6, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("arch", ["topk", "batchtopk", "matryoshka"])
@pytest.mark.parametrize("own_step", [True, False])
def test_both_kinds_of_learner_wake_the_same(arch, own_step, sample):
    config = TrainSAEConfig(arch=arch, k=3)
    begin = start("data", sample, 12, 3, torch.Generator().manual_seed(1))
    learner = make_learner(begin, config, 3, 0) if own_step else SAELensLearner(begin, config, 3, 0)
    assert isinstance(learner, Waking)
    learner.step(sample, lr=1e-3, k=3)
    encoder, bias = ("encoder", "bias") if own_step else ("W_enc", "b_enc")
    silent = torch.arange(12) < 2
    weights = learner.trained()[encoder]
    (weights if own_step else weights.T)[silent] *= 0.2
    before = {name: tensor.clone() for name, tensor in learner.trained().items()}
    learner.wake(silent, sample)
    for name, tensor in learner.trained().items():
        if name not in {encoder, bias}:
            assert torch.equal(tensor, before[name]), name
    now = learner.trained()[encoder]
    assert torch.equal(
        now[~silent] if own_step else now[:, ~silent],
        before[encoder][~silent] if own_step else before[encoder][:, ~silent],
    )
    cosine = torch.nn.functional.cosine_similarity(now, before[encoder], dim=1 if own_step else 0)
    assert torch.allclose(cosine, torch.ones(12), atol=1e-5)
    learner.silent_for[:] = 9
    learner.step(sample, lr=0.0, k=3)
    assert (learner.silent_for[silent] == 0).all()


def test_features_outside_the_topk_family_are_left_alone(sample):
    learner = make_learner(
        start("data", sample, 12, 3, torch.Generator().manual_seed(1)), TrainSAEConfig(arch="standard", k=3), 3, 0
    )
    before = {name: tensor.clone() for name, tensor in learner.trained().items()}
    learner.wake(torch.ones(12, dtype=torch.bool), sample)
    assert all(torch.equal(before[name], tensor) for name, tensor in learner.trained().items())


def clustered(seed=0):
    """Return tokens of few kinds, of very different strength: most features of a wide dictionary are never the strongest."""
    generator = torch.Generator().manual_seed(seed)
    kinds = torch.randn(12, 16, generator=generator) * torch.logspace(0.5, -1, 12)[:, None]
    x = kinds[torch.randint(12, (80 * 30,), generator=generator)] + 0.1 * torch.randn(80 * 30, 16, generator=generator)
    return MemoryStore(x.view(80, 30, 16), splits=["train"] * 50 + ["test"] * 30)


@pytest.mark.parametrize("arch", ["topk", "batchtopk"])
def test_waking_leaves_far_fewer_features_dead(arch):
    store, common = clustered(), {"k": 4, "expansion": 8, "epochs": 12, "batch_size": 64, "aux": 0.0, "restarts": 0}
    asleep, awake = (
        evaluate_sae(train_saes(store, arch=arch, wake=wake, **common)[0], store, store.where("test"))
        for wake in (0.0, 0.2)
    )
    assert awake.dead < 0.5 * asleep.dead


def test_a_negative_wait_is_refused():
    with pytest.raises(ConfigError, match=r"wake is -1: it must not be negative"):
        TrainSAEConfig(wake=-1)
